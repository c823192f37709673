"""What a loaded base is, as its own modules say: nothing that was asked for is believed."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import bitsandbytes as bnb
import torch


@dataclass(frozen=True)
class Proof:
    """What the loaded modules say of themselves.

    Attributes:
        linears_4bit, linears_8bit: how many modules hold 4-bit, and 8-bit weights.
        linears_other: linear modules that hold neither, the output head aside.
        quant_type, double_quant, compute_dtype: as read back from the weights; None without 4-bit.
        dtypes: element type -> number of parameters, of everything not quantised.
        threshold: of LLM.int8, as the modules have it; None without 8-bit.
    """

    linears_4bit: int
    linears_other: int
    quant_type: str | None
    double_quant: bool | None
    compute_dtype: str | None
    dtypes: dict[str, int]
    linears_8bit: int = 0
    threshold: float | None = None

    @property
    def bits(self) -> int | None:
        """4 or 8 where linear modules are quantised, else None."""
        return 4 if self.linears_4bit else 8 if self.linears_8bit else None

    def as_dict(self) -> dict[str, Any]:
        """For record.json."""
        return asdict(self)


def prove(model: Any) -> Proof:
    """Asks every module what it holds."""
    four_bit = [m for m in model.modules() if isinstance(m, bnb.nn.Linear4bit)]
    four_bit = [m for m in four_bit if getattr(m.weight, "quant_state", None) is not None]
    eight_bit = [m for m in model.modules() if isinstance(m, bnb.nn.Linear8bitLt) and _is_int8(m)]
    quantised = {*four_bit, *eight_bit}
    head = model.get_output_embeddings()
    other = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m not in quantised and m is not head]
    dtypes: Counter[str] = Counter()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if module in four_bit or (module in quantised and name == "weight"):
                continue
            dtypes[str(parameter.dtype).removeprefix("torch.")] += parameter.numel()
    states = [m.weight.quant_state for m in four_bit]
    return Proof(
        linears_4bit=len(four_bit),
        linears_other=len(other),
        quant_type=_only({state.quant_type for state in states}),
        double_quant=_only({bool(state.nested) for state in states}),
        compute_dtype=_only({str(m.compute_dtype).removeprefix("torch.") for m in four_bit}),
        dtypes=dict(sorted(dtypes.items())),
        linears_8bit=len(eight_bit),
        threshold=_only({float(m.state.threshold) for m in eight_bit}),
    )


def company(proof: Proof) -> bool:
    """Whether a text's numbers depend on what is computed together with it.

    LLM.int8 (Dettmers et al. 2022) multiplies an input column in 16 bits where any token of the batch exceeds the
    threshold in it, and in 8 bits elsewhere.
    """
    return bool(proof.linears_8bit and proof.threshold)


def _is_int8(module: Any) -> bool:
    """Whether the weights are 8-bit integers with a scale for each row, and are not kept in 16 bits beside them."""
    scales = module.state.SCB if module.state.SCB is not None else getattr(module.weight, "SCB", None)
    return module.weight.dtype == torch.int8 and scales is not None and not module.state.has_fp16_weights


def _only(values: set[Any]) -> Any:
    if not values:
        return None
    return values.pop() if len(values) == 1 else "mixed: " + ", ".join(sorted(map(str, values)))
