"""How an answer is written: the generation settings, and ids back to text."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import transformers
from transformers.generation.streamers import BaseStreamer

from koalpaca_tune.tokens.vocabulary import Vocabulary

HALF = "\ufffd"
"""What a tokenizer decodes a syllable to whose last bytes are not there yet."""


class Sampling(NamedTuple):
    """Random choice among the next tokens, in place of the likeliest one.

    Attributes:
        temperature: logits are divided by it; above 0.
        top_p: only the likeliest tokens that together reach this probability, in (0, 1].
        seed: each prompt begins at this seed, so its answer does not depend on the other prompts.
    """

    temperature: float = 0.7
    top_p: float = 0.9
    seed: int = 42


class Written(NamedTuple):
    """An answer.

    Attributes:
        text: what was written before the stop token, stripped as templates strip answers.
        stopped: whether a stop token ended it, not the limit.
        tokens: how many tokens that text took, the stop token not counted.
    """

    text: str
    stopped: bool
    tokens: int


def settings(vocabulary: Vocabulary, stops: Sequence[int], max_new_tokens: int, sampling: Sampling | None) -> Any:
    """A complete transformers.GenerationConfig; nothing in it is left to the base's own generation_config."""
    choice: dict[str, Any] = {"do_sample": False}
    if sampling is not None:
        # top_k has a default of 50 in transformers; 0 turns it off, so that top_p alone decides
        choice = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
    return transformers.GenerationConfig(
        max_new_tokens=max_new_tokens,
        use_cache=True,
        eos_token_id=list(stops),
        pad_token_id=vocabulary.pad_id,
        bos_token_id=vocabulary.id(vocabulary.bos) if vocabulary.bos else None,
        **choice,
    )


def written(
    vocabulary: Vocabulary, stops: Sequence[int], produced: Sequence[int], until: Sequence[str] = ()
) -> Written:
    """Cuts produced ids at the first stop id or text. Padding may follow; a syllable cut by the limit is left out.

    Args:
        vocabulary: turns ids into text.
        stops: ids that end an answer.
        produced: what the model wrote.
        until: texts that end an answer, and are no part of it.
    """
    end = next((n for n, token in enumerate(produced) if token in stops), None)
    ids = produced[:end]
    text = vocabulary.decode(ids)
    cut = first_of(text, until)
    if cut is not None:
        kept = bisect_left(range(len(ids)), cut, key=lambda n: len(vocabulary.decode(ids[:n]).rstrip(HALF)))
        return Written(text[:cut].strip(), True, kept)
    if end is None:
        text = text.rstrip(HALF)
    return Written(text.strip(), end is not None, len(ids))


def first_of(text: str, until: Sequence[str]) -> int | None:
    """Where the first of some texts begins in a text."""
    found = [at for at in map(text.find, until) if at >= 0]
    return min(found) if found else None


class StopTexts(transformers.StoppingCriteria):  # type: ignore[misc]  # transformers has no types
    """Ends each row of a batch once its answer holds one of some texts; the others go on."""

    def __init__(self, vocabulary: Vocabulary, until: Sequence[str], width: int) -> None:
        """`width`: tokens of the prompts."""
        self._vocabulary = vocabulary
        self._until = until
        self._width = width
        # a token has at least a byte; the text before a cut may begin in the middle of a syllable
        self._window = max(len(text.encode()) for text in until) + 8
        self._done: list[bool] = []

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        """bool [rows]: which are over."""
        rows = input_ids[:, max(self._width, input_ids.shape[1] - self._window) :].tolist()
        self._done = self._done or [False] * len(rows)
        for n, ids in enumerate(rows):
            if not self._done[n] and self._found(ids):
                self._done[n] = self._found(input_ids[n, self._width :].tolist())
        return torch.tensor(self._done, device=input_ids.device)

    def seen(self, ids: Sequence[int]) -> bool:
        """Whether an answer holds one of the texts, its last token being new."""
        return self._found(ids[-self._window :]) and self._found(ids)

    def _found(self, ids: Sequence[int]) -> bool:
        return first_of(self._vocabulary.decode(ids), self._until) is not None


class Stream(BaseStreamer):  # type: ignore[misc]  # transformers has no types
    """Passes on the text of one answer as it is written, in whole syllables.

    A Hangul syllable may take several byte tokens; text that still ends in the middle of one waits
    (transformers PR 22664 is the same trouble).
    """

    def __init__(self, vocabulary: Vocabulary, stops: Sequence[int], show: Callable[[str], None]) -> None:
        self._vocabulary = vocabulary
        self._stops = stops
        self._show = show
        self._ids: list[int] = []
        self._shown = 0
        self._prompt = True

    def put(self, value: Any) -> None:
        """Takes the next ids, an int64 tensor; the first call brings the prompt, which is not shown."""
        if self._prompt:
            self._prompt = False
            return
        self._ids += [token for token in value.flatten().tolist() if token not in self._stops]
        # a space at the start belongs to the template, one at the end may be followed by nothing
        text = self._vocabulary.decode(self._ids).lstrip()
        if not text.endswith(HALF):
            self._pass(text.rstrip())

    def end(self) -> None:
        """The answer is over; half a syllable is left out."""
        self._pass(self._vocabulary.decode(self._ids).lstrip().rstrip(HALF).rstrip())

    def _pass(self, text: str) -> None:
        if len(text) > self._shown:
            self._show(text[self._shown :])
            self._shown = len(text)
