"""The model card: what the adapter is, what it was made of, whether it got better, how to load it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from koalpaca_tune import html, jsonl
from koalpaca_tune.data import licences
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.hub import facts
from koalpaca_tune.hub.facts import Files
from koalpaca_tune.hub.public import base_name, check_repo, is_hub_name, markdown
from koalpaca_tune.models.architectures import ARCHITECTURES
from koalpaca_tune.records import Conversation, Turn
from koalpaca_tune.templates.registry import TEMPLATES
from koalpaca_tune.templates.template import Markers

NAME = "README.md"
PAGE = "model_card.md.j2"
QUESTION = "대한민국의 수도는 어디인가요?"
SLOT = "{question}"


def write(
    adapter: Path,
    comparison: Path | None,
    *,
    repo: str | None,
    license: str | None,
    data_licenses: Sequence[str],
) -> Path:
    """Writes README.md into an adapter's folder.

    Args:
        adapter: the adapter folder of a run.
        comparison: folder of `koalpaca compare` for this adapter and its base; None: the card says that
            nothing was evaluated.
        repo: user/name on the Hub, if it is known already.
        license: licence of the adapter, as the Hub spells it; None: the card says that it is not known.
        data_licenses: licences of the training data; empty: as the run recorded them.

    Returns:
        The file written.

    Raises:
        KoalpacaError: not a whole adapter of ours (adapter-missing, card-record), a comparison of something
            else (card-comparison, card-other-adapter), no repository name (hub-repo).
    """
    if repo is not None:
        check_repo(repo)
    files = facts.read(adapter)
    found = None if comparison is None else facts.comparison(comparison, adapter, files.record)
    path = adapter / NAME
    jsonl.replace(path, [text(files, found, repo=repo, license=license, data_licenses=data_licenses)])
    return path


def text(
    files: Files,
    comparison: Mapping[str, Any] | None,
    *,
    repo: str | None,
    license: str | None,
    data_licenses: Sequence[str],
) -> str:
    """The whole card. Arguments as for `write`, the files read already.

    Raises:
        KoalpacaError: a part of the record is not what a run writes there (card-record).
    """
    try:
        return _text(files, comparison, repo=repo, license=license, data_licenses=data_licenses)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        # a record from elsewhere may hold anything at any depth
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        raise KoalpacaError(
            "card-record",
            f"a part of it is not what a run writes there ({said}).",
            where=facts.RECORD,
            fix="Restore the file from the run's folder.",
        ) from error


def _text(
    files: Files,
    comparison: Mapping[str, Any] | None,
    *,
    repo: str | None,
    license: str | None,
    data_licenses: Sequence[str],
) -> str:
    record = files.record
    base = record["base"]["path"]
    architecture = ARCHITECTURES.get(record["base"]["model_type"])
    prompt = _prompt(record)
    return html.render(
        PAGE,
        head=head(record, license=license),
        md=markdown,
        name=repo or record["name"],
        base=base_name(base),
        base_word=shlex.quote(base_name(base)),
        on_hub=is_hub_name(base),
        base_facts=facts.base(record),
        license=license or facts.UNKNOWN,
        data_facts=facts.data(record, data_licenses),
        data_licenses=_in_english(data_licenses or facts.licences_of(facts.sources(record))),
        sources=[facts.source(entry) for entry in facts.sources(record) or []],
        conflicts=licences.conflicts(license, facts.sources(record) or []),
        template=record["template"]["name"],
        prompt=None if prompt is None else prompt.text.replace(SLOT, QUESTION),
        settings=facts.settings(files),
        outcome=facts.outcome(record),
        comparison=comparison,
        results=[facts.result(row) for row in comparison["rows"]] if comparison else [],
        code=loading(record, repo),
        repo=repo,
        merged_only=bool(architecture and architecture.merged_only),
        quantised=bool(record["proof"]["linears_4bit"]),
    )


def _in_english(names: Sequence[str]) -> str:
    return ", ".join("not known" if name == facts.UNKNOWN else name for name in names) or "not known"


def head(record: Mapping[str, Any], *, license: str | None) -> str:
    """The YAML that the Hub reads, without its fences. What is not known is left out."""
    from huggingface_hub import ModelCardData

    base = record["base"]["path"]
    known = is_hub_name(base)
    card = ModelCardData(
        language="ko",
        license=None if license is None else " ".join(license.split()),
        library_name="peft",
        pipeline_tag="text-generation",
        base_model=base if known else None,
        base_model_relation="adapter" if known else None,
        tags=["koalpaca-tune", "korean", "qlora" if record["proof"]["linears_4bit"] else "lora"],
    )
    written: str = card.to_yaml()
    return written.strip()


class Prompt(NamedTuple):
    """A template's prompt for one question.

    Attributes:
        text: with SLOT where the question goes.
        adds_special: whether the tokenizer may add its own BOS (the template writes none).
        stops: special tokens that end an answer, besides EOS.
    """

    text: str
    adds_special: bool
    stops: tuple[str, ...]


def _prompt(record: Mapping[str, Any]) -> Prompt | None:
    """None for the tokenizer's own template, which only the tokenizer knows."""
    template = TEMPLATES.get(record["template"]["name"])
    if template is None:
        return None
    # the only template that writes BOS by the tokenizer's name is llama2's, and Llama-2's BOS is <s>
    rendered = template.render(Conversation((Turn("user", SLOT),)), Markers("<s>", "</s>"))
    return Prompt(rendered.text, rendered.pieces[0].kind != "special", template.stops)


