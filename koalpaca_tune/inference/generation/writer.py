"""Answers of a loaded model by a decoder: how many at a time, with the adapter where, and where each one ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import bitsandbytes as bnb
import torch

from koalpaca_tune.engine.forward_pass import ADAPTER
from koalpaca_tune.inference import scoring
from koalpaca_tune.inference.decoding import Sampling, StopTexts, Stream
from koalpaca_tune.inference.generation.decoder import MOST_SLOTS, ROUND, Decoder
from koalpaca_tune.inference.generation.request import Request
from koalpaca_tune.inference.generation.session import Session
from koalpaca_tune.inference.generation.state import MOST_STOPS, OVER
from koalpaca_tune.models.base import Loaded
from koalpaca_tune.models.forward import causal
from koalpaca_tune.records import Encoded
from koalpaca_tune.tokens.vocabulary import Vocabulary

SHARED = 16
"""Least tokens of a common beginning that are computed once."""
MERGE_SHARE = 0.4
"""Of a card's free memory, for copies of weights with the adapter inside; else it stays beside them."""


class Pace(NamedTuple):
    """How fast answers came.

    Attributes:
        first: seconds to the first token; what is compiled before it is in it.
        tokens: written, stop tokens included.
        seconds: in all.
    """

    first: float
    tokens: int
    seconds: float

    @property
    def rate(self) -> float | None:
        """Tokens a second after the first one; None where there is no more than one."""
        if self.tokens < 2 or self.seconds <= self.first:
            return None
        return (self.tokens - 1) / (self.seconds - self.first)


def obstacle_of(model: Any, loaded: Loaded) -> str | None:
    """Why our own decoder cannot write with a model, in a few words; None where it can."""
    why = scoring.obstacle_of(model, loaded)
    if why:
        return why
    own = causal(model)
    for part in (own.get_input_embeddings(), own.get_output_embeddings()):
        if part.weight.dtype != loaded.compute_dtype:
            return "embeddings of another type than the products"
    if getattr(own.get_output_embeddings(), "bias", None) is not None:
        return "a head with a bias"
    four = [module for module in own.modules() if isinstance(module, bnb.nn.Linear4bit)]
    if loaded.device.type != "cuda":
        # decoding all weights anew for every token would be no faster than transformers
        fits = not four or scoring.stays_decoded(model, loaded.device)
        return None if fits else "4-bit weights beyond the memory"
    for module in four:
        if module.in_features % max(32, module.weight.quant_state.blocksize):
            return f"4-bit rows of {module.in_features} weights, which are no whole blocks"
    return None


