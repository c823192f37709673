"""How tokenizers cut a set of conversations: tokens per character and word, cut syllables, lengths, mistakes.

The users' texts (each turn's own text and context) are encoded alone, special tokens as plain text: what one
tokenizer costs against another. Lengths are those of training: rendered with the template, as `Encoder` does.
Everything is counted as it streams by; what is kept grows with the vocabularies, not with the set.
"""

from __future__ import annotations

import heapq
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.records import NOT_LEARNED, Conversation, Encoded
from koalpaca_tune.tokens.encode import Encoder
from koalpaca_tune.tokens.findings import Finding, finding, of_tokenizer
from koalpaca_tune.tokens.pieces import pieces
from koalpaca_tune.tokens.vocabulary import Vocabulary

CHUNK = 512
CHUNK_CHARACTERS = 1 << 18
"""Records that are encoded at once, and how much text at most (but one record): that bounds the memory."""

WORST = 5
"""Longest records that are shown."""

DECOMPOSED = 100_000
"""Characters of the first texts that are encoded in NFD as well; the last text is finished."""

_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Long:
    """One of the longest records.

    Attributes:
        tokens, learned: with the template; `learned` is what the loss counts.
        lost: learned tokens beyond `max_length`.
        tail: the text beyond `max_length`, shortened; empty when the record fits.
    """

    origin: str
    tokens: int
    learned: int
    lost: int
    tail: str


@dataclass(frozen=True, slots=True)
class Lengths:
    """Lengths in tokens of the rendered records, against `max_length`.

    Attributes:
        counts: length -> records, by length.
        learned: tokens that the loss counts, of all records.
        too_long: records longer than `max_length`.
        lost_by_drop, lost_by_cut: learned tokens lost with `too_long: drop` and with `too_long: cut`.
        emptied: records that a cut leaves with nothing to learn.
        longest: the longest records, longest first.
    """

    counts: dict[int, int]
    learned: int
    too_long: int
    lost_by_drop: int
    lost_by_cut: int
    emptied: int
    longest: tuple[Long, ...]

    def at(self, share: float) -> int:
        """The length that this share of the records does not exceed (nearest rank)."""
        left = share * sum(self.counts.values())
        for length, count in self.counts.items():
            left -= count
            if left <= 1e-9:
                return length
        return max(self.counts)


@dataclass(frozen=True, slots=True)
class Survey:
    """One tokenizer on the set.

    Attributes:
        name: of the tokenizer.
        entries, used: entries of the vocabulary, and those that occurred.
        tokens: of the users' texts.
        unknown: tokens that stand for "unknown".
        partial: tokens that are not whole characters: pieces of a byte-level BPE that cut one, and
            SentencePiece's `<0xNN>`.
        split: Hangul syllables that lie in more than one token.
        decomposed: tokens of the first texts in NFD, as a multiple of their tokens as they are.
        lengths: None when the template does not fit the tokenizer; a finding says why.
    """

    name: str
    entries: int
    used: int
    tokens: int
    unknown: int
    partial: int
    split: int
    decomposed: float
    lengths: Lengths | None
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """Several tokenizers on one set.

    Attributes:
        records: conversations.
        characters, words, syllables: of the users' texts: code points, stretches between white space
            (어절), Hangul syllables.
        template, max_length: as given.
        unread: rows that could not be read, and the first one's origin and problem.
    """

    records: int
    characters: int
    words: int
    syllables: int
    template: str
    max_length: int
    surveys: tuple[Survey, ...]
    unread: int = 0
    unread_first: str = ""


