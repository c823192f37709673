"""How each cause gets into a run: another file, another recipe, methods in place of Trainer's, a changed record."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

POOL = Path(__file__).resolve().parents[1] / "runs" / "demo-data"
LONGEST = 64
"""Tokens of the longest example: short rows make short runs."""
Row = dict[str, Any]


@dataclass
class Setting:
    """A run to be made.

    Attributes:
        overrides: KEY=VALUE of the demo recipe.
        train, valid: rows as `data prepare` writes them.
        faults: methods that take the place of Trainer's.
        encoded: what is done to the examples once they are read.
        loaded: what is done to the base once it is loaded.
        record: what is done to record.json when the run is over.
        told: what was drawn, for the reader of a table.
    """

    overrides: dict[str, Any]
    train: list[Row]
    valid: list[Row]
    faults: dict[str, Callable[..., Any]] = field(default_factory=dict)
    encoded: Callable[[Any], None] | None = None
    loaded: Callable[[Any], None] | None = None
    record: Callable[[Row], None] | None = None
    told: dict[str, Any] = field(default_factory=dict)


def pool() -> list[Row]:
    if not POOL.is_dir():
        raise SystemExit(f"{POOL} is missing: koalpaca data prepare --samples --out {POOL}")
    rows = [
        json.loads(line) for name in ("train", "valid") for line in (POOL / f"{name}.jsonl").open(encoding="utf-8")
    ]
    return [row for row in rows if sum(len(m["content"]) for m in row["messages"]) <= 100]


def drawn(rng: Generator) -> Setting:
    """A run in health: what everything else is a change of."""
    rows = pool()
    order = [rows[i] for i in rng.permutation(len(rows))]
    packing = bool(rng.random() < 0.3)
    steps = int(rng.integers(36, 49))
    count = int(rng.integers(150, 260))
    every = int(rng.choice([0, 8, 12, 12]))
    rank = int(rng.choice([4, 8, 16]))
    overrides = {
        "training.epochs": "null",
        "training.max_steps": steps,
        "training.batch_size": 2 if packing else 4,
        "training.learning_rate": round(float(np.exp(rng.uniform(np.log(3e-4), np.log(2e-3)))), 6),
        "training.schedule": str(rng.choice(["cosine", "linear", "constant"])),
        "training.warmup_steps": int(rng.integers(2, 8)),
        "training.log_every": int(rng.choice([1, 1, 2])),
        "training.eval_every": every or "null",
        "training.checkpoint_every": 100000,
        "data.max_length": 2 * LONGEST if packing else LONGEST,
        "data.packing": str(packing).lower(),
        "lora.r": rank,
        "lora.alpha": 2 * rank,
    }
    return Setting(overrides, order[:count], order[count : count + 20])


CAUSES: dict[str, Callable[[Generator], Setting]] = {}


def cause(name: str) -> Callable[[Callable[[Generator], Setting]], Callable[[Generator], Setting]]:
    def add(make: Callable[[Generator], Setting]) -> Callable[[Generator], Setting]:
        CAUSES[name] = make
        return make

    return add


@cause("healthy")
def healthy(rng: Generator) -> Setting:
    setting = drawn(rng)
    if rng.random() < 0.25:  # a good part of them see their data more than once
        setting.train = setting.train[: int(rng.integers(90, 130))]
        setting.overrides["training.learning_rate"] = round(float(rng.uniform(3e-4, 6e-4)), 6)
    return setting


@cause("length-order")
def length_order(rng: Generator) -> Setting:
    """transformers' group_by_length: within a mega-batch, the longest first."""
    setting = drawn(rng)
    mega = int(rng.choice([8, 12, 24]))

    def steps(trainer: Any) -> None:
        from koalpaca_tune.training.steps import Step

        size, old = trainer.training.batch_size, list(trainer.steps)
        rows = [row for step in old for row in step.rows]
        long = [sum(len(trainer.train[i].ids) for i in row) for row in rows]
        order: list[int] = []
        for at in range(0, len(rows), size * mega):
            order += sorted(range(at, min(at + size * mega, len(rows))), key=lambda i: -long[i])
        cut = [tuple(rows[i] for i in order[at : at + size]) for at in range(0, len(order), size)]
        trainer.steps = [Step(new, step.epoch) for new, step in zip(cut, old, strict=False)]

    setting.overrides |= {"data.packing": "false", "training.batch_size": 4, "data.max_length": 2 * LONGEST}
    setting.overrides["training.log_every"] = 1
    setting.told = {"mega": mega}
    return with_steps(setting, steps)


