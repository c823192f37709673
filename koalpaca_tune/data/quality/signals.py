"""What is measured on a conversation: cheap signals for all, then Kiwi once a batch for what they left open."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from koalpaca_tune import korean
from koalpaca_tune.data.quality import particles, repeats, scripts, speech, translation, truncation
from koalpaca_tune.data.quality.particles import Candidate, Wrong
from koalpaca_tune.data.quality.speech import Ending, Spoken
from koalpaca_tune.data.quality.truncation import Tail
from koalpaca_tune.korean import Analysis, SpeechLevel
from koalpaca_tune.records import Conversation, Turn

Value = float | int | bool | str | None


@dataclass(frozen=True, slots=True)
class Signal:
    """How a signal is shown.

    Attributes:
        korean, english: its name for people.
        kind: `characters` and `count` are whole numbers, `share` is 0..1, `ratio` any number, `flag` true or
            false, `level` a speech level. A share or level may be None: nothing to measure.
    """

    korean: str
    english: str
    kind: Literal["characters", "count", "share", "ratio", "flag", "level"]


SIGNALS: dict[str, Signal] = {
    "question-chars": Signal("질문 길이", "question length", "characters"),
    "answer-chars": Signal("가장 긴 답변 길이", "longest answer", "characters"),
    "shortest-answer-chars": Signal("가장 짧은 답변 길이", "shortest answer", "characters"),
    "length-ratio": Signal("질문에 대한 답변 길이의 비", "answer length over question length", "ratio"),
    "empty": Signal("빈 답변", "empty answer", "flag"),
    "question-hangul": Signal("질문의 한글 비율", "Hangul in the question", "share"),
    "hangul": Signal("답변의 한글 비율", "Hangul in the answer", "share"),
    "garbled": Signal("깨진 글자", "garbled characters", "count"),
    "broken-jamo": Signal("단어 속 낱자모", "stray jamo inside words", "count"),
    "rare-syllables": Signal("드문 음절", "rare syllables", "count"),
    "hanja": Signal("섞여 든 한자", "leaked Hanja", "count"),
    "foreign-hanja": Signal("한국에서 쓰지 않는 한자", "Chinese or Japanese characters", "count"),
    "kana": Signal("섞여 든 가나", "leaked kana", "count"),
    "other-scripts": Signal("섞여 든 다른 문자", "letters of other scripts", "count"),
    "repetition": Signal("글자 반복", "repetition", "share"),
    "repeated-sentences": Signal("되풀이한 문장", "repeated sentences", "share"),
    "echo": Signal("질문을 되풀이한 정도", "likeness to the question", "share"),
    "truncated": Signal("끊긴 답변", "truncated answer", "flag"),
    "question-speech": Signal("질문의 말투", "speech level of the question", "level"),
    "speech": Signal("답변의 말투", "speech level of the answer", "level"),
    "mixed-speech": Signal("존댓말과 반말이 섞임", "polite and plain mixed", "flag"),
    "particle-errors": Signal("조사 오류", "particle errors", "count"),
    "english-share": Signal("한국어 답변의 로마자 비율", "Latin letters in a Korean answer", "share"),
    "english-words": Signal("번역되지 않은 영어", "untranslated English words", "count"),
    "wrong-language": Signal("질문과 다른 언어", "another language than asked", "flag"),
    "literal-phrases": Signal("번역투", "literal translation", "count"),
    "placeholders": Signal("남은 형식 표시", "remains of a prompt format", "count"),
    "refusal": Signal("거절하거나 AI로서 한 답변", "refusal or AI talk", "flag"),
    "missing-input": Signal("빠진 자료", "missing material", "flag"),
    "lost-numbers": Signal("사라진 숫자", "lost numbers", "share"),
    "new-numbers": Signal("자료에 없는 숫자", "numbers not in the input", "share"),
    "lost-code": Signal("사라진 코드", "lost code blocks", "count"),
}
"""Every signal, in the order of the report."""


@dataclass(frozen=True, slots=True)
class Signals:
    """What was measured on one conversation.

    Several questions or answers: counts add up, of shares and flags the worst stands, of lengths the shortest
    question and the longest answer.

    Attributes:
        values: signal -> value, for all of SIGNALS; plain JSON values.
        examples: signal -> the words that set it off, short.
        levels: of each user and assistant turn in order; None when undecided.
        spoken: all levels of the answers' sentences.
    """

    values: Mapping[str, Value]
    examples: Mapping[str, str]
    levels: tuple[SpeechLevel | None, ...]
    spoken: frozenset[SpeechLevel]

    @property
    def answer_level(self) -> SpeechLevel | None:
        """The level that all answers share; None when none is decided, or answers differ."""
        return next((level for level in korean.SPEECH_LEVELS if level == self.values["speech"]), None)


def measure(conversations: Sequence[Conversation]) -> list[Signals]:
    """Measures a batch; the values do not depend on what else is in the batch."""
    drafts = [_Draft(conversation) for conversation in conversations]
    asked = list(dict.fromkeys(text for draft in drafts for text in draft.asked()))
    book = dict(zip(asked, korean.analyse(asked), strict=True))
    return [draft.finish(book) for draft in drafts]


_NOTHING: dict[str, Any] = {
    name: {"characters": 0, "count": 0, "share": 0.0, "ratio": 0.0, "flag": False, "level": None}[signal.kind]
    for name, signal in SIGNALS.items()
} | {"hangul": None, "question-hangul": None}

_EMPTY = re.compile(r"[\s.…·,~_\-–—*/\\|]*")
_EXAMPLE_CHARS = 80
_EXAMPLES = 4


@dataclass(frozen=True, slots=True)
class _Spoken:
    """A turn's sentence endings, before Kiwi."""

    answer: bool
    endings: list[Ending]