def loading(record: Mapping[str, Any], repo: str | None) -> str:
    """Python that loads the adapter as it was trained and answers one question."""
    base, proof = record["base"], record["proof"]
    name = base_name(base["path"])
    revision = f", revision={base['revision']!r}" if base.get("revision") and is_hub_name(base["path"]) else ""
    four_bit = bool(proof["linears_4bit"])
    lines = [
        "import torch",
        "from peft import PeftModel",
        f"from transformers import AutoModelForCausalLM, AutoTokenizer{', BitsAndBytesConfig' if four_bit else ''}",
        "",
        f"base = {name!r}",
        f"adapter = {repo or './adapter'!r}",
        f"tokenizer = AutoTokenizer.from_pretrained(base{revision})",
    ]
    if four_bit:
        lines += [
            "quantization = BitsAndBytesConfig(",
            "    load_in_4bit=True,",
            f"    bnb_4bit_quant_type={proof['quant_type']!r},",
            f"    bnb_4bit_use_double_quant={proof['double_quant']!r},",
            f"    bnb_4bit_compute_dtype=torch.{_dtype(proof['compute_dtype'])},",
            ")",
        ]
    lines += [
        "model = AutoModelForCausalLM.from_pretrained(",
        f"    base{revision},",
        *(["    quantization_config=quantization,"] if four_bit else []),
        f"    dtype=torch.{_resident(proof)},",
        '    device_map="auto",',
        "    use_safetensors=True,",
        ")",
        "model = PeftModel.from_pretrained(model, adapter).eval()",
        "",
        f"question = {QUESTION!r}",
        *_asking(record),
        "with torch.inference_mode():",
        "    output = model.generate(**inputs, max_new_tokens=256, do_sample=False, eos_token_id=stops)",
        'print(tokenizer.decode(output[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True).strip())',
    ]
    return "\n".join(lines)


def _asking(record: Mapping[str, Any]) -> list[str]:
    """Lines of code from `question` to `inputs` and `stops`."""
    prompt = _prompt(record)
    if prompt is None:
        return [
            'messages = [{"role": "user", "content": question}]',
            "prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)",
            "inputs = tokenizer(",
            '    prompt, add_special_tokens=False, return_token_type_ids=False, return_tensors="pt"',
            ").to(model.device)",
            'ends = [t for t in ("<|eot_id|>", "<|im_end|>", "[|endofturn|]") if t in tokenizer.get_vocab()]',
            "stops = [tokenizer.eos_token_id, *tokenizer.convert_tokens_to_ids(ends)]",
        ]
    stops = "".join(f", tokenizer.convert_tokens_to_ids({token!r})" for token in prompt.stops)
    special = "" if prompt.adds_special else ", add_special_tokens=False"
    return [
        f"prompt = {prompt.text!r}.replace({SLOT!r}, question)",
        f'inputs = tokenizer(prompt{special}, return_token_type_ids=False, return_tensors="pt").to(model.device)',
        f"stops = [tokenizer.eos_token_id{stops}]",
    ]


def _resident(proof: Mapping[str, Any]) -> str:
    """Type of what is not quantised: the one that most of it had."""
    dtypes = {name: count for name, count in proof["dtypes"].items() if name in ("bfloat16", "float16", "float32")}
    return max(dtypes, key=lambda name: dtypes[name], default="bfloat16")


def _dtype(name: str) -> str:
    return name if name in ("bfloat16", "float16", "float32") else "bfloat16"
