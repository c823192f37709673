"""Log-likelihoods of requests: planned into lots that fit, computed once where they begin alike.

The engine's own blocks compute them where they can; transformers' modules are the reference, and stand in for what
the engine cannot compute. A score is the same by either, and whatever else is in a lot, but for rounding.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import peft
import torch
from torch import Tensor

from koalpaca_tune.engine import forward_pass
from koalpaca_tune.engine.forward_pass import ForwardPass
from koalpaca_tune.inference import prefixes
from koalpaca_tune.inference.prefixes import Budget, Lot, Sequences
from koalpaca_tune.kernels import trees
from koalpaca_tune.models.architectures import Architecture
from koalpaca_tune.models.base import Loaded
from koalpaca_tune.models.forward import causal
from koalpaca_tune.planner.support import obstacle
from koalpaca_tune.records import Encoded

CPU_BYTES = 1 << 30
"""What a lot may take in the machine's memory."""
CARD_SHARE = 0.8
"""Of the card's free memory: what the allocator cannot place is left."""
CPU_SHARE = 0.25
"""Of the machine's memory, for 4-bit weights that stay decoded."""
HEAD_BYTES = {"cuda": 1 << 28, "cpu": 1 << 25}
"""Logits of one call of the output head, in float32."""


@dataclass(frozen=True)
class Sums:
    """Of one lot, on its way from the device.

    Attributes:
        requests: which ones.
        values: their scores, float64 on the host, once `arrived` has come to pass.
        arrived: None on the CPU.
    """

    requests: tuple[int, ...]
    values: Tensor
    arrived: torch.cuda.Event | None