@dataclass(frozen=True, slots=True)
class _Open:
    """What only Kiwi can settle about an answer, and particle errors known without it."""

    candidates: list[Candidate]
    wrong: list[Wrong]
    tail: Tail


class _Draft:
    """One conversation while Kiwi has not been asked yet."""

    __slots__ = ("_answers", "_examples", "_turns", "_values")

    def __init__(self, conversation: Conversation) -> None:
        self._values = dict(_NOTHING)
        self._examples: dict[str, str] = {}
        self._turns: list[_Spoken] = []
        self._answers: list[_Open] = []
        question: Turn | None = None
        for turn in conversation.turns:
            if turn.role == "system":
                continue
            content = _nfc(turn.content)
            self._turns.append(_Spoken(turn.role == "assistant", speech.endings(content)))
            if turn.role == "user":
                earlier, question = question, Turn("user", content, _nfc(turn.context) if turn.context else None)
                self._question(question, first=earlier is None)
            elif question is not None:
                self._answer(question, content)

    def _question(self, turn: Turn, *, first: bool) -> None:
        values = self._values
        length = len(turn.content)
        values["question-chars"] = length if first else min(values["question-chars"], length)
        values["question-hangul"] = _least(values["question-hangul"], korean.hangul_share(turn.content))
        if translation.missing_input(turn, answered_before=not first):
            self._flag("missing-input", turn.content)
        self._count("garbled", scripts.strange(turn.content, "").garbled)
        self._count("placeholders", translation.placeholders(turn.content))
        if turn.context is not None:
            self._count("placeholders", translation.placeholders(turn.context))

    def _answer(self, turn: Turn, answer: str) -> None:
        values = self._values
        asked = f"{turn.content}\n{turn.context}" if turn.context else turn.content
        values["answer-chars"] = max(values["answer-chars"], len(answer))
        first = not self._answers
        values["shortest-answer-chars"] = (
            len(answer) if first else min(values["shortest-answer-chars"], len(answer))
        )
        values["length-ratio"] = max(values["length-ratio"], len(answer) / max(1, len(asked)))
        share = korean.hangul_share(answer)
        values["hangul"] = _least(values["hangul"], share)
        if _EMPTY.fullmatch(answer):
            self._flag("empty", answer)
        self._characters(asked, answer)
        self._most("repetition", repeats.loop(answer), "")
        self._most("repeated-sentences", *repeats.repeated_sentences(answer))
        self._most("echo", repeats.echo(turn.content, answer), "")
        self._translation(turn, asked, answer, share)
        self._answers.append(
            _Open(particles.candidates(answer), particles.after_other(answer), truncation.tail(answer))
        )

    def _characters(self, asked: str, answer: str) -> None:
        found = scripts.strange(answer, asked)
        if found is scripts.NOTHING:
            return
        self._count("garbled", found.garbled)
        self._count("broken-jamo", found.broken_jamo)
        self._count("rare-syllables", found.rare_syllables)
        for name, runs in (
            ("hanja", found.hanja),
            ("foreign-hanja", found.foreign_hanja),
            ("kana", found.kana),
            ("other-scripts", found.other_scripts),
        ):
            self._count(name, runs, sum(map(len, runs)))

    def _translation(self, turn: Turn, asked: str, answer: str, share: float | None) -> None:
        english = translation.english(asked, answer)
        if english.share:
            self._most("english-share", english.share, "")
            self._most("english-words", english.words, english.run)
        if translation.wrong_language(asked, answer, korean.hangul_share(asked), share):
            self._flag("wrong-language", answer)
        self._count("literal-phrases", translation.literal_phrases(answer))
        self._count("placeholders", translation.placeholders(answer))
        if declined := translation.refusal(answer):
            self._flag("refusal", declined)
        kept = translation.kept(turn, answer)
        if kept is not translation.ALL_KEPT:
            self._most("lost-numbers", kept.lost_numbers, ", ".join(kept.lost))
            self._most("new-numbers", kept.new_numbers, ", ".join(kept.new))
            self._values["lost-code"] += kept.lost_code

    def asked(self) -> Iterator[str]:
        """Texts whose reading `finish` looks up."""
        for turn in self._turns:
            yield from speech.queries(turn.endings)
        for answer in self._answers:
            yield from particles.queries(answer.candidates)
            if answer.tail.asked:
                yield answer.tail.asked

    def finish(self, book: Mapping[str, Analysis]) -> Signals:
        """Adds what Kiwi tells."""
        for answer in self._answers:
            wrong = [*answer.wrong, *particles.judge(answer.candidates, book)]
            self._count("particle-errors", [f"{one.written} → {one.fitting}" for one in wrong])
            if cut := truncation.truncated(answer.tail, book):
                self._flag("truncated", cut)
        spoken = [speech.spoken(turn.endings, book) for turn in self._turns]
        for turn, said in zip(self._turns, spoken, strict=True):
            if turn.answer and said.mixed:
                self._flag("mixed-speech", " / ".join(said.mixed))
        answers = [said for turn, said in zip(self._turns, spoken, strict=True) if turn.answer]
        questions = [said for turn, said in zip(self._turns, spoken, strict=True) if not turn.answer]
        self._values["speech"] = _common(answers)
        self._values["question-speech"] = _common(questions)
        return Signals(
            self._values,
            self._examples,
            tuple(said.level for said in spoken),
            frozenset(level for said in answers for level in said.levels),
        )

    def _flag(self, name: str, example: str) -> None:
        self._values[name] = True
        self._example(name, example)

    def _count(self, name: str, found: Sequence[str], count: int | None = None) -> None:
        if found:
            self._values[name] += len(found) if count is None else count
            self._example(name, ", ".join(found[:_EXAMPLES]))

    def _most(self, name: str, value: float, example: str) -> None:
        if value > self._values[name]:
            self._values[name] = value
            if example:
                self._examples[name] = example[:_EXAMPLE_CHARS]

    def _example(self, name: str, example: str) -> None:
        self._examples.setdefault(name, example[:_EXAMPLE_CHARS])


def _common(spoken: Sequence[Spoken]) -> SpeechLevel | None:
    """The level of turns that all have the same, undecided ones aside."""
    levels = {said.level for said in spoken if said.level is not None}
    return levels.pop() if len(levels) == 1 else None


def _least(one: float | None, other: float | None) -> float | None:
    return other if one is None else one if other is None else min(one, other)


def _nfc(text: str) -> str:
    return text if unicodedata.is_normalized("NFC", text) else unicodedata.normalize("NFC", text)