class Writer:
    """The decoders of one model, made when they are needed.

    Attributes:
        pace: of the last answers.
    """

    def __init__(self, model: Any, loaded: Loaded, vocabulary: Vocabulary, stops: Sequence[int]) -> None:
        """`stops`: ids that end an answer, at most `MOST_STOPS`."""
        assert len(stops) <= MOST_STOPS
        self._model = model
        self._loaded = loaded
        self._vocabulary = vocabulary
        self._stops = tuple(stops)
        self._made: dict[str | None, Decoder] = {}
        self.pace: Pace | None = None

    def write(
        self,
        encoded: Sequence[Encoded],
        max_new_tokens: int,
        most_tokens: int,
        *,
        until: Sequence[str],
        sampling: Sampling | None,
        show: Callable[[str], None] | None,
    ) -> list[list[int]]:
        """The new ids of each prompt, up to its stop token, or as far as its stop text was seen.

        Args:
            encoded: prompts.
            max_new_tokens: most of each.
            most_tokens: of all texts together that are written at a time.
            until: texts that end an answer.
            sampling: None for the likeliest token each time.
            show: gets each answer's text as it is written; prompts go one by one then.
        """
        adapter = ADAPTER if scoring.adapter_on(self._model) else None
        room = max(len(one.ids) for one in encoded) + max_new_tokens - 1
        slots = 1 if show is not None else max(1, min(MOST_SLOTS, len(encoded), most_tokens // room))
        decoder = self._decoder(adapter, slots, room)
        session = Session(decoder)
        prefix = _shared(encoded)
        answers = [_Answer(self._vocabulary, self._stops, until, show) for _ in encoded]
        began = time.perf_counter()
        first, count = 0.0, 0
        tickets: dict[int, int] = {}
        for n, one in enumerate(encoded):
            request = Request(tuple(one.ids), max_new_tokens, self._stops, sampling, adapter, prefix)
            tickets[session.add(request)] = n
        for token in session.run():
            first = first or time.perf_counter() - began
            count += token.id != OVER
            answer = answers[tickets[token.ticket]]
            if answer.take(token.id) and token.end is None:
                session.cancel(token.ticket)
            if token.end is not None:
                answer.end()
        self.pace = Pace(first, count, time.perf_counter() - began)
        return [answer.ids for answer in answers]

    def _decoder(self, adapter: str | None, slots: int, room: int) -> Decoder:
        inside = adapter is not None and self._merges()
        # beside the weights, the adapter's decoder writes for the base as well
        tuned = isinstance(getattr(self._model, "peft_config", None), dict)
        key = adapter if self._merges() or not tuned else ADAPTER
        found = self._made.get(key)
        if found is None or found.slots < slots or found.room < room:
            self._made.pop(key, None)
            if found is not None:
                slots, room = max(slots, found.slots), max(room, found.room)
                del found
            loaded = self._loaded
            cuda = loaded.device.type == "cuda"
            self._made[key] = Decoder(
                self._model,
                loaded.architecture,
                dtype=loaded.compute_dtype,
                adapters=(key,) if key is not None else (),
                slots=min(1 << (slots - 1).bit_length(), MOST_SLOTS) if cuda else slots,
                room=-(-room // (4 * ROUND)) * 4 * ROUND if cuda else room,
                inside=inside,
                decoded=not cuda and bool(loaded.proof.linears_4bit),
            )
        elif key is not None:
            # it may have learned since
            found.renew()
        return self._made[key]

    def _merges(self) -> bool:
        """Whether an adapter is put into copies of the weights: where these are whole, and memory is there."""
        loaded = self._loaded
        if loaded.device.type != "cuda":
            return True
        if loaded.proof.linears_4bit:
            return False
        if any(one.names for one in self._made.values()):
            return ADAPTER in self._made and self._made[ADAPTER].inside
        modules = [one for one in self._model.modules() if hasattr(one, "lora_A")]
        size = sum(one.base_layer.weight.numel() for one in modules) * loaded.compute_dtype.itemsize
        free, _ = torch.cuda.mem_get_info(loaded.device)
        return bool(size <= MERGE_SHARE * free)


class _Answer:
    """One answer as its tokens come."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        stops: Sequence[int],
        until: Sequence[str],
        show: Callable[[str], None] | None,
    ) -> None:
        self.ids: list[int] = []
        self._stops = stops
        self._until = StopTexts(vocabulary, until, 0) if until else None
        self._stream = Stream(vocabulary, stops, show) if show is not None else None
        if self._stream is not None:
            self._stream.put(torch.empty(0))

    def take(self, token: int) -> bool:
        """Takes the next id; whether a stop text has come."""
        if token == OVER:
            return False
        self.ids.append(token)
        if self._stream is not None:
            self._stream.put(torch.tensor([token]))
        return self._until is not None and self._until.seen(self.ids)

    def end(self) -> None:
        """No more will come."""
        if self._stream is not None:
            self._stream.end()


def _shared(encoded: Sequence[Encoded]) -> int:
    """How many ids all prompts begin with; 0 where that is not worth a pass of its own."""
    if len(encoded) < 2:
        return 0
    # of sorted ones the first and the last differ soonest
    low, high = min(one.ids for one in encoded), max(one.ids for one in encoded)
    same = next((n for n, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
    return same if same >= SHARED else 0