class Scorer:
    """A model as the engine computes it, with its adapter on or off.

    Attributes:
        budget: of the last lots.
    """

    def __init__(self, model: Any, architecture: Architecture, dtype: torch.dtype, *, adapter: bool) -> None:
        """Reads the model; nothing of it may be replaced afterwards, though weights may change in place."""
        self._device: torch.device = next(causal(model).parameters()).device
        self._pass = ForwardPass(
            model, architecture, dtype=dtype, adapter=adapter, decoded=stays_decoded(model, self._device)
        )
        self._rows = max(1, HEAD_BYTES.get(self._device.type, HEAD_BYTES["cpu"]) // (4 * self._pass.vocabulary))
        self.budget = Budget(0, 0)

    def scores(self, encoded: Iterable[Encoded], most_tokens: int) -> list[float]:
        """Summed log-likelihood of the learned tokens of each, in nats.

        Args:
            encoded: each with a learned token, those that begin alike together; read while others are computed.
            most_tokens: of a lot; fewer where memory is short.
        """
        self.budget = self._plan(most_tokens)
        scores: dict[int, float] = {}
        waiting: Sums | None = None
        for lot in prefixes.lots(encoded, self.budget):
            sums = self._compute(lot)
            # the card works on this lot while the host reads the one before it
            _put(waiting, scores)
            waiting = sums
        _put(waiting, scores)
        return [scores[n] for n in range(len(scores))]

    def _plan(self, most: int) -> Budget:
        if self._device.type == "cuda":
            free, total = torch.cuda.mem_get_info(self._device)
            own = torch.cuda.memory_allocated(self._device)
            held = torch.cuda.memory_reserved(self._device) - own
            # engine.memory_budget, or a caller, may have given the process a part of the card
            part = torch.cuda.get_per_process_memory_fraction(self._device) * total - own
            room = CARD_SHARE * min(free + held, part)
        else:
            room = float(CPU_BYTES)
        # float32 logits, and what their logsumexp takes beside them
        room -= 3 * 4 * self._rows * self._pass.vocabulary
        each, key = self._pass.token_bytes, self._pass.key_bytes
        tokens = max(1, min(most, int(room / 2 / each)))
        return Budget(tokens, max(1, int(room / 2 / key)))

    def _compute(self, lot: Lot) -> Sums:
        device, dense = self._device, self._pass.backend == "dense"

        def layouts(parts: tuple[Sequences, Sequences]) -> Iterator[trees.Layout]:
            first = 0
            for one in parts:
                if one.query_lengths:
                    yield trees.layout(
                        first,
                        one.query_lengths,
                        one.key_lengths,
                        torch.from_numpy(one.keys),
                        device,
                        own=one.own,
                        dense=dense,
                    )
                first += len(one.queries)

        there = forward_pass.Lot(
            trees.there(torch.from_numpy(lot.ids), device),
            trees.there(torch.from_numpy(lot.positions).int(), device),
            tuple(layouts((lot.roots, lot.branches))),
            tuple(layouts((lot.last_roots, lot.last_branches))),
            trees.there(torch.from_numpy(lot.wanted), device),
        )
        rows, targets, of = (
            trees.there(torch.from_numpy(array), device) for array in (lot.rows, lot.targets, lot.of)
        )
        states = self._pass.states(there, int(lot.positions.max()) + 1)
        picked = torch.empty(len(lot.rows), dtype=torch.float64, device=device)
        # scored tokens sorted by their row: those of a chunk of rows lie side by side
        bounds = range(0, len(lot.wanted), self._rows)
        places = lot.rows.argsort(kind="stable")
        sorted_rows = lot.rows[places]
        for at in bounds:
            begin, end = (int(n) for n in sorted_rows.searchsorted([at, at + self._rows]))
            if begin == end:
                continue
            here = trees.there(torch.from_numpy(places[begin:end]), device)
            logits = self._pass.logits(states[at : at + self._rows])
            inside = rows[here] - at
            found = logits[inside, targets[here]] - logits.logsumexp(-1)[inside]
            picked[here] = found.double()
        values = torch.zeros(len(lot.requests), dtype=torch.float64, device=device).index_add_(0, of, picked)
        return _sent(lot.requests, values)


def _sent(requests: tuple[int, ...], values: Tensor) -> Sums:
    """Values on their way: reading them later waits for them alone, not for what the card has been given since."""
    if not values.is_cuda:
        return Sums(requests, values, None)
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(values, non_blocking=True)
    arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
    arrived.record()
    return Sums(requests, host, arrived)


def _put(sums: Sums | None, scores: dict[int, float]) -> None:
    if sums is not None:
        if sums.arrived is not None:
            sums.arrived.synchronize()
        scores.update(zip(sums.requests, sums.values.tolist(), strict=True))


def obstacle_of(model: Any, loaded: Loaded) -> str | None:
    """Why the engine cannot score a model, in a few words; None where it can."""
    why = obstacle(causal(model).config, loaded.compute_dtype)
    if why:
        return why
    if loaded.proof.linears_8bit:
        return "8-bit products are bitsandbytes' own"
    inside = set(getattr(causal(model), loaded.architecture.body).layers.modules())
    for module in model.modules():
        if isinstance(module, peft.utils.ModulesToSaveWrapper):
            return "an adapter that replaces whole modules"
        if not isinstance(module, peft.tuners.lora.LoraLayer):
            continue
        if module not in inside or list(module.lora_A) != [forward_pass.ADAPTER] or module.merged:
            return "an adapter that is no single LoRA of the blocks' linears"
        if getattr(module, "lora_variant", {}) or any(getattr(module, "lora_bias", {}).values()):
            return "a variant of LoRA"
    return None


def adapter_on(model: Any) -> bool:
    """Whether a model has a LoRA adapter that is not switched off."""
    return any(
        not module.disable_adapters for module in model.modules() if isinstance(module, peft.tuners.lora.LoraLayer)
    )


def stays_decoded(model: Any, device: torch.device) -> bool:
    """On the CPU decoding takes long, and memory is there; on a card it takes 2 % of a lot."""
    if device.type == "cuda":
        return False
    config = causal(model).config
    weights = (
        config.num_hidden_layers * (4 * config.hidden_size + 3 * config.intermediate_size) * config.hidden_size
    )
    return bool(weights * 4 <= CPU_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