def survey(
    conversations: Iterable[Conversation],
    vocabularies: Sequence[Vocabulary],
    template: str,
    max_length: int,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Reads the conversations once and measures every tokenizer on them.

    Args:
        template: name of the template; 'tokenizer' is each tokenizer's own.
        max_length: in tokens.
        progress: called with the records done so far.

    Raises:
        KoalpacaError: no such template (template-unknown). One that does not fit a tokenizer is a finding.
    """
    counters = [_Counter(vocabulary, template, max_length) for vocabulary in vocabularies]
    records = characters = words = syllables = 0
    for chunk, texts in _chunks(conversations):
        flat = [text for some in texts for text in some]
        characters += sum(map(len, flat))
        words += sum(len(text.split()) for text in flat)
        syllables += _syllables(flat)
        for counter in counters:
            counter.add(chunk, texts)
        records += len(chunk)
        if progress:
            progress(records)
    return Report(
        records, characters, words, syllables, template, max_length, tuple(one.finish() for one in counters)
    )


def _chunks(conversations: Iterable[Conversation]) -> Iterator[tuple[list[Conversation], list[list[str]]]]:
    """Conversations with their texts, some at a time."""
    chunk: list[Conversation] = []
    texts: list[list[str]] = []
    characters = 0
    for conversation in conversations:
        some = _texts(conversation)
        length = sum(map(len, some))
        if chunk and (len(chunk) == CHUNK or characters + length > CHUNK_CHARACTERS):
            yield chunk, texts
            chunk, texts, characters = [], [], 0
        chunk.append(conversation)
        texts.append(some)
        characters += length
    if chunk:
        yield chunk, texts


def _texts(conversation: Conversation) -> list[str]:
    """The users' texts as templates put them in: without outer space, no empty ones."""
    parts = (part for turn in conversation.turns for part in (turn.content, turn.context or ""))
    return [text for part in parts if (text := part.strip())]


def _syllables(texts: Sequence[str]) -> int:
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32)
    return int(np.count_nonzero((codes >= ord("가")) & (codes <= ord("힣"))))


@dataclass(slots=True)
class _Seen:
    """How many records show something, with the first few."""

    records: int = 0
    where: list[str] = field(default_factory=list)

    def add(self, where: str) -> None:
        self.records += 1
        if len(self.where) < _EXAMPLES:
            self.where.append(where)


