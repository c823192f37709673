"""Python for a card, which loads what is published as it was trained: same prompt, same stops, same weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from koalpaca_tune.hub import facts
from koalpaca_tune.hub.public import base_name, is_hub_name
from koalpaca_tune.hub.subject import Form
from koalpaca_tune.records import Conversation, Turn
from koalpaca_tune.templates.registry import TEMPLATES
from koalpaca_tune.templates.template import Markers

QUESTION = "대한민국의 수도는 어디인가요?"
SLOT = "{question}"


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


def prompt_of(record: Mapping[str, Any]) -> Prompt | None:
    """None for the tokenizer's own template, which only the tokenizer knows."""
    template = TEMPLATES.get(record["template"]["name"])
    if template is None:
        return None
    # the only template that writes BOS by the tokenizer's name is llama2's, and Llama-2's BOS is <s>
    rendered = template.render(Conversation((Turn("user", SLOT),)), Markers("<s>", "</s>"))
    return Prompt(rendered.text, rendered.pieces[0].kind != "special", template.stops)


def loading(record: Mapping[str, Any], repo: str | None, form: Form = "adapter") -> str:
    """Python that loads what is published as it was trained and answers one question.

    Args:
        record: of the run.
        repo: user/name on the Hub, or None.
        form: an adapter is put on its base; a whole model stands alone.
    """
    lines = _adapted(record, repo or "./adapter") if form == "adapter" else _whole(record, repo or "./model")
    lines += [
        "",
        f"question = {QUESTION!r}",
        *_asking(record),
        "with torch.inference_mode():",
        "    output = model.generate(**inputs, max_new_tokens=256, do_sample=False, eos_token_id=stops)",
        'print(tokenizer.decode(output[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True).strip())',
    ]
    return "\n".join(lines)


def _whole(record: Mapping[str, Any], place: str) -> list[str]:
    return [
        "import torch",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f"name = {place!r}",
        "tokenizer = AutoTokenizer.from_pretrained(name)",
        'model = AutoModelForCausalLM.from_pretrained(name, dtype="auto", device_map="auto", use_safetensors=True)',
        "model.eval()",
    ]


def _adapted(record: Mapping[str, Any], place: str) -> list[str]:
    base, proof = record["base"], record["proof"]
    name = base_name(base["path"])
    revision = f", revision={base['revision']!r}" if base.get("revision") and is_hub_name(base["path"]) else ""
    quantised = bool(proof["linears_4bit"] or proof.get("linears_8bit"))
    config = ", BitsAndBytesConfig" if quantised else ""
    code = facts.has_code(record)
    return [
        "import torch",
        "from peft import PeftModel",
        f"from transformers import AutoModelForCausalLM, AutoTokenizer{config}",
        "",
        f"base = {name!r}",
        f"adapter = {place!r}",
        f"tokenizer = AutoTokenizer.from_pretrained(base{revision})",
        *_quantization(proof),
        "model = AutoModelForCausalLM.from_pretrained(",
        f"    base{revision},",
        *(["    quantization_config=quantization,"] if quantised else []),
        f"    dtype=torch.{_resident(proof)},",
        '    device_map="auto",',
        "    use_safetensors=True,",
        *([f"    trust_remote_code={code},  # read it first"] if code else []),
        ")",
        "model = PeftModel.from_pretrained(model, adapter).eval()",
    ]


def _quantization(proof: Mapping[str, Any]) -> list[str]:
    if proof.get("linears_8bit"):
        threshold = proof.get("threshold")
        limit = f", llm_int8_threshold={threshold!r}" if threshold is not None else ""
        return [f"quantization = BitsAndBytesConfig(load_in_8bit=True{limit})"]
    if not proof["linears_4bit"]:
        return []
    return [
        "quantization = BitsAndBytesConfig(",
        "    load_in_4bit=True,",
        f"    bnb_4bit_quant_type={proof['quant_type']!r},",
        f"    bnb_4bit_use_double_quant={proof['double_quant']!r},",
        f"    bnb_4bit_compute_dtype=torch.{_dtype(proof['compute_dtype'])},",
        ")",
    ]


def _asking(record: Mapping[str, Any]) -> list[str]:
    """Lines of code from `question` to `inputs` and `stops`."""
    prompt = prompt_of(record)
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
