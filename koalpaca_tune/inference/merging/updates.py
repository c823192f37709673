"""What an adapter adds to its base, matrix by matrix, and which weights of the base it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.inference.merging.weights import Weights
from koalpaca_tune.models import adapter_files

_PREFIX = "base_model.model."


@dataclass(frozen=True)
class Update:
    """LoRA of one linear module (Hu et al. 2021): W + scale * B A.

    Attributes:
        a: float32 [rank, inputs].
        b: float32 [outputs, rank].
        scale: alpha / rank.
    """

    a: Tensor
    b: Tensor
    scale: float

    def on(self, weight: Tensor) -> Tensor:
        """The merged weight of a float32 one, in float32: it is rounded once, when it is written."""
        device = weight.device
        return weight.addmm(self.b.to(device), self.a.to(device), alpha=self.scale)

    def beside(self, inputs: Tensor) -> Tensor:
        """What the adapter adds to the module's output, unmerged; `inputs` is [..., inputs]."""
        device = inputs.device
        return (inputs @ self.a.to(device).T) @ self.b.to(device).T * self.scale


def read(adapter: Path, weights: Weights, body: str) -> dict[str, Update]:
    """An adapter's matrices by the name of the weight that each belongs to.

    Args:
        adapter: its folder.
        weights: the base's.
        body: attribute of the transformer without its head; older files leave it out of the names.

    Raises:
        KoalpacaError: no adapter (adapter-missing), more than plain LoRA (adapter-config), or one that is
            damaged, not finite, or does not fit the base (adapter-load).
    """
    plain = adapter_files.read(adapter)
    stored = load_file(adapter / adapter_files.WEIGHTS)
    lost = sorted(name for name, matrix in stored.items() if not bool(matrix.isfinite().all()))
    if lost:
        raise _unfit(f"{len(lost)} of its matrices hold NaN or infinity; first: {lost[0]}", adapter)
    modules = sorted({name.removeprefix(_PREFIX).rsplit(".lora_", 1)[0] for name in stored})
    scale = plain.alpha / plain.r
    return {
        _weight(module, weights, body, adapter): _update(module, stored, scale, weights, body, adapter)
        for module in modules
    }


def _weight(module: str, weights: Weights, body: str, adapter: Path) -> str:
    name = weights.find(f"{module}.weight", f"{module}.weight".removeprefix(f"{body}."))
    if name is None:
        raise _unfit(f"the base has no '{module}'", adapter)
    return name


def _update(
    module: str, stored: Mapping[str, Tensor], scale: float, weights: Weights, body: str, adapter: Path
) -> Update:
    found = [stored.get(f"{_PREFIX}{module}.lora_{one}.weight") for one in "AB"]
    a, b = found
    if a is None or b is None:
        raise _unfit(f"'{module}' has one of its two matrices only", adapter)
    shape = weights.entries[_weight(module, weights, body, adapter)].shape
    if (b.shape[0], a.shape[1]) != shape:
        raise _unfit(
            f"'{module}' is {b.shape[0]} x {a.shape[1]}, in the base {' x '.join(map(str, shape))}", adapter
        )
    return Update(a.float(), b.float(), scale)


def _unfit(what: str, adapter: Path) -> KoalpacaError:
    return KoalpacaError(
        "adapter-load",
        f"{what}.",
        where=str(adapter),
        fix="Take the adapter folder of a finished run, and its base.",
    )
