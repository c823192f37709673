"""A base, with or without its adapter, as something that scores and writes text.

Evaluation knows a model only by these two verbs. Both go through the encoder that training used, so the
same text has the same ids in all three places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.inference import decoding
from koalpaca_tune.inference.decoding import Sampling, Written
from koalpaca_tune.models import forward
from koalpaca_tune.models.base import Loaded
from koalpaca_tune.records import Encoded, Rendered
from koalpaca_tune.tokens.encode import Encoder
from koalpaca_tune.tokens.pack import collate

HEAD_ROWS = 1024
"""Scored positions per call of the output head: bounds the logits at 1024 x vocabulary."""


class Score(NamedTuple):
    """Log-likelihood of a learned span.

    Attributes:
        logprob: summed over the span's tokens, in nats.
        tokens: how many tokens that is.
    """

    logprob: float
    tokens: int


class TorchLanguageModel:
    """Scores and writes with a loaded base.

    Attributes:
        model: the base, or the PEFT model around it.
        loaded: where the base came from and how it was loaded.
        encoder: template and tokenizer.
        batch_tokens: most tokens of a batch, padding included.
    """

    def __init__(self, model: Any, loaded: Loaded, encoder: Encoder, batch_tokens: int | None = None) -> None:
        """Wraps a model; `batch_tokens` of None follows the device."""
        self.model = model
        self.loaded = loaded
        self.encoder = encoder
        self.batch_tokens = batch_tokens or (16384 if loaded.device.type == "cuda" else 2048)
        self._stops = encoder.vocabulary.stop_ids(encoder.template)

    def score(self, requests: Sequence[Rendered]) -> list[Score]:
        """Log-likelihood of each text's learned spans given what stands before them, in the order given.

        Raises:
            KoalpacaError: a request with nothing to score (score-nothing) or longer than the base's context
                (context-too-long), before anything is computed; a span that tokens cross (mask-boundary).
        """
        encoded = list(self.encoder.encode(requests))
        for one in encoded:
            if not one.learned:
                raise KoalpacaError("score-nothing", "the request marks no token to score.", where=one.origin)
            self._check_length(one, len(one.ids), "")
        scores = [Score(0.0, 0)] * len(encoded)
        with self._inferring():
            for part in batches([len(one.ids) for one in encoded], self.batch_tokens):
                sums = self._logprobs([encoded[n] for n in part])
                for n, logprob in zip(part, sums, strict=True):
                    scores[n] = Score(logprob, encoded[n].learned)
        return scores

    def write(
        self,
        prompts: Sequence[Rendered],
        max_new_tokens: int,
        *,
        sampling: Sampling | None = None,
        show: Callable[[str], None] | None = None,
    ) -> list[Written]:
        """Continues each prompt up to a stop token or the limit, in the order given.

        Args:
            prompts: texts that end where an answer begins.
            max_new_tokens: longest answer, in tokens, the stop token included.
            sampling: None for the likeliest token each time.
            show: gets each answer's text as it is written. With it, or with sampling, prompts go one by one.

        Raises:
            KoalpacaError: a prompt that leaves no room for the answer in the base's context (context-too-long).
        """
        encoded = list(self.encoder.encode(prompts))
        for one in encoded:
            self._check_length(one, len(one.ids) + max_new_tokens, f" with {max_new_tokens} new tokens")
        answers = [Written("", False, 0)] * len(encoded)
        rooms = [len(one.ids) + max_new_tokens for one in encoded]
        alone = sampling is not None or show is not None
        groups = ([n] for n in range(len(rooms))) if alone else batches(rooms, self._cache_tokens())
        settings = decoding.settings(self.encoder.vocabulary, self._stops, max_new_tokens, sampling)
        with self._inferring(), self._only(settings):
            for part in groups:
                produced = self._generate([encoded[n] for n in part], settings, sampling, show)
                for n, ids in zip(part, produced, strict=True):
                    answers[n] = decoding.written(self.encoder.vocabulary, self._stops, ids)
        return answers

    def logits(self, texts: Sequence[Rendered]) -> list[Tensor]:
        """Logits after every token of each text: float32 [tokens, vocabulary], on the CPU."""
        found = []
        with self._inferring():
            for one in self.encoder.encode(texts):
                ids = torch.tensor([one.ids], device=self.loaded.device)
                positions = torch.arange(len(one.ids), device=self.loaded.device)[None]
                states = forward.hidden(self.model, self.loaded.architecture, ids, positions)
                found.append(forward.head(self.model, states[0]).cpu())
        return found

    @contextmanager
    def without_adapter(self) -> Iterator[None]:
        """The base alone for a while: the adapter is switched off, not removed.

        Raises:
            KoalpacaError: there is no adapter (adapter-not-attached).
        """
        if not hasattr(self.model, "disable_adapter"):
            raise KoalpacaError(
                "adapter-not-attached",
                "the model has no adapter, so there is nothing to compare with the base.",
                fix="Give the 'adapter' folder of a run.",
            )
        with self.model.disable_adapter():
            yield

    def _logprobs(self, part: Sequence[Encoded]) -> list[float]:
        batch = collate([[one] for one in part], self.encoder.vocabulary.pad_id)
        ids, labels, positions = (
            torch.from_numpy(array).to(self.loaded.device) for array in (batch.ids, batch.labels, batch.positions)
        )
        architecture = self.loaded.architecture
        states, targets, rows = forward.learned(self.model, architecture, ids, labels, positions)
        sums = torch.zeros(len(part), dtype=torch.float64, device=states.device)
        for at in range(0, len(targets), HEAD_ROWS):
            here = slice(at, at + HEAD_ROWS)
            logits = forward.head(self.model, states[here])
            losses = functional.cross_entropy(logits, targets[here], reduction="none")
            sums.index_add_(0, rows[here], -losses.double())
        values: list[float] = sums.tolist()
        return values

    def _generate(
        self,
        part: Sequence[Encoded],
        settings: Any,
        sampling: Sampling | None,
        show: Callable[[str], None] | None,
    ) -> list[list[int]]:
        """Produced ids of each prompt, padded on the left so that all answers begin in the same column."""
        width = max(len(one.ids) for one in part)
        ids = torch.full((len(part), width), self.encoder.vocabulary.pad_id)
        mask = torch.zeros((len(part), width), dtype=torch.int64)
        for n, one in enumerate(part):
            ids[n, width - len(one.ids) :] = torch.tensor(one.ids)
            mask[n, width - len(one.ids) :] = 1
        device = self.loaded.device
        cards = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=cards, enabled=sampling is not None):
            if sampling is not None:
                torch.manual_seed(sampling.seed)
            whole = forward.causal(self.model).generate(
                ids.to(device),
                attention_mask=mask.to(device),
                generation_config=settings,
                streamer=decoding.Stream(self.encoder.vocabulary, self._stops, show) if show else None,
            )
        produced: list[list[int]] = whole[:, width:].tolist()
        return produced

    @contextmanager
    def _inferring(self) -> Iterator[None]:
        """Eval mode (no dropout; recomputation, which would turn the cache off, is idle), no gradients."""
        trained = self.model.training
        self.model.eval()
        device = self.loaded.device.type
        half = device == "cuda" and self.loaded.compute_dtype == torch.bfloat16
        try:
            with torch.inference_mode(), torch.autocast(device, dtype=torch.bfloat16, enabled=half):
                yield
        finally:
            if trained:
                self.model.train()

    @contextmanager
    def _only(self, settings: Any) -> Iterator[None]:
        """Puts the base's own generation settings aside.

        transformers fills what a config leaves unset from the model's: a repetition penalty or a temperature
        that came with a base would quietly join in.
        """
        model = forward.causal(self.model)
        own = model.generation_config
        model.generation_config = settings
        try:
            yield
        finally:
            model.generation_config = own

    def _check_length(self, one: Encoded, tokens: int, what: str) -> None:
        room = getattr(forward.causal(self.model).config, "max_position_embeddings", None)
        if room is not None and tokens > room:
            raise KoalpacaError(
                "context-too-long",
                f"the text is {tokens} tokens long{what}; the base has room for {room}.",
                where=one.origin,
                fix="Shorten the text, or the answer's limit.",
            )

    def _cache_tokens(self) -> int:
        """Tokens of a batch that writes: keys and values take at most half of the card's free memory.

        On the CPU a step costs little more for more rows, since reading the weights is most of it.
        """
        config = forward.causal(self.model).config
        heads: int = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width: int = config.hidden_size // config.num_attention_heads
        size = 2 if self.loaded.compute_dtype != torch.float32 else 4
        each: int = 2 * config.num_hidden_layers * heads * width * size
        if self.loaded.device.type != "cuda":
            return min(4 * self.batch_tokens, (1 << 30) // each)
        free, _ = torch.cuda.mem_get_info(self.loaded.device)
        return min(self.batch_tokens, free // 2 // each)


def batches(costs: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices in groups of similar cost, dearest first, so that memory runs out at the start or never.

    Args:
        costs: tokens of each item.
        budget: most tokens of a group, each item counted as the group's dearest; an item dearer than this
            goes alone.
    """
    group: list[int] = []
    for index in sorted(range(len(costs)), key=lambda n: -costs[n]):
        if group and costs[group[0]] * (len(group) + 1) > budget:
            yield group
            group = []
        group.append(index)
    if group:
        yield group
