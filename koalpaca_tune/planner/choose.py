"""The fastest way to take a step within a card's memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.planner import constants, memory
from koalpaca_tune.planner.card import Card
from koalpaca_tune.planner.choice import RECOMPUTE, Choice, Fixed, Recompute
from koalpaca_tune.planner.seconds import seconds, useful_flop
from koalpaca_tune.planner.work import Work

FREE = Fixed()
LORA_R = 16
"""Of the adapter that is proposed in place of training all weights."""
SHORTEST = 64
"""Shorter rows are not proposed."""


@dataclass(frozen=True)
class Plan:
    """A choice and what it is predicted to take.

    Attributes:
        work, card, budget: what it was made for; the budget in bytes.
        choice: how a step is taken.
        memory: bytes by part at the worst moment (`memory.PARTS`).
        seconds: of one step, by part (`seconds.PARTS`).
        alternatives: the best plan of every other recompute policy that fits, from fast to small.
    """

    work: Work
    card: Card
    budget: int
    choice: Choice
    memory: dict[str, int]
    seconds: dict[str, float]
    alternatives: tuple[Plan, ...] = ()

    @cached_property
    def peak(self) -> int:
        """Bytes on the card."""
        return memory.peak(self.memory)

    @cached_property
    def step_seconds(self) -> float:
        """Of one step."""
        return sum(self.seconds.values())

    @property
    def tokens_per_second(self) -> float:
        """Real tokens."""
        return self.work.step_tokens / self.step_seconds

    @property
    def micro_steps(self) -> int:
        """Of one step."""
        return self.work.micro_steps(self.choice)

    @property
    def mfu(self) -> float:
        """Useful FLOP/s over the datasheet's peak (model FLOPs utilisation, Chowdhery et al. 2022)."""
        return useful_flop(self.work) / self.step_seconds / self.card.peak


def choose(work: Work, card: Card, budget_bytes: int, fixed: Fixed = FREE) -> Plan:
    """The fastest plan within a budget; of those within 0.3 % of it the simplest and smallest.

    Args:
        work: one step on one GPU.
        card: the GPU.
        budget_bytes: what of its memory may be used.
        fixed: what is not to be chosen.

    Raises:
        KoalpacaError: nothing fits (memory-short), or more blocks to cache than there are (cached-blocks).
    """
    layers = work.shape.layers
    if fixed.cached_blocks is not None and fixed.cached_blocks > layers:
        raise KoalpacaError(
            "cached-blocks",
            f"{fixed.cached_blocks} blocks are to be cached, and the base has {layers}.",
            where="engine.cached_blocks",
            fix=f"Set it to {layers} or less.",
        )
    fitting = {
        recompute: list(_plans(work, card, budget_bytes, fixed, recompute))
        for recompute in _policies(work, card, fixed)
    }
    everything = [plan for plans in fitting.values() for plan in plans]
    if not everything:
        raise _short(work, card, budget_bytes, fixed)
    chosen = _pick(everything)
    others = [
        _pick(plans) for recompute, plans in fitting.items() if plans and recompute != chosen.choice.recompute
    ]
    return replace(chosen, alternatives=tuple(others))


def _pick(plans: list[Plan]) -> Plan:
    limit = min(plan.step_seconds for plan in plans) * (1.0 + constants.TIE)
    return min((plan for plan in plans if plan.step_seconds <= limit), key=_simple)


def _simple(plan: Plan) -> tuple[bool, bool, int, float]:
    # host memory and graphs are machinery that is not started for a tie
    return plan.choice.recompute == "offload", plan.choice.graphs, plan.peak, plan.step_seconds


def _policies(work: Work, card: Card, fixed: Fixed) -> tuple[Recompute, ...]:
    if fixed.recompute is not None:
        return (fixed.recompute,)
    if work.engine == "plain":
        return ("none", "blocks")
    # the CPU's memory is the host's, and copies to the host cannot be part of a graph
    return RECOMPUTE if card.cuda and not fixed.graphs else RECOMPUTE[:-1]


def _plans(work: Work, card: Card, budget: int, fixed: Fixed, recompute: Recompute) -> Iterator[Plan]:
    """All plans of a policy that fit."""
    for micro_tokens in _sizes(work, fixed):
        for graphs in _graphs(work, card, fixed, recompute):
            start = Choice(micro_tokens, recompute, 0, graphs)
            for cached in _cached(work, budget, fixed, start):
                choice = replace(start, cached_blocks=cached)
                yield Plan(work, card, budget, choice, memory.memory(work, choice), seconds(work, choice, card))