@cause("memorisation")
def memorisation(rng: Generator) -> Setting:
    setting = drawn(rng)
    size, epochs = setting.overrides["training.batch_size"], int(rng.integers(3, 6))
    per_epoch = setting.overrides["training.max_steps"] // epochs
    setting.train = setting.train[: per_epoch * size * (2 if size == 2 else 1)]
    setting.overrides |= {
        "training.learning_rate": round(float(rng.uniform(1.2e-3, 2.5e-3)), 6),
        "lora.r": 16,
        "lora.alpha": 32,
        "training.schedule": "constant",
    }
    setting.told = {"epochs": epochs}
    return setting


@cause("rate-too-high")
def rate_too_high(rng: Generator) -> Setting:
    setting = drawn(rng)
    setting.overrides["training.learning_rate"] = round(float(np.exp(rng.uniform(np.log(2e-2), np.log(9e-2)))), 5)
    return setting


@cause("rate-too-low")
def rate_too_low(rng: Generator) -> Setting:
    setting = drawn(rng)
    setting.overrides["training.learning_rate"] = f"{float(np.exp(rng.uniform(np.log(1e-8), np.log(2e-6)))):.2e}"
    return setting


@cause("float16-overflow")
def float16_overflow(rng: Generator) -> Setting:
    """Values inside attention that grow, as in GPT-NeoX: right in float32, beyond 65,504 in float16.

    They are made larger step by step and what reads them as much smaller: the same function.
    """
    setting = drawn(rng)
    setting.overrides |= {
        "quantization.bnb_4bit_compute_dtype": "float16",
        "engine.kind": "plain",
        "lora.targets": "[dense_h_to_4h,dense_4h_to_h]",
        "training.batch_size": 2,
        "training.max_steps": 30,
        "training.log_every": 1,
    }
    growth = float(rng.uniform(1.8, 3.5))
    setting.told = {"growth": round(growth, 2)}
    setting.loaded = lambda model: enlarge(model, growth)
    return setting


@cause("mask-everything")
def mask_everything(rng: Generator) -> Setting:
    """The response marker was not found: the question is learned as well."""
    setting = drawn(rng)

    def all_learned(examples: Any) -> None:
        relabel(examples, lambda one: (-100, *one.ids[1:]))

    setting.encoded = all_learned
    return setting


@cause("mask-empty")
def mask_empty(rng: Generator) -> Setting:
    """Nearly every answer token is masked; its last ones remain."""
    setting = drawn(rng)
    left = int(rng.integers(1, 3))

    def last_learned(examples: Any) -> None:
        relabel(examples, lambda one: (*(-100 for _ in one.ids[:-left]), *one.ids[-left:]))

    setting.encoded, setting.told = last_learned, {"left": left}
    return setting


@cause("end-not-learned")
def end_not_learned(rng: Generator) -> Setting:
    """pad = EOS, and every pad is masked: the model never learns to stop (trl#1623)."""
    setting = drawn(rng)

    def masked(examples: Any) -> None:
        relabel(examples, lambda one: (*one.labels[:-1], -100))

    setting.encoded = masked
    return setting


@cause("accumulation")
def accumulation(rng: Generator) -> Setting:
    """The loss is added up over micro-steps and not divided, or divided twice (transformers PR 34191)."""
    setting = drawn(rng)
    times = float(rng.choice([2, 4, 8, 16, 1 / 2, 1 / 4, 1 / 8]))

    def work(self: Any, number: int) -> Any:
        right = type(self).__mro__[1]._work(self, number)
        return replace(right, learned=right.learned / times)

    def row(self: Any, *arguments: Any, **named: Any) -> Row:
        written = type(self).__mro__[1].row(self, *arguments, **named)
        return {**written, "learned_tokens": round(written["learned_tokens"] * times)}

    setting.faults, setting.told = {"_work": work, "row": row}, {"times": times}
    return setting


@cause("repeated-data")
def repeated_data(rng: Generator) -> Setting:
    setting = drawn(rng)
    different = int(rng.integers(8, 24))
    setting.train = [setting.train[i % different] for i in range(len(setting.train))]
    setting.train = [setting.train[i] for i in rng.permutation(len(setting.train))]
    setting.told = {"different": different}
    return setting


