"""What reads models from elsewhere: adapter folders, records, tokenizers and their templates, folders of bases."""

from __future__ import annotations

import json
import shutil
import struct
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from breakage import changed

from koalpaca_tune import resources
from koalpaca_tune.models import adapter_files, sources, tokenizer
from koalpaca_tune.records import Conversation, Turn
from koalpaca_tune.runs import adapters, record

CONFIG: dict[str, Any] = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "r": 4,
    "lora_alpha": 16,
    "lora_dropout": 0.0,
    "target_modules": ["query_key_value"],
    "bias": "none",
    "fan_in_fan_out": False,
    "inference_mode": True,
    "init_lora_weights": True,
    "megatron_config": None,
    "megatron_core": "megatron.core",
    "auto_mapping": None,
    "modules_to_save": None,
    "layers_pattern": None,
    "corda_config": None,
    "rank_pattern": {},
}
"""A plain adapter's config."""

ASKS: tuple[dict[str, Any], ...] = (
    {"megatron_config": {"a": 1}, "megatron_core": "koalpaca_hostile_module"},
    {"auto_mapping": {"base_model_class": "X", "parent_library": "koalpaca_hostile_module"}},
    {"corda_config": {"cache_file": "evil.pt", "covariance_file": "evil.pt"}},
    {"eva_config": {}, "init_lora_weights": "eva"},
    {"init_lora_weights": "pissa"},
    {"loftq_config": {"loftq_bits": 4}, "init_lora_weights": "loftq"},
    {"modules_to_save": ["embed_in"]},
    {"target_modules": "(a+)+$"},
    {"target_modules": "all-linear"},
    {"target_modules": [".*"]},
    {"target_modules": []},
    {"target_modules": [7]},
    {"layers_pattern": "(a+)+$", "layers_to_transform": [0]},
    {"rank_pattern": {"(a+)+$": 4}},
    {"alpha_pattern": {"^x": 1e9}},
    {"layer_replication": [[0, 1 << 30]]},
    {"r": 1 << 40},
    {"r": 0},
    {"r": -4},
    {"r": True},
    {"r": "4"},
    {"r": 8},
    {"lora_alpha": float("nan")},
    {"lora_alpha": float("inf")},
    {"lora_alpha": 10**400},
    {"lora_dropout": 1.5},
    {"peft_type": "XLORA", "adapters": {"0": "../../other"}},
    {"peft_type": "PROMPT_TUNING", "tokenizer_name_or_path": "evil/evil"},
    {"peft_type": "NO SUCH"},
    {"task_type": "SEQ_CLS"},
    {"task_type": 7},
    {"peft_type": ["LORA"]},
    {"bias": 5},
    {"bias": None},
    {"use_dora": True},
    {"use_rslora": True},
    {"fan_in_fan_out": True},
    {"lora_bias": True},
    {"bias": "all"},
    {"trainable_token_indices": [1]},
    {"target_parameters": ["x"]},
    {"runtime_config": {"ephemeral_gpu_offload": True}},
    {"arrow_config": {"top_k": 1}},
    {"\x1b[2J": 1},
)
"""What an adapter's config may not ask for, each with what it would do to PEFT."""


def weights(tensors: dict[str, tuple[str, list[int], int]]) -> bytes:
    """A safetensors file: name -> (type, shape, bytes), whatever they say."""
    header: dict[str, Any] = {}
    at = 0
    for name, (kind, shape, size) in tensors.items():
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"\0" * at


@cache
def matrices() -> bytes:
    """Weights that fit CONFIG."""
    return weights(
        {
            f"base_model.model.gpt_neox.layers.{n}.attention.query_key_value.lora_{part}.weight": (
                "F32",
                [4, 16] if part == "A" else [48, 4],
                256 if part == "A" else 768,
            )
            for n in range(2)
            for part in "AB"
        }
    )


def adapter(chance: Random, folder: Path) -> None:
    """An adapter's two files, changed."""
    config = {**CONFIG, **(chance.choice(ASKS) if chance.random() < 0.3 else {})}
    text, tensors = json.dumps(config).encode(), matrices()
    (folder / adapter_files.CONFIG).write_bytes(changed(text, chance) if chance.random() < 0.6 else text)
    (folder / adapter_files.WEIGHTS).write_bytes(changed(tensors, chance) if chance.random() < 0.6 else tensors)
    adapter_files.read(folder)


RECORD: dict[str, Any] = {
    "name": "a",
    "recipe": {
        "name": "a",
        "base": {"path": "embedded"},
        "lora": {"targets": ["query_key_value"]},
        "data": {"train": "a.jsonl"},
        "training": {"epochs": 1.0},
    },
    "base": {"path": "embedded", "fingerprint": "0" * 16, "model_type": "gpt_neox"},
    "template": {"name": "koalpaca"},
}


def recorded(chance: Random, folder: Path) -> None:
    """record.json, as generate, eval, merge and hub read it before anything is loaded."""
    (folder / adapter_files.CONFIG).write_text(json.dumps(CONFIG), encoding="utf-8")
    (folder / adapter_files.WEIGHTS).write_bytes(matrices())
    (folder / "config.json").write_text("{}", encoding="utf-8")
    value = json.loads(json.dumps(RECORD))
    lie(value, chance)
    text = json.dumps(value).encode()
    (folder / record.NAME).write_bytes(changed(text, chance) if chance.random() < 0.3 else text)
    adapters.choose(str(folder), None, None, None)
    adapters.choose("embedded", folder, None, None)
    entry, _ = record.of_adapter(folder)
    adapters.trained_on(entry, folder)


