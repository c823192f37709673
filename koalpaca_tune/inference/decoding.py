"""How an answer is written: the generation settings, and ids back to text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

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


def written(vocabulary: Vocabulary, stops: Sequence[int], produced: Sequence[int]) -> Written:
    """Cuts produced ids at the first stop id. Padding may follow it; a syllable cut by the limit is left out."""
    end = next((n for n, token in enumerate(produced) if token in stops), None)
    text = vocabulary.decode(produced[:end])
    if end is None:
        text = text.rstrip(HALF)
    return Written(text.strip(), end is not None, len(produced[:end]))


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