def _sizes(work: Work, fixed: Fixed) -> list[int]:
    """Micro-batch sizes worth a look, in tokens: a step in 1, 2, 3, ... parts, and powers of two."""
    if fixed.micro_tokens is not None:
        return [fixed.micro_tokens]
    whole = max(work.step_tokens, work.longest)
    parts = [*range(1, 17), *(2**n for n in range(5, 17))]
    # as `Work.micro_steps` has it: micro-steps are not filled to the brim
    sizes = {math.ceil(whole / n / (1.0 if n == 1 or work.equal else 0.98)) for n in parts}
    sizes |= {2**n for n in range(5, 21)} | {work.longest}
    return sorted({work.tokens_at_once(size) for size in sizes if work.longest <= size}, reverse=True)


def _cached(work: Work, budget: int, fixed: Fixed, start: Choice) -> list[int]:
    """Numbers of cached blocks that fit: none, as many as there is room for, and some between."""

    def need(count: int) -> int:
        return memory.peak(memory.memory(work, replace(start, cached_blocks=count)))

    if fixed.cached_blocks is not None:
        return [fixed.cached_blocks] if need(fixed.cached_blocks) <= budget else []
    room = budget - need(0)
    if room < 0:
        return []
    if work.engine == "plain":
        return [0]
    layers = work.shape.layers
    # the last block takes the place of the buffers that the others shared
    most = layers if need(layers) <= budget else min(room // memory.block_buffers(work), layers - 1)
    return sorted({0, most, *(count for count in (layers // 4, layers // 2, 3 * layers // 4) if count < most)})


def _graphs(work: Work, card: Card, fixed: Fixed, recompute: Recompute) -> tuple[bool, ...]:
    # the engine captures nothing that goes through host memory
    if work.engine == "plain" or not card.cuda or recompute == "offload":
        return (False,)
    return (False, True) if fixed.graphs is None else (fixed.graphs,)


def smallest(work: Work, card: Card, fixed: Fixed = FREE) -> tuple[int, Choice]:
    """The least memory that does, in bytes, and the choice that needs it, whatever its time."""
    cached = fixed.cached_blocks or 0
    choices = [
        Choice(micro_tokens, recompute, cached, graphs)
        for recompute in _policies(work, card, fixed)
        for micro_tokens in _sizes(work, fixed)
        for graphs in _graphs(work, card, fixed, recompute)
    ]
    needs = [(memory.peak(memory.memory(work, choice)), choice) for choice in choices]
    return min(needs, key=lambda need: need[0])


def _short(work: Work, card: Card, budget: int, fixed: Fixed) -> KoalpacaError:
    """What would do, and what to change for it."""
    least, choice = smallest(work, card, fixed)
    return KoalpacaError(
        "memory-short",
        f"the smallest plan needs {_gib(least)} (micro-steps of {choice.micro_tokens:,} tokens, "
        f"recompute {choice.recompute}), and {_gib(budget, down=True)} may be used.",
        where=card.name,
        fix=_way_out(work, card, budget, fixed),
    )


def _way_out(work: Work, card: Card, budget: int, fixed: Fixed) -> str:
    free, choice = smallest(work, card)
    if free <= budget and (work.engine == "plain" or not card.cuda):
        return (
            f"With engine.micro_tokens {choice.micro_tokens} and engine.recompute {choice.recompute} "
            f"{_gib(free)} would do."
        )
    if free <= budget:
        keys = {
            "engine.micro_tokens": fixed.micro_tokens,
            "engine.recompute": fixed.recompute,
            "engine.cached_blocks": fixed.cached_blocks,
        }
        said = " and ".join(key for key, value in keys.items() if value is not None)
        return f"Leave {said} to the planner: {_gib(free)} would do."
    if work.full:
        names = tuple(name for _, members in work.shape.linears for name, _ in members)
        adapted = replace(work, full=False, four_bit=True, double_quant=True, lora_r=LORA_R, targets=names)
        quantised, _ = smallest(adapted, card)
        if quantised <= budget:
            return (
                f"Train an adapter (lora) on a base in 4 bits in place of all weights: {_gib(quantised)} would do."
            )
    elif not work.four_bit:
        quantised, _ = smallest(replace(work, four_bit=True, eight_bit=False, double_quant=True), card)
        if quantised <= budget:
            return f"Load the base in 4 bits (quantization.load_in_4bit): {_gib(quantised)} would do."
    length = work.longest // 2
    while length >= SHORTEST:
        tokens = min(work.document_tokens, float(length))
        least, _ = smallest(replace(work, longest=length, document_tokens=tokens), card)
        if least <= budget:
            return f"Set data.max_length to {length:,} or less ({_gib(least)} would do), or use a larger card."
        length //= 2
    return f"Use a smaller base, or a card with {_gib(free)} to spare."


def _gib(count: float, *, down: bool = False) -> str:
    """Rounded so that what is said to do does."""
    tenths = count * 10 / constants.GIB
    return f"{(math.floor(tenths) if down else math.ceil(tenths)) / 10:,.1f} GiB"
