"""A base, with or without its adapter, as something that scores and writes text.

Evaluation knows a model only by these two verbs. Both go through the encoder that training used, so the
same text has the same ids in all three places.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.inference import decoding, scoring
from koalpaca_tune.inference.decoding import Sampling, Written
from koalpaca_tune.inference.generation import writer as writing
from koalpaca_tune.inference.generation.state import MOST_STOPS
from koalpaca_tune.inference.generation.writer import Pace, Writer
from koalpaca_tune.inference.reference import Reference, batches, inferring
from koalpaca_tune.inference.scoring import Scorer
from koalpaca_tune.models import forward
from koalpaca_tune.models.base import Loaded
from koalpaca_tune.records import Encoded, Rendered
from koalpaca_tune.tokens.encode import Encoder


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
        engine: auto scores and writes by our own blocks where they can compute the model; plain by transformers.
        peak_memory: bytes held at most while scoring and writing so far: by tensors on a card, else by the process.
        pace: of the last answers; None where transformers wrote them.
    """

    def __init__(
        self,
        model: Any,
        loaded: Loaded,
        encoder: Encoder,
        batch_tokens: int | None = None,
        *,
        engine: Literal["auto", "plain"] = "auto",
    ) -> None:
        """Wraps a model; `batch_tokens` of None follows the device."""
        self.model = model
        self.loaded = loaded
        self.encoder = encoder
        self.batch_tokens = batch_tokens or (16384 if loaded.device.type == "cuda" else 2048)
        self.engine = engine
        self.peak_memory = 0
        self.pace: Pace | None = None
        self._made: tuple[tuple[int, bool, bool], Scorer | Reference] | None = None
        self._writer: tuple[Any, Writer] | None = None
        self._stops = encoder.vocabulary.stop_ids(encoder.template)

    def score(self, requests: Sequence[Rendered]) -> list[Score]:
        """Log-likelihood of each text's learned spans given what stands before them, in the order given.

        Raises:
            KoalpacaError: a request with nothing to score (score-nothing) or longer than the base's context
                (context-too-long); a span that tokens cross (mask-boundary).
        """
        texts = [one.text for one in requests]
        # neighbours begin alike; the tokenizer works on some while the device computes those before them
        order = sorted(range(len(texts)), key=texts.__getitem__)
        counts = []

        def encoded() -> Iterator[Encoded]:
            for one in self.encoder.encode(requests[n] for n in order):
                if not one.learned:
                    raise KoalpacaError("score-nothing", "the request marks no token to score.", where=one.origin)
                self._check_length(one, len(one.ids), "")
                counts.append(one.learned)
                yield one

        with torch.inference_mode(), self._measuring():
            sums = self._scorer().scores(encoded(), self.batch_tokens)
        found = dict(zip(order, map(Score, sums, counts), strict=True))
        return [found[n] for n in range(len(requests))]

    def write(
        self,
        prompts: Sequence[Rendered],
        max_new_tokens: int,
        *,
        until: Sequence[str] = (),
        sampling: Sampling | None = None,
        show: Callable[[str], None] | None = None,
    ) -> list[Written]:
        """Continues each prompt up to a stop token, a stop text or the limit, in the order given.

        Args:
            prompts: texts that end where an answer begins.
            max_new_tokens: longest answer, in tokens, the stop token included.
            until: an answer ends before the first of these texts.
            sampling: None for the likeliest token each time.
            show: gets each answer's text as it is written; prompts go one by one then.

        Raises:
            KoalpacaError: a prompt that leaves no room for the answer in the base's context (context-too-long).
        """
        assert all(until), "an empty text ends every answer"
        assert show is None or not until, "what follows a stop text would be shown"
        encoded = list(self.encoder.encode(prompts))
        for one in encoded:
            self._check_length(one, len(one.ids) + max_new_tokens, f" with {max_new_tokens} new tokens")
        if not encoded:
            return []
        writer = self._writer_now()
        if writer is not None:
            with torch.inference_mode(), self._measuring():
                ids = writer.write(
                    encoded, max_new_tokens, self._cache_tokens(), until=until, sampling=sampling, show=show
                )
            self.pace = writer.pace
        else:
            with self._measuring():
                ids = self._by_transformers(encoded, max_new_tokens, until, sampling, show)
            self.pace = None
        return [decoding.written(self.encoder.vocabulary, self._stops, one, until) for one in ids]

    def _writer_now(self) -> Writer | None:
        """Our own decoder where it can compute the model as it is now, else None."""
        if self.engine == "plain" or len(self._stops) > MOST_STOPS:
            return None
        if writing.obstacle_of(self.model, self.loaded) is not None:
            return None
        if self._writer is None or self._writer[0] is not self.model:
            vocabulary = self.encoder.vocabulary
            self._writer = (self.model, Writer(self.model, self.loaded, vocabulary, self._stops))
        return self._writer[1]

    def _by_transformers(
        self,
        encoded: Sequence[Encoded],
        max_new_tokens: int,
        until: Sequence[str],
        sampling: Sampling | None,
        show: Callable[[str], None] | None,
    ) -> list[list[int]]:
        found: list[list[int]] = [[] for _ in encoded]
        rooms = [len(one.ids) + max_new_tokens for one in encoded]
        alone = sampling is not None or show is not None
        groups = ([n] for n in range(len(rooms))) if alone else batches(rooms, self._cache_tokens())
        settings = decoding.settings(self.encoder.vocabulary, self._stops, max_new_tokens, sampling)
        with inferring(self.model, self.loaded), self._only(settings):
            for part in groups:
                produced = self._generate([encoded[n] for n in part], settings, until, sampling, show)
                for n, ids in zip(part, produced, strict=True):
                    found[n] = ids
        return found

    def logits(self, texts: Sequence[Rendered]) -> list[Tensor]:
        """Logits after every token of each text: float32 [tokens, vocabulary], on the CPU."""
        found = []
        with inferring(self.model, self.loaded):
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

    def _scorer(self) -> Scorer | Reference:
        """What computes the model as it is now: the engine, or transformers."""
        # an adapter may have been merged since, or another attached
        fast = self.engine != "plain" and scoring.obstacle_of(self.model, self.loaded) is None
        key = (id(self.model), scoring.adapter_on(self.model), fast)
        if self._made is None or self._made[0] != key:
            # of two, one's weights would lie idle
            self._made = None
            loaded = self.loaded
            made = (
                Scorer(self.model, loaded.architecture, loaded.compute_dtype, adapter=key[1])
                if fast
                else Reference(self.model, loaded, self.encoder.vocabulary.pad_id)
            )
            self._made = (key, made)
        return self._made[1]

    def _generate(
        self,
        part: Sequence[Encoded],
        settings: Any,
        until: Sequence[str],
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
                stopping_criteria=[decoding.StopTexts(self.encoder.vocabulary, until, width)] if until else None,
                streamer=decoding.Stream(self.encoder.vocabulary, self._stops, show) if show else None,
            )
        produced: list[list[int]] = whole[:, width:].tolist()
        return produced

    @contextmanager
    def _measuring(self) -> Iterator[None]:
        """Keeps account of the most memory; the card's own peak counts from here."""
        device = self.loaded.device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        try:
            yield
        finally:
            if device.type == "cuda":
                held = torch.cuda.max_memory_allocated(device)
            else:
                held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
            self.peak_memory = max(self.peak_memory, held)

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