@cause("dead-adapter")
def dead_adapter(rng: Generator) -> Setting:
    """B stays zero: no gradient comes through (checkpointing without input gradients), or none is applied."""
    setting = drawn(rng)
    how = str(rng.choice(["no-gradient", "not-applied"]))

    def clip(self: Any) -> Any:
        for parameter in self.parameters:
            if parameter.grad is not None:
                parameter.grad.zero_()
        return type(self).__mro__[1]._clip(self)

    def step(self: Any, *arguments: Any, **named: Any) -> Any:
        made = type(self).__mro__[1].take(self, *arguments, **named)
        for name, parameter in self.model.named_parameters():
            if ".lora_B." in name:
                parameter.data.zero_()
        return made

    setting.faults = {"_clip": clip} if how == "no-gradient" else {"take": step}
    setting.told = {"how": how}
    return setting


@cause("quantization-not-applied")
def quantization_not_applied(rng: Generator) -> Setting:
    """A configuration that is built and never passed: the recipe says 4 bits, the weights are whole."""
    setting = drawn(rng)
    setting.overrides |= {"quantization.load_in_4bit": "false"}
    for key in [key for key in setting.overrides if key.startswith("quantization.bnb")]:
        del setting.overrides[key]

    def claim(record: Row) -> None:
        record["recipe"]["quantization"] = {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
            "bnb_4bit_compute_dtype": "auto",
        }

    setting.record = claim
    return setting


@cause("library-fault")
def library_fault(rng: Generator) -> Setting:
    """An optimizer that loses blocks of its second moments (8-bit Adam of bitsandbytes before 0.41.1)."""
    setting = drawn(rng)
    share = float(rng.uniform(0.02, 0.2))
    told = bool(rng.random() < 0.5)
    begin = int(rng.integers(6, 16))

    def step(self: Any, number: int, *arguments: Any, **named: Any) -> Any:
        import torch

        made = type(self).__mro__[1].take(self, number, *arguments, **named)
        if number >= begin:
            for state in self.optimizer.state.values():
                second = state["exp_avg_sq"]
                second[torch.rand_like(second) < share] = 0.0
        return made

    def old(record: Row) -> None:
        record["versions"]["bitsandbytes"] = "0.37.2"
        record["recipe"]["training"]["optimizer"] = "paged_adamw_8bit"

    setting.faults, setting.record = {"take": step}, old if told else None
    setting.told = {"share": round(share, 3), "version": told}
    return setting


@cause("decomposed-hangul")
def decomposed_hangul(rng: Generator) -> Setting:
    """NFD text, as macOS writes it: every syllable in two or three parts."""
    setting = drawn(rng)
    share = float(rng.uniform(0.4, 1.0))
    setting.train = [
        changed(row, lambda text: unicodedata.normalize("NFD", text)) if rng.random() < share else row
        for row in setting.train
    ]
    setting.overrides["data.max_length"] = 256
    setting.overrides["training.max_steps"] = 24
    setting.overrides["training.batch_size"] = 2
    setting.told = {"share": round(share, 2)}
    return setting


@cause("garbled-rows")
def garbled_rows(rng: Generator) -> Setting:
    """Some answers are cp949 read as latin-1, or bytes that no encoding fits."""
    setting = drawn(rng)
    share = float(rng.uniform(0.06, 0.3))
    how = str(rng.choice(["cp949", "utf8"]))

    def garble(text: str) -> str:
        if how == "cp949":
            return text.encode("cp949", "replace").decode("latin-1")
        return text.encode("utf-8").decode("cp949", "ignore")

    setting.train = [changed(row, garble, "assistant") if rng.random() < share else row for row in setting.train]
    setting.overrides["data.max_length"] = 192
    setting.told = {"share": round(share, 2), "how": how}
    return setting


@cause("answers-cut")
def answers_cut(rng: Generator) -> Setting:
    """data.max_length is short and what is longer is cut: answers end in the middle, without their end."""
    setting = drawn(rng)
    setting.overrides |= {
        "data.max_length": int(rng.integers(36, 44)),
        "data.too_long": "cut",
        "data.packing": "false",
        "training.batch_size": 4,
    }
    return setting


@cause("leak")
def leak(rng: Generator) -> Setting:
    """The validation rows are among the training rows."""
    setting = drawn(rng)
    share = float(rng.uniform(0.5, 1.0))
    inside = [row for row in setting.valid if rng.random() < share]
    setting.train = [*setting.train, *inside]
    setting.told = {"share": round(len(inside) / len(setting.valid), 2)}
    return setting


