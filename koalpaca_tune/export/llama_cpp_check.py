"""A GGUF file opened by llama.cpp itself: does it cut text into the same ids, and give the same logits?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from koalpaca_tune.export import gguf_tokens
from koalpaca_tune.export.model import Model
from koalpaca_tune.inference.merging.logits import Version, logits
from koalpaca_tune.inference.merging.report import Difference, difference_of_arrays
from koalpaca_tune.inference.merging.texts import texts
from koalpaca_tune.models.base import default_device
from koalpaca_tune.records import Rendered
from koalpaca_tune.templates.template import content


@dataclass(frozen=True)
class Checked:
    """What llama.cpp makes of the file.

    Attributes:
        version: of llama-cpp-python.
        positions: how many logits were compared.
        apart: ours in float32 from the model's own files, against llama.cpp's.
        texts: how many texts were cut into ids.
        otherwise: those of them that give other ids than ours.
    """

    version: str
    positions: int
    apart: Difference
    texts: int
    otherwise: tuple[str, ...]


def check(model: Model, path: Path) -> Checked | None:
    """Opens the file on the CPU and compares; None where llama-cpp-python is not installed."""
    try:
        import llama_cpp
    except ModuleNotFoundError:
        return None
    rendered = [Rendered((content(text),)) for text in texts()]
    ids = [list(one.ids) for one in model.encoder.encode(rendered)]
    version = Version(model.weights)
    [ours] = logits(model.config, model.architecture, [version], ids, default_device())
    program = llama_cpp.Llama(
        str(path),
        n_ctx=max(map(len, ids)),
        n_batch=max(map(len, ids)),
        n_gpu_layers=0,
        logits_all=True,
        verbose=False,
    )
    try:
        theirs = [_logits(program, one) for one in ids]
        asked = (*gguf_tokens.texts(), *gguf_tokens.UNUSUAL)
        own = model.vocabulary.literal.encode_batch(list(asked), add_special_tokens=False)
        otherwise = [
            text
            for text, one in zip(asked, own, strict=True)
            if program.tokenize(text.encode(), add_bos=False, special=False) != one.ids
        ]
    finally:
        program.close()
    return Checked(
        llama_cpp.__version__,
        sum(map(len, ids)),
        difference_of_arrays(ours, theirs),
        len(asked),
        tuple(otherwise),
    )


def _logits(program: Any, ids: Sequence[int]) -> Any:
    program.reset()
    program.eval(ids)
    return program.scores[: len(ids)].copy()