def lie(value: Any, chance: Random) -> None:
    """Replaces or drops a part of a JSON value, somewhere inside."""
    here = value
    while True:
        key = chance.choice(list(here) if isinstance(here, dict) else range(len(here)))
        inner = here[key]
        if isinstance(inner, dict | list) and inner and chance.random() < 0.7:
            here = inner
            continue
        if chance.random() < 0.3:
            del here[key]
        else:
            here[key] = chance.choice(
                (None, [], {}, "", 7, -1, 1e308, True, "../..", "\0", ["a"], {"a": {}}, "<b>", "9" * 400)
            )
        return


@cache
def _embedded() -> dict[str, bytes]:
    return {
        name: (resources.EMBEDDED / name).read_bytes()
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json")
    }


@cache
def _small() -> dict[str, bytes]:
    """The files of a base whose tokenizer has a few hundred entries: more tries, and changes that hit its shape."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(["안녕하세요, 무엇을 도와 드릴까요?", "대한민국의 수도는 서울입니다."], trainer)
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    whole = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="<|endoftext|>")
    whole.chat_template = TEMPLATES[0]
    with tempfile.TemporaryDirectory() as folder:
        whole.save_pretrained(folder)
        files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    return {"config.json": _embedded()["config.json"], **files}


def words(chance: Random, folder: Path) -> None:
    """A tokenizer of a base from elsewhere."""
    files = dict(_embedded() if chance.random() < 0.05 else _small())
    name = chance.choice(("tokenizer.json", "tokenizer_config.json", "tokenizer_config.json"))
    if chance.random() < 0.6:
        value = json.loads(files[name])
        for _ in range(chance.randint(1, 3)):
            lie(value, chance)
        files[name] = json.dumps(value).encode()
    else:
        files[name] = changed(files[name], chance)
    for file, data in files.items():
        (folder / file).write_bytes(data)
    vocabulary = tokenizer.load(str(folder))
    vocabulary.literal_ids("가<|endoftext|>", begins=True)


TALK = Conversation((Turn("system", "a"), Turn("user", "질문 {{ 7*7 }}"), Turn("assistant", "답 {% x %}")))
TEMPLATES = (
    "{% for m in messages %}{{ m.content }}{% endfor %}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__init__.__globals__ }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ lipsum.__globals__ }}",
    "{{ raise_exception('no') }}",
    "{{ messages[99].content }}",
    "{{ 1 / 0 }}",
    "{{ 'a' + 1 }}",
    "{{ messages | sort }}",
    "{{ messages[0]['content'].x.y.z }}",
    "{{ nothing() }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{% if %}",
    "{{",
    "{{ strftime_now('%Y') }}",
    "{{ messages | tojson }}",
    "{{ [1] | sum(start='a') }}",
)
"""Chat templates of tokenizers from elsewhere."""
HUGE = (
    "{{ 'a' * 99999999999999999 }}",
    "{% for i in range(99999999999999) %}{% endfor %}",
    "{{ '%999999999999999999d' % 1 }}",
    "{{ '{:>999999999999999999}'.format(1) }}",
)
"""More of them. They are never changed: with fewer digits they would have their gigabytes."""


def template(chance: Random, folder: Path) -> None:
    """The chat template that a tokenizer brings along, used on a conversation."""
    text = chance.choice((*TEMPLATES, *HUGE))
    if text not in HUGE and chance.random() < 0.5:
        text = changed(text.encode(), chance, [one.encode() for one in TEMPLATES]).decode("utf-8", "replace")
    words, vocabulary = _speaking()
    words.chat_template = text
    vocabulary.template("tokenizer").render(TALK, vocabulary.markers)


@cache
def _speaking() -> tuple[Any, Any]:
    """A tokenizer with a chat template, which may be changed under its vocabulary."""
    words = tokenizer.load_pretrained("embedded")
    words.chat_template = TEMPLATES[0]
    return words, tokenizer.vocabulary(words, "hostile")


def base(chance: Random, folder: Path) -> None:
    """A folder of a base: its config is read before any weight."""
    value = json.loads(_embedded()["config.json"])
    for _ in range(chance.randint(1, 3)):
        lie(value, chance)
    if chance.random() < 0.2:
        value["auto_map"] = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
        (folder / "evil.py").write_text("raise SystemExit('code was run')\n", encoding="utf-8")
    text = json.dumps(value).encode()
    (folder / "config.json").write_bytes(changed(text, chance) if chance.random() < 0.4 else text)
    from koalpaca_tune.config.recipe import Base
    from koalpaca_tune.models.base import describe

    config, _ = describe(Base(path=str(folder)))
    sources.fingerprint(str(folder), None, config)
    shutil.rmtree(folder / "x", ignore_errors=True)


TARGETS: dict[str, Callable[[Random, Path], None]] = {
    "adapter": adapter,
    "recorded": recorded,
    "base": base,
    "words": words,
    "template": template,
}
"""What is broken -> one try."""