@cause("source-order")
def source_order(rng: Generator) -> Setting:
    """Not shuffled, and the file has one source after the other: the loss changes where the source does."""
    setting = drawn(rng)
    rows = pool()
    sources = ["chat", "tasks"]
    rng.shuffle(sources)
    half = setting.overrides["training.max_steps"] * 2
    chosen = []
    for source in sources:
        own = [row for row in rows if row["source"] == source]
        chosen += [own[i] for i in rng.permutation(len(own))[:half]]
    inside = {row["id"] for row in chosen}
    setting.train, setting.valid = chosen, [row for row in setting.valid if row["id"] not in inside]

    def steps(trainer: Any) -> None:
        from koalpaca_tune.training.steps import Step

        size = trainer.training.batch_size
        cut = [
            tuple((i,) for i in range(at, min(at + size, len(trainer.train))))
            for at in range(0, len(trainer.train), size)
        ]
        trainer.steps = [Step(cut[n % len(cut)], n / len(cut)) for n in range(len(trainer.steps))]

    setting.overrides |= {"data.packing": "false", "training.batch_size": 4, "training.log_every": 1}
    setting.overrides["data.max_length"] = 2 * LONGEST
    setting.told = {"first": sources[0]}
    return with_steps(setting, steps)


@cause("none")
def none(rng: Generator) -> Setting:
    """Something is wrong, and it is nothing of the above."""
    setting = drawn(rng)
    how = str(rng.choice(["shaken", "shifted", "restarted"]))
    at = setting.overrides["training.max_steps"] // 2
    setting.told = {"how": how}
    setting.overrides["training.learning_rate"] = round(float(rng.uniform(3e-4, 1e-3)), 6)

    def shake(self: Any, number: int, *arguments: Any, **named: Any) -> Any:
        """Memory that flips: the adapter is not what it was."""
        import torch

        made = type(self).__mro__[1].take(self, number, *arguments, **named)
        if number == at:
            for parameter in self.parameters:
                parameter.data.add_(0.25 * torch.randn_like(parameter))
        return made

    def restart(self: Any, number: int, *arguments: Any, **named: Any) -> Any:
        """The adapter that is trained is exchanged for a fresh one halfway."""
        made = type(self).__mro__[1].take(self, number, *arguments, **named)
        if number == at:
            for name, parameter in self.model.named_parameters():
                if ".lora_B." in name:
                    parameter.data.mul_(-4.0)
        return made

    def shift(examples: Any) -> None:
        """Labels one place off: the token itself is to be predicted from what follows."""
        relabel(
            examples,
            lambda one: (
                *one.labels[:1],
                *(-100 if label == -100 else one.ids[max(1, n - 3)] for n, label in enumerate(one.labels[1:], 1)),
            ),
        )

    if how == "shifted":
        setting.encoded = shift
    else:
        setting.faults = {"take": shake if how == "shaken" else restart}
    return setting


def changed(row: Row, change: Callable[[str], str], role: str = "") -> Row:
    messages = [
        m if role and m["role"] != role else {**m, "content": change(m["content"])} for m in row["messages"]
    ]
    return {**row, "messages": messages}


def relabel(examples: Any, labels: Callable[[Any], tuple[int, ...]]) -> None:
    examples.train = [replace(one, labels=labels(one)) for one in examples.train]
    examples.train_counts.learned_tokens = sum(one.learned for one in examples.train)


def enlarge(model: Any, growth: float) -> None:
    """Attention's values `growth` times larger with every forward pass, and its output as much smaller."""
    import torch

    heads = model.config.num_attention_heads

    def grow(fused: Any, dense: Any) -> None:
        size = [1.0]
        factors = torch.ones(heads, 3, fused.out_features // heads // 3)

        def values(_module: Any, _inputs: Any, out: Any) -> Any:
            size[0] *= growth
            factors[:, 2] = size[0]
            return out * factors.view(-1).to(out.dtype)

        def undone(_module: Any, _inputs: Any, out: Any) -> Any:
            return (out - dense.bias) / size[0] + dense.bias

        fused.register_forward_hook(values)
        dense.register_forward_hook(undone)

    for layer in model.gpt_neox.layers:
        grow(layer.attention.query_key_value, layer.attention.dense)


def with_steps(setting: Setting, change: Callable[[Any], None]) -> Setting:
    """The steps as they would have been planned otherwise."""

    def init(self: Any, *arguments: Any, **named: Any) -> None:
        type(self).__mro__[1].__init__(self, *arguments, **named)
        change(self)

    setting.faults["__init__"] = init
    return setting