class _Counter:
    """Counts of one tokenizer."""

    def __init__(self, vocabulary: Vocabulary, template: str, max_length: int) -> None:
        self.vocabulary = vocabulary
        self.max_length = max_length
        self.findings = of_tokenizer(vocabulary)
        self.pieces = pieces(vocabulary.backend)
        self.occurred = np.zeros(len(self.pieces.partial), np.int64)
        self.records = self.sampled = self.as_is = self.decomposed = 0
        self.seen = {code: _Seen() for code in ("bos-doubled", "answer-endless", "round-trip", "special-in-text")}
        self.lengths: Counter[int] = Counter()
        self.learned = self.too_long = self.lost_by_drop = self.lost_by_cut = self.emptied = 0
        # (tokens, -order, record): the shortest of the longest first; order settles ties, so records never compare
        self.longest: list[tuple[int, int, Long]] = []
        self.encoder: Encoder | None = None
        self.stops: frozenset[int] = frozenset()
        try:
            chosen = vocabulary.template(template)
            self.encoder = Encoder(vocabulary, chosen)
            self.stops = frozenset(vocabulary.stop_ids(chosen))
        except KoalpacaError as error:
            self._give_up(error)

    def add(self, chunk: Sequence[Conversation], texts: Sequence[Sequence[str]]) -> None:
        self._add_texts(chunk, texts)
        self._find_spelt(chunk, texts)
        if self.encoder is not None:
            self._add_rendered(self.encoder, chunk)
        self.records += len(chunk)

    def _add_texts(self, chunk: Sequence[Conversation], texts: Sequence[Sequence[str]]) -> None:
        flat = [text for some in texts for text in some]
        ids = self._ids(flat)
        if any(ids):
            together = np.concatenate([np.asarray(one, np.int64) for one in ids])
            self.occurred += np.bincount(together, minlength=len(self.occurred))
        back = iter(self.vocabulary.literal.decode_batch(ids, skip_special_tokens=False))
        for conversation, some in zip(chunk, texts, strict=True):
            changes = [change for text in some if (change := _change(text, next(back)))]
            if changes:
                self.seen["round-trip"].add(f"{conversation.origin} ({changes[0]})")
        sample = []
        for text in flat:
            if self.sampled >= DECOMPOSED:
                break
            sample.append(text)
            self.sampled += len(text)
        if sample:
            self.as_is += sum(map(len, ids[: len(sample)]))
            self.decomposed += sum(map(len, self._ids([unicodedata.normalize("NFD", text) for text in sample])))

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        encoded = self.vocabulary.literal.encode_batch_fast(list(texts), add_special_tokens=False)
        return [one.ids for one in encoded]

    def _find_spelt(self, chunk: Sequence[Conversation], texts: Sequence[Sequence[str]]) -> None:
        together = "\0".join(text for some in texts for text in some)
        found = [token for token in self.vocabulary.specials if token in together]
        if not found:
            return
        for conversation, some in zip(chunk, texts, strict=True):
            spelt = [token for token in found if any(token in text for text in some)]
            if spelt:
                self.seen["special-in-text"].add(f"{conversation.origin} ({', '.join(spelt)})")

    def _add_rendered(self, encoder: Encoder, chunk: Sequence[Conversation]) -> None:
        try:
            encoded = list(encoder.conversations(chunk))
        except KoalpacaError as error:
            self._give_up(error)
            return
        bos = self.vocabulary.backend.token_to_id(self.vocabulary.bos) if self.vocabulary.bos else None
        for n, (conversation, one) in enumerate(zip(chunk, encoded, strict=True)):
            self._add_length(self.records + n, one)
            if bos is not None and one.ids[:2] == (bos, bos):
                self.seen["bos-doubled"].add(one.origin)
            if conversation.turns[-1].role == "assistant" and _last_learned(one) not in self.stops:
                self.seen["answer-endless"].add(one.origin)

    def _add_length(self, order: int, one: Encoded) -> None:
        tokens = len(one.ids)
        learned = tokens - one.labels.count(NOT_LEARNED)
        lost = 0
        self.lengths[tokens] += 1
        self.learned += learned
        if tokens > self.max_length:
            beyond = one.labels[self.max_length :]
            lost = len(beyond) - beyond.count(NOT_LEARNED)
            self.too_long += 1
            self.lost_by_drop += learned
            self.lost_by_cut += lost
            self.emptied += lost == learned
        if len(self.longest) < WORST or (tokens, -order) > self.longest[0][:2]:
            tail = self.vocabulary.backend.decode(list(one.ids[self.max_length :]), skip_special_tokens=False)
            entry = (tokens, -order, Long(one.origin, tokens, learned, lost, _shortened(tail)))
            (heapq.heappush if len(self.longest) < WORST else heapq.heappushpop)(self.longest, entry)

    def _give_up(self, error: KoalpacaError) -> None:
        """The template cannot be used with this tokenizer: training would stop here too."""
        problem = error.problems[0]
        if problem.code == "template-unknown":
            raise error
        self.encoder = None
        ko = f"템플릿을 이 토크나이저와 쓸 수 없어 길이를 재지 않았습니다({problem.code})."
        en = f"The template cannot be used: {problem.what}"
        where = (problem.where,) if problem.where not in ("", "template") else ()
        self.findings.append(Finding(problem.code, True, ko, en, None, where))

    def finish(self) -> Survey:
        return Survey(
            name=self.vocabulary.name,
            entries=int(self.vocabulary.backend.get_vocab_size(with_added_tokens=True)),
            used=int(np.count_nonzero(self.occurred)),
            tokens=int(self.occurred.sum()),
            unknown=int(self.occurred[self.pieces.unknown].sum()),
            partial=int(self.occurred[self.pieces.partial].sum()),
            split=int(self.occurred[self.pieces.opens].sum()),
            decomposed=self.decomposed / self.as_is if self.as_is else 1.0,
            lengths=self._lengths() if self.encoder is not None and self.lengths else None,
            findings=tuple(sorted([*self.findings, *self._counted()], key=lambda one: not one.mistake)),
        )

    def _lengths(self) -> Lengths:
        return Lengths(
            counts=dict(sorted(self.lengths.items())),
            learned=self.learned,
            too_long=self.too_long,
            lost_by_drop=self.lost_by_drop,
            lost_by_cut=self.lost_by_cut,
            emptied=self.emptied,
            longest=tuple(long for _, _, long in sorted(self.longest, reverse=True)),
        )

    def _counted(self) -> Iterable[Finding]:
        for code, seen in self.seen.items():
            if seen.records:
                yield finding(code, records=seen.records, where=tuple(seen.where))


def _last_learned(one: Encoded) -> int | None:
    return next((label for label in reversed(one.labels) if label != NOT_LEARNED), None)


def _change(text: str, back: str) -> str:
    """Where a text and what came back differ first, or ""."""
    if text == back:
        return ""
    at = next((n for n, (one, other) in enumerate(zip(text, back, strict=False)) if one != other), None)
    start = max(0, (min(len(text), len(back)) if at is None else at) - 4)
    return f"{text[start : start + 10]!r} -> {back[start : start + 10]!r}"


def _shortened(text: str) -> str:
    return text if len(text) <= 160 else f"{text[:100]} … {text[-50:]}"
