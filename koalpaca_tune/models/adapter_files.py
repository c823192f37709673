"""An adapter's two files, looked at before PEFT is given them.

An `adapter_config.json` from elsewhere can ask for much: `megatron_core` names a Python module that PEFT
imports, `corda_config` a pickle that it reads, `r` as much memory as there is, `target_modules` a regular
expression. Here it may say plain LoRA and nothing else, and the weights must be the matrices that it says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from koalpaca_tune import jsonl
from koalpaca_tune.errors import KoalpacaError

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"

DTYPES = frozenset({"F32", "F16", "BF16"})
_MATRIX = re.compile(r"base_model\.model\.[\w.]+\.lora_([AB])\.weight", re.ASCII)
_MODULE = re.compile(r"\w+(\.\w+)*", re.ASCII)


@dataclass(frozen=True)
class Plain:
    """What an adapter's config says, all of it.

    Attributes:
        r: rank.
        alpha: scale; the update is multiplied by alpha / r.
        dropout: on the adapter's input, while it is trained.
        targets: names of the adapted modules, in the file's order.
    """

    r: int
    alpha: float
    dropout: float
    targets: tuple[str, ...]


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9


def _targets(value: object) -> bool:
    names = value if isinstance(value, list) else []
    return bool(names) and all(isinstance(name, str) and _MODULE.fullmatch(name) for name in names)


def _is(word: str) -> Callable[[Any], bool]:
    # not word.__eq__: for a value that is no text it gives NotImplemented, which counts as true
    return lambda value: isinstance(value, str) and value == word


def _text(value: object) -> bool:
    return value is None or isinstance(value, str)


_SAID: Mapping[str, Callable[[Any], bool]] = {
    "peft_type": _is("LORA"),
    "task_type": _is("CAUSAL_LM"),
    "r": lambda value: type(value) is int and 0 < value <= 1 << 16,
    "lora_alpha": lambda value: _number(value) and value > 0,
    "lora_dropout": lambda value: _number(value) and 0 <= value < 1,
    "target_modules": _targets,
    "bias": _is("none"),
    "init_lora_weights": lambda value: isinstance(value, bool),
    "inference_mode": lambda value: isinstance(value, bool),
    # neither is used: the base is the one that the user names
    "base_model_name_or_path": _text,
    "revision": _text,
    "peft_version": _text,
    # defaults that PEFT writes for what is not switched on
    "megatron_core": lambda value: value in (None, "megatron.core"),
    "qalora_group_size": lambda value: type(value) is int,
}
"""Key -> whether its value is plain LoRA. Every other key has to be empty: null, false, {} or []."""

_NEEDED = ("peft_type", "r", "lora_alpha", "target_modules")


def read(folder: Path) -> Plain:
    """Reads and checks the config, and the header of the weights. No weight is read.

    Raises:
        KoalpacaError: a file is missing (adapter-missing) or damaged, or the two do not fit each other
            (adapter-load), or more than plain LoRA is asked for (adapter-config).
    """
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise KoalpacaError(
                "adapter-missing",
                f"there is no {name} in the folder.",
                where=str(folder),
                fix="Give the 'adapter' folder of a run.",
            )
    try:
        config = jsonl.read_json(folder / CONFIG)
    except KoalpacaError as error:
        raise _broken(error.problems[0].what.rstrip("."), folder / CONFIG) from error
    plain = check(config, str(folder / CONFIG))
    _check_weights(folder / WEIGHTS, plain)
    return plain


def check(config: Mapping[str, Any], where: str) -> Plain:
    """The config, if it says plain LoRA.

    Raises:
        KoalpacaError: it says anything else (adapter-config).
    """
    for key in _NEEDED:
        if key not in config:
            raise _refused(f"'{key}' is missing", where)
    for key, value in config.items():
        fits = _SAID.get(key, lambda value: value is None or value is False or value in ({}, []))
        if not fits(value):
            raise _refused(f"'{key[:60]}' is {_short(value)}", where)
    return Plain(
        config["r"], config["lora_alpha"], config.get("lora_dropout", 0.0), tuple(config["target_modules"])
    )


def _refused(what: str, where: str) -> KoalpacaError:
    return KoalpacaError(
        "adapter-config",
        f"{what}: only plain LoRA of linear modules is loaded.",
        where=where,
        fix="Take an adapter that was trained here, or restore its file.",
    )


def _check_weights(path: Path, plain: Plain) -> None:
    """Every tensor is an A or a B of the config's rank, in a floating type.

    Raises:
        KoalpacaError: otherwise (adapter-load).
    """
    try:
        with safe_open(path, framework="np") as file:
            names = list(file.keys())
            for name in names:
                part = file.get_slice(name)
                said = _wrong(name, part.get_dtype(), part.get_shape(), plain)
                if said:
                    raise _broken(f"'{name[:120]}' is {said}", path)
    except (SafetensorError, OSError, ValueError) as error:
        raise _broken(f"it cannot be read ({' '.join(str(error).split())[:200]})", path) from error
    if not names:
        raise _broken("it holds no matrices", path)


def _wrong(name: str, dtype: str, shape: list[int], plain: Plain) -> str:
    matrix = _MATRIX.fullmatch(name)
    if matrix is None:
        return "no LoRA matrix"
    if dtype not in DTYPES:
        return f"of type {dtype}"
    rank = shape[matrix[1] == "B"] if len(shape) == 2 else None
    return "" if rank == plain.r else f"of shape {shape}, where r is {plain.r}"


def _broken(what: str, path: Path) -> KoalpacaError:
    return KoalpacaError(
        "adapter-load", f"{what}.", where=str(path), fix="Take the adapter folder of a finished run."
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
