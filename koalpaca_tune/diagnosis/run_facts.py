"""What recipe and record of a run say, in numbers: what was asked, loaded, left out, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Signals = dict[str, float]
Entry = Mapping[str, Any]


def signals(recipe: Entry, record: Entry) -> Signals:
    """Signals under `recipe.` and `record.`.

    Args:
        recipe: run.yaml, as the model dumps it.
        record: record.json; empty where there is none.
    """
    return _recipe(recipe) | _record(record)


def _recipe(recipe: Entry) -> Signals:
    training, quantization, lora = recipe["training"], recipe["quantization"], recipe["lora"]
    found: Signals = {
        "rate": float(training["learning_rate"]),
        "four_bit": float(bool(quantization["load_in_4bit"])),
        "float16": float(quantization.get("bnb_4bit_compute_dtype") == "float16"),
        "warmup": float(training["warmup_steps"]),
    }
    if lora is not None:
        found["scale"] = lora["alpha"] / lora["r"]
    if training["max_steps"] is not None:
        found["steps"] = float(training["max_steps"])
    return {f"recipe.{name}": value for name, value in found.items()}


def _record(record: Entry) -> Signals:
    found: Signals = {}
    if record:
        found["unfinished"] = float(record.get("finished") is None)
    code = (record.get("ended") or {}).get("code")
    if code:
        found["not_finite"] = float(code == "loss-not-finite")
        found["dead"] = float(code == "adapter-dead")
    proof = record.get("proof") or {}
    if proof:
        found["linears_4bit"] = float(proof["linears_4bit"])
        found["linears_other"] = float(proof["linears_other"])
        found["float16"] = float(proof["compute_dtype"] == "float16")
    counts = ((record.get("data") or {}).get("train") or {}).get("counts") or {}
    if counts.get("examples"):
        found["cut_share"] = counts["too_long_cut"] / counts["examples"]
        found["dropped_share"] = counts["too_long_dropped"] / counts["examples"]
        found["nothing_share"] = counts["nothing_to_learn"] / counts["examples"]
        found["learned"] = float(counts["learned_tokens"])
        found["kept"] = float(counts["kept"])
    return {f"record.{name}": value for name, value in found.items()}
