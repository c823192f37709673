"""What a run trains: the matrices of an adapter, or every weight of the base.

The optimizer's parameters are float32 in either case. A model in bfloat16 has 8 bits for a number's digits: an
update of less than 1/256 of a weight would round away, and at usual rates nearly all of them are. So the optimizer
has float32 copies (master weights: Micikevicius et al. 2018), the gradients of micro-steps are added up in float32,
and the model gets the copies, rounded, after each step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import peft
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from koalpaca_tune.models import adapter

WEIGHTS = "model.safetensors"
"""Of a checkpoint in full fine-tuning: every trained weight in float32."""
ADAPTER_FILES = (adapter.CONFIG, adapter.WEIGHTS)
WHOLE_FILES = (WEIGHTS,)


class Trained(Protocol):
    """What the optimizer updates, and its way to the disk and back."""

    @property
    def parameters(self) -> list[nn.Parameter]:
        """float32, of the model or beside it."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of each, as in the model."""

    @property
    def watched(self) -> tuple[str, ...]:
        """Names of those that must not stay as they were."""

    @property
    def beside(self) -> bool:
        """Whether gradients and updates go through copies of their own, past data parallelism."""

    def idle(self) -> Tensor:
        """Of each that is watched, whether it is as before the first step: bool, on the device."""

    def publish(self) -> None:
        """Puts what the optimizer wrote into the model."""

    def held(self) -> list[Tensor]:
        """Copies in host memory, in the model's types: exact before the first step."""

    def put(self, values: Sequence[Tensor]) -> None:
        """Puts such copies back."""

    def save(self, folder: Path) -> None:
        """Writes what a run goes on from."""

    def restore(self, folder: Path) -> None:
        """Reads it back.

        Raises:
            LookupError, RuntimeError, OSError, SafetensorError: it is not of this model, or damaged.
        """

    def write(self, folder: Path) -> None:
        """Writes what the run is for."""


def digest(parameters: Sequence[nn.Parameter]) -> str:
    """Of every bit."""
    found = hashlib.sha256()
    for parameter in parameters:
        found.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return found.hexdigest()


class Adapter:
    """The LoRA matrices of a PEFT model."""

    beside: bool = False

    def __init__(self, model: Any) -> None:
        self.model = model
        learning = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self.names = tuple(name for name, _ in learning)
        self.parameters = [p for _, p in learning]
        # A begins at random, B at zero: while all of B is zero, the adapter changes nothing
        ups = [(name, p) for name, p in model.named_parameters() if ".lora_B." in name]
        self.watched = tuple(name for name, _ in ups)
        self._ups = [p for _, p in ups]

    def idle(self) -> Tensor:
        """Whether a B matrix is all zero."""
        return torch.stack([matrix.detach().any() for matrix in self._ups]).logical_not()

    def publish(self) -> None:
        """Nothing: the matrices are the model's own."""

    def held(self) -> list[Tensor]:
        """Copies in host memory."""
        return [p.detach().cpu().clone() for p in self.parameters]

    @torch.no_grad()
    def put(self, values: Sequence[Tensor]) -> None:
        """Puts them back in place: the fast engine holds views."""
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.copy_(value)

    def save(self, folder: Path) -> None:
        """As PEFT has it."""
        adapter.save(self.model, folder)

    def restore(self, folder: Path) -> None:
        """Raises KeyError for a matrix that the model does not have."""
        result = peft.set_peft_model_state_dict(self.model, load_file(folder / adapter.WEIGHTS))
        if result.unexpected_keys:
            raise KeyError(result.unexpected_keys[0])

    def write(self, folder: Path) -> None:
        """The adapter's two files."""
        adapter.save(self.model, folder)


class Whole:
    """Every weight of a model; of one in 16 bits through float32 copies."""

    def __init__(self, model: Any, write: Callable[[Path], None]) -> None:
        """write: puts the model into a folder, with all that belongs to a base."""
        self._write = write
        learning = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self.names = self.watched = tuple(name for name, _ in learning)
        self._own = [p for _, p in learning]
        self.beside = any(p.dtype != torch.float32 for p in self._own)
        self.parameters = [_master(p) for p in self._own] if self.beside else self._own
        self._began = self._sums()

    def idle(self) -> Tensor:
        """Whether a weight has the sum, and the sum of sizes, that it began with."""
        return (self._sums() == self._began).all(dim=1)

    @torch.no_grad()
    def publish(self) -> None:
        """The copies, rounded."""
        if self.beside:
            for own, master in zip(self._own, self.parameters, strict=True):
                own.copy_(master)

    def held(self) -> list[Tensor]:
        """The model's own weights in host memory: half the size of the copies, and before a step the same."""
        return [p.detach().cpu().clone() for p in self._own]

    @torch.no_grad()
    def put(self, values: Sequence[Tensor]) -> None:
        """Puts them back, into copies and model."""
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.copy_(value)
        self.publish()

    def save(self, folder: Path) -> None:
        """In float32, under the model's names."""
        found = zip(self.names, self.parameters, strict=True)
        save_file({name: p.detach().cpu().contiguous() for name, p in found}, folder / WEIGHTS)

    def restore(self, folder: Path) -> None:
        """Raises KeyError for another model's weights."""
        stored = load_file(folder / WEIGHTS)
        different = stored.keys() ^ set(self.names)
        if different:
            raise KeyError(min(different))
        shapes = [(name, p.shape) for name, p in zip(self.names, self.parameters, strict=True)]
        wrong = [name for name, shape in shapes if stored[name].shape != shape]
        if wrong:
            raise KeyError(wrong[0])
        self.put([stored[name] for name in self.names])

    def write(self, folder: Path) -> None:
        """The model, a base of its own."""
        self._write(folder)

    def _sums(self) -> Tensor:
        """float64 [parameters, 2]; an update of one entry shows, however small beside the sum."""
        with torch.no_grad():
            return torch.stack(
                [torch.stack((p.sum(dtype=torch.float64), p.norm(dtype=torch.float64))) for p in self.parameters]
            )


def _master(parameter: nn.Parameter) -> nn.Parameter:
    """A float32 copy that gets the parameter's gradient added up, which the parameter itself does not keep."""
    master = nn.Parameter(parameter.detach().float())

    def take(own: Tensor) -> None:
        assert own.grad is not None
        if master.grad is None:
            master.grad = own.grad.float()
        else:
            master.grad.add_(own.grad)
        own.grad = None

    parameter.register_post_accumulate_grad_hook(take)  # type: ignore[no-untyped-call]
    return master
