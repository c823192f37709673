"""Slots of texts that are written together: prompts in, one token further for all of them, texts leave.

On a card a step is a captured graph (CUDA graphs) of 1, 2, 4, ... texts, and the host reads each step's tokens
while the card computes the next one. What ends a text is known on the device: one that is over writes no more.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from koalpaca_tune.engine.block import Weights
from koalpaca_tune.engine.decode_step import DecodeStep
from koalpaca_tune.engine.prompt_pass import Merged, Prefix, PromptPass, Reader
from koalpaca_tune.inference.generation import choosing
from koalpaca_tune.inference.generation.request import Request
from koalpaca_tune.inference.generation.state import MOST_STOPS, OVER, State, Tokens
from koalpaca_tune.kernels import lean, matvec, plain, trees
from koalpaca_tune.models.architectures import Architecture
from koalpaca_tune.models.forward import causal

MOST_SLOTS = 64
MOST_PREFIXES = 8
"""Beginnings of prompts whose keys are kept, the last used ones."""
PROMPT_TOKENS = {"cuda": 8192, "cpu": 2048}
"""Of one pass over prompts."""
ROUND = 64
"""Tokens that the room of a slot is a multiple of."""


class Decoder:
    """A model that writes.

    Attributes:
        slots: texts at a time.
        room: tokens of a text, the prompt included; the last token needs none.
        names: of the adapters.
        inside: whether the one adapter stands inside the weights.
    """

    def __init__(
        self,
        model: Any,
        architecture: Architecture,
        *,
        dtype: torch.dtype,
        adapters: Sequence[str] = (),
        slots: int = 1,
        room: int = 2048,
        inside: bool = False,
        decoded: bool = False,
        graphs: bool = True,
        names: str = "auto",
    ) -> None:
        """Reads a model, of which nothing may be replaced afterwards; after changes in place call `renew`.

        Args:
            model: a causal language model of transformers, or PEFT's around it.
            architecture: of the base.
            dtype: of the products.
            adapters: names of PEFT's adapters that requests may ask for.
            slots: at most `MOST_SLOTS`.
            room: longest text in tokens; rounded up.
            inside: whether the one adapter is put into copies of the weights; every request then has it.
            decoded: whether 4-bit weights are decoded once.
            graphs: whether steps are captured, on a card with Triton.
            names: of the kernels (auto, triton, torch).
        """
        assert 0 < slots <= MOST_SLOTS
        assert not inside or len(adapters) == 1, "only one adapter can stand inside the weights"
        self.slots, self.names = slots, tuple(adapters)
        self.inside = inside
        copies: dict[int, Merged] | None = {} if decoded else None
        common: dict[str, Any] = {"dtype": dtype, "decoded": copies, "names": names}
        self._tuned: dict[str, PromptPass] = {}
        weights: Weights | None = None
        for name in () if inside else adapters:
            reader = Reader(model, architecture, adapter=name, inside=False, **common)
            self._tuned[name] = PromptPass(reader, weights)
            weights = weights or self._tuned[name].weights
        base = Reader(model, architecture, adapter=adapters[0] if inside else None, inside=inside, **common)
        self.device = base.device
        self._base = PromptPass(base, weights)
        self._merged = base.merged
        self._fused = base.kernels is not plain and base.kernels is not lean
        self._step = DecodeStep(
            self._base.blocks, [one.blocks for one in self._tuned.values()], base.kernels, slots
        )
        longest = getattr(base.config, "max_position_embeddings", room)
        self.room = min(-(-room // ROUND) * ROUND, longest)
        self._tables = base.tables(self.room)
        heads = self._step.heads
        shape = len(self._base.blocks), slots + 1, heads.keys, self.room, heads.width
        self._keys, self._values = (torch.zeros(shape, dtype=dtype, device=self.device) for _ in range(2))
        self._state = State(slots + 1, self.device)
        self._rows = torch.full((MOST_SLOTS,), slots, device=self.device)
        self._live: tuple[int, ...] = ()
        self._emitted = torch.empty(MOST_SLOTS, dtype=torch.int64, device=self.device)
        own = causal(model)
        self._embedding: Tensor = own.get_input_embeddings().weight.detach()
        self._head: Tensor = own.get_output_embeddings().weight.detach()
        self._dtype = dtype
        like: dict[str, Any] = {"device": self.device}
        self._embedded = torch.empty(slots, self._embedding.shape[1], dtype=self._embedding.dtype, **like)
        self._normed = torch.empty(slots, self._embedding.shape[1], dtype=dtype, **like)
        self._logits = torch.empty(slots, len(self._head), dtype=torch.float32, **like)
        self._norm = base.norm()
        self._graphs: dict[tuple[int, bool], torch.cuda.CUDAGraph] | None = None
        if graphs and self.device.type == "cuda" and self._fused:
            self._graphs = {}
        self._pool: Any = None
        self._drawing: set[int] = set()
        self._prefixes: OrderedDict[tuple[str | None, tuple[int, ...]], Prefix] = OrderedDict()
        self._ring = itertools.cycle(
            [torch.empty(MOST_SLOTS, dtype=torch.int64, pin_memory=True) for _ in range(4)]
            if self.device.type == "cuda"
            else [torch.empty(0)]
        )

    def renew(self) -> None:
        """Takes up the adapters as they are now; texts that are being written are not to be continued."""
        for one in self._merged:
            one.renew()
        self._step.renew()
        self._prefixes.clear()

    def warm(self) -> None:
        """Compiles and captures every step beforehand, so that no request waits for it; nothing off a card."""
        if self._graphs is None:
            return
        for count in sorted({self._bucket(n) for n in range(1, self.slots + 1)}):
            for drawing in (False, True):
                if (count, drawing) not in self._graphs:
                    self._graphs[count, drawing] = self._captured(count, drawing)

    def prefill(self, entries: Sequence[tuple[int, Request]]) -> Tokens:
        """Puts texts into free slots and chooses the first new token of each.

        Args:
            entries: slots, and what goes there; several with the same beginning share it.

        Returns:
            The tokens, in the order of the entries.
        """
        groups: dict[tuple[str | None, tuple[int, ...]], list[int]] = {}
        for n, (_, request) in enumerate(entries):
            assert len(request.ids) + request.limit <= self.room + 1, "longer than a slot"
            assert len(request.stops) <= MOST_STOPS
            # the last token must be computed: it says what comes next
            begins = request.ids[: min(request.prefix, len(request.ids) - 1)]
            groups.setdefault((request.adapter, begins), []).append(n)
        states = torch.empty(len(entries), self._normed.shape[1], dtype=self._dtype, device=self.device)
        for (adapter, begins), members in groups.items():
            own = self._pass_of(adapter)
            prefix = self._prefix(adapter, begins, own) if begins else None
            for part in self._parts([len(entries[n][1].ids) - len(begins) for n in members]):
                here = [members[n] for n in part]
                found = own.fill(
                    [entries[n][1].ids[len(begins) :] for n in here],
                    [entries[n][0] for n in here],
                    self._keys,
                    self._values,
                    prefix,
                )
                states[torch.tensor(here, device=self.device)] = found
        self._enter(entries)
        slots = torch.tensor([slot for slot, _ in entries], device=self.device)
        logits = torch.empty(len(entries), len(self._head), dtype=torch.float32, device=self.device)
        for at in range(0, len(entries), MOST_SLOTS):
            self._to_logits(states[at : at + MOST_SLOTS], logits[at : at + MOST_SLOTS])
        drawing = any(request.sampling is not None for _, request in entries)
        emitted = torch.empty(len(entries), dtype=torch.int64, device=self.device)
        self._choose(slots, logits, drawing, emitted)
        return self._sent(emitted)

    def step(self, live: Sequence[int]) -> Tokens:
        """One token further for the texts of some slots, in their order; returns before they are computed."""
        if tuple(live) != self._live:
            self._live = tuple(live)
            padding = [self.slots] * (self._bucket(len(live)) - len(live))
            rows = torch.tensor([*live, *padding])
            self._rows[: len(rows)].copy_(trees.there(rows, self.device))
        count = self._bucket(len(live))
        drawing = not self._drawing.isdisjoint(live)
        if self._graphs is None:
            self._compute(count, drawing)
        else:
            if (count, drawing) not in self._graphs:
                self._graphs[count, drawing] = self._captured(count, drawing)
            self._graphs[count, drawing].replay()
        return self._sent(self._emitted[: len(live)])

    def leave(self, slot: int) -> None:
        """A text is given up; its slot may be filled again."""
        self._state.over[slot] = True

    def _bucket(self, count: int) -> int:
        if self._graphs is None:
            return count
        return min(1 << (count - 1).bit_length(), self.slots)

    def _pass_of(self, adapter: str | None) -> PromptPass:
        return self._base if adapter is None or self.inside else self._tuned[adapter]

    def _parts(self, lengths: Sequence[int]) -> list[list[int]]:
        """Prompts of one pass each."""
        most = PROMPT_TOKENS.get(self.device.type, PROMPT_TOKENS["cpu"])
        parts: list[list[int]] = []
        held = most
        for n, length in enumerate(lengths):
            if held + length > most:
                parts.append([])
                held = 0
            parts[-1].append(n)
            held += length
        return parts

    def _prefix(self, adapter: str | None, begins: tuple[int, ...], own: PromptPass) -> Prefix:
        key = (adapter, begins)
        if key in self._prefixes:
            self._prefixes.move_to_end(key)
            return self._prefixes[key]
        own.fill([begins], [self.slots], self._keys, self._values, None)
        kept = (cache[:, self.slots, :, : len(begins)].clone() for cache in (self._keys, self._values))
        self._prefixes[key] = Prefix(begins, adapter, *kept)
        if len(self._prefixes) > MOST_PREFIXES:
            self._prefixes.popitem(last=False)
        return self._prefixes[key]

    def _enter(self, entries: Sequence[tuple[int, Request]]) -> None:
        """Tells the device of new texts: one copy for the whole numbers, one for the others."""
        whole, real = [], []
        for slot, request in entries:
            own = request.sampling
            self._drawing.discard(slot)
            if own is not None:
                self._drawing.add(slot)
            number = -1 if self.inside or request.adapter is None else self.names.index(request.adapter)
            stops = [*request.stops, *(-2 for _ in range(MOST_STOPS - len(request.stops)))]
            seed = 0 if own is None else own.seed
            # what follows takes the prompt's last token for the token before: one position less
            whole.append([slot, len(request.ids) - 1, request.limit, seed, number, *stops])
            real.append([0.0, 1.0] if own is None else [own.temperature, own.top_p])
        numbers, others = torch.tensor(whole).to(self.device), torch.tensor(real).to(self.device)
        slots, state = numbers[:, 0], self._state
        state.length[slots], state.left[slots], state.seed[slots] = numbers[:, 1], numbers[:, 2], numbers[:, 3]
        state.adapter[slots] = numbers[:, 4].int()
        state.stops[slots] = numbers[:, 5:]
        state.temperature[slots], state.top_p[slots] = others[:, 0], others[:, 1]
        state.count[slots] = 0
        state.over[slots] = False

    def _compute(self, count: int, drawing: bool) -> None:
        slots = self._rows[:count]
        state = self._state
        embedded = self._embedded[:count]
        torch.index_select(self._embedding, 0, state.token.index_select(0, slots), out=embedded)
        states = self._step.states(
            embedded,
            slots,
            state.length.index_select(0, slots),
            state.adapter.index_select(0, slots),
            self._keys,
            self._values,
            self._tables,
        )
        normed = self._normed[:count]
        self._norm(states, normed)
        logits = self._logits[:count]
        self._to_logits(normed, logits)
        self._choose(slots, logits, drawing, self._emitted[:count])

    def _to_logits(self, states: Tensor, logits: Tensor) -> None:
        if self._fused:
            from koalpaca_tune.kernels import triton_matvec

            triton_matvec.linear(states, self._head, logits)
        else:
            matvec.linear(states, self._head, logits)

    def _choose(self, slots: Tensor, logits: Tensor, drawing: bool, emitted: Tensor) -> None:
        state = self._state
        over = state.over.index_select(0, slots)
        count = state.count.index_select(0, slots)
        if drawing:
            temperature, top_p, seed = (
                one.index_select(0, slots) for one in (state.temperature, state.top_p, state.seed)
            )
            chosen = choosing.drawn(logits, temperature, top_p, seed, count)
        else:
            chosen = choosing.likeliest(logits)
        left = state.left.index_select(0, slots) - 1
        stops = (chosen[:, None] == state.stops.index_select(0, slots)).any(1)
        emitted.copy_(torch.where(over, OVER, chosen))
        state.token.index_copy_(0, slots, chosen)
        # a text that is over stays where it is: its row writes to the same place again
        state.length.index_add_(0, slots, (~over).long())
        state.left.index_copy_(0, slots, left)
        state.count.index_copy_(0, slots, count + 1)
        state.over.index_copy_(0, slots, over | stops | (left <= 0))

    def _captured(self, count: int, drawing: bool) -> torch.cuda.CUDAGraph:
        """The graph of a step; it is computed for nobody first, so that every kernel is compiled."""
        rows = self._rows.clone()
        self._rows.fill_(self.slots)
        stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            for _ in range(2):
                self._compute(count, drawing)
        torch.cuda.current_stream(self.device).wait_stream(stream)
        torch.cuda.synchronize(self.device)
        graph = torch.cuda.CUDAGraph()
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        # a server's other threads may use the card meanwhile
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            self._compute(count, drawing)
        self._rows.copy_(rows)
        return graph

    def _sent(self, tokens: Tensor) -> Tokens:
        if self.device.type != "cuda":
            return Tokens(tokens.clone(), None)
        host = next(self._ring)[: len(tokens)]
        host.copy_(tokens, non_blocking=True)
        arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        arrived.record()
        return Tokens(host, arrived)
