"""What is measured on a conversation: by cheap signals, and by Kiwi where they leave something open."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from koalpaca_tune import korean
from koalpaca_tune.data.quality import particles, repeats, scripts, speech, translation, truncation
from koalpaca_tune.data.quality.particles import Candidate, Wrong
from koalpaca_tune.data.quality.speech import Ending, Spoken
from koalpaca_tune.data.quality.truncation import Tail
from koalpaca_tune.korean import SpeechLevel
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
    measured = [_Measured(conversation) for conversation in conversations]
    # Kiwi's questions one after the other, and those that end alike: then what it knows of them is still in
    # the processor's cache, which takes two thirds of the time
    asked = {question for one in measured for question in one.asked()}
    for ask, text in sorted(asked, key=lambda question: question[1][::-1]):
        ask(text)
    return [one.signals() for one in measured]


Ask = Callable[[str], object]
"""A question to Kiwi; the answer is remembered where it was asked."""


_NOTHING: dict[str, Any] = {
    name: {"characters": 0, "count": 0, "share": 0.0, "ratio": 0.0, "flag": False, "level": None}[signal.kind]
    for name, signal in SIGNALS.items()
} | {"hangul": None, "question-hangul": None}

_EMPTY = re.compile(r"[\s.…·,~_\-–—*/\\|]*")
_EXAMPLE_CHARS = 80
_EXAMPLES = 4


class _Measured:
    """One conversation's values as they add up."""

    __slots__ = ("_answers", "_asked_share", "_examples", "_turns", "_values")

    def __init__(self, conversation: Conversation) -> None:
        self._values = dict(_NOTHING)
        self._examples: dict[str, str] = {}
        self._turns: list[tuple[bool, list[Ending]]] = []
        self._answers: list[tuple[list[Wrong], list[Candidate], Tail]] = []
        self._asked_share: float | None = None
        question: Turn | None = None
        for turn in conversation.turns:
            if turn.role == "system":
                continue
            content = _nfc(turn.content)
            self._turns.append((turn.role == "assistant", speech.endings(content)))
            if turn.role == "user":
                first, question = question is None, _composed(turn, content)
                self._question(question, first=first)
            elif question is not None:
                self._answer(question, content)

    def asked(self) -> Iterator[tuple[Ask, str]]:
        """What Kiwi will be asked for `signals`."""
        for _, endings in self._turns:
            for ending in endings:
                if ending.asked:
                    yield speech.read, ending.tail
        for _, candidates, tail in self._answers:
            for candidate in candidates:
                yield particles.read, candidate.changed
            if tail.asked:
                yield truncation.read, tail.asked

    def signals(self) -> Signals:
        """The whole, with what Kiwi may have to tell."""
        for known, candidates, tail in self._answers:
            if wrong := known + particles.judge(candidates) if candidates else known:
                self._count("particle-errors", [f"{one.written} → {one.fitting}" for one in wrong])
            if cut := truncation.truncated(tail):
                self._flag("truncated", cut)
        levels: list[SpeechLevel | None] = []
        questions: list[Spoken] = []
        answers: list[Spoken] = []
        for is_answer, endings in self._turns:
            spoken = speech.spoken(endings)
            levels.append(spoken.level)
            (answers if is_answer else questions).append(spoken)
            if is_answer and spoken.mixed:
                self._flag("mixed-speech", " / ".join(spoken.mixed))
        self._values["speech"] = _common(answers)
        self._values["question-speech"] = _common(questions)
        return Signals(
            self._values,
            self._examples,
            tuple(levels),
            frozenset().union(*(spoken.levels for spoken in answers)),
        )

    def _question(self, turn: Turn, *, first: bool) -> None:
        values = self._values
        length = len(turn.content)
        values["question-chars"] = length if first else min(values["question-chars"], length)
        self._asked_share = korean.hangul_share(turn.content)
        values["question-hangul"] = _least(values["question-hangul"], self._asked_share)
        if translation.missing_input(turn, answered_before=not first):
            self._flag("missing-input", turn.content)
        self._count("garbled", scripts.strange(turn.content, "").garbled)
        self._count("literal-phrases", translation.odd_one_out(turn))
        self._count("placeholders", translation.placeholders(turn.content))
        if turn.context is not None:
            self._count("placeholders", translation.placeholders(turn.context))

    def _answer(self, turn: Turn, answer: str) -> None:
        values = self._values
        asked = f"{turn.content}\n{turn.context}" if turn.context else turn.content
        values["answer-chars"] = max(values["answer-chars"], len(answer))
        values["shortest-answer-chars"] = (
            min(values["shortest-answer-chars"], len(answer)) if self._answers else len(answer)
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
        self._answers.append((particles.after_other(answer), particles.candidates(answer), truncation.tail(answer)))

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
        asked_share = korean.hangul_share(asked) if turn.context else self._asked_share
        if translation.wrong_language(asked, answer, asked_share, share):
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
    if len(spoken) == 1:
        return spoken[0].level
    levels = {said.level for said in spoken if said.level is not None}
    return levels.pop() if len(levels) == 1 else None


def _least(one: float | None, other: float | None) -> float | None:
    return other if one is None else one if other is None else min(one, other)


def _composed(turn: Turn, content: str) -> Turn:
    """A question in NFC."""
    context = _nfc(turn.context) if turn.context else None
    return turn if content is turn.content and context is turn.context else Turn("user", content, context)


def _nfc(text: str) -> str:
    return text if unicodedata.is_normalized("NFC", text) else unicodedata.normalize("NFC", text)
