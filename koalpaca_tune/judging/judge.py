"""Dialogues judged by a model behind an endpoint, turn by turn (Zheng et al., 2023, arXiv:2306.05685).

A judge that fails, or says no score, leaves None and the reason; never a zero, which is a score. All that was
sent and received is kept with the item, so that a result can be read again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.instructions import language
from koalpaca_tune.judging.endpoint import Client, Message, Reply
from koalpaca_tune.judging.judges import Instructed
from koalpaca_tune.records import Conversation, Turn

_CODE = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n가-힣]+\$|\\\[.{0,2000}?\\\]|\\\(.{0,2000}?\\\)", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Dialogue:
    """What is judged: as many answers as questions; references, where the data set has them, by turn."""

    id: str
    questions: tuple[str, ...]
    answers: tuple[str, ...]
    references: tuple[str | None, ...] = ()


@dataclass(frozen=True)
class Judgement:
    """One question to the judge, and what became of it.

    Attributes:
        turn: which answer was judged, from 1.
        repeat: from 1.
        reply: all that was sent and received.
        given: the score it said.
        score: what counts: `given`, or its square root where the answer is not Korean and the judge's file says so.
        error: why there is none.
    """

    turn: int
    repeat: int
    reply: Reply
    given: float | None
    score: float | None
    error: str | None

    def as_dict(self) -> dict[str, Any]:
        """For the item's line."""
        reply = self.reply
        return {
            "turn": self.turn,
            "repeat": self.repeat,
            "given": self.given,
            "score": self.score,
            "error": self.error,
            "status": reply.status,
            "attempts": reply.attempts,
            "sent": dict(reply.sent),
            "received": reply.received,
        }


@dataclass(frozen=True)
class Judged:
    """One dialogue's judgements, by turn and then by repeat."""

    turns: tuple[tuple[Judgement, ...], ...]

    def scores(self) -> dict[str, float | None]:
        """`score_1`, `score_2`, ... (means over the repeats that gave one), and `score`, their mean.

        `score` is None unless every turn has one: the mean of what is left would be another measure.
        """
        by_turn = [_mean(_given(turn)) for turn in self.turns]
        named: dict[str, float | None] = {f"score_{n}": score for n, score in enumerate(by_turn, 1)}
        every = [score for score in by_turn if score is not None]
        return {**named, "score": _mean(every) if len(every) == len(by_turn) else None}

    def spread(self) -> dict[str, float]:
        """By turn, the largest less the smallest score of the repeats; turns with two scores or more."""
        given = {f"score_{n}": _given(turn) for n, turn in enumerate(self.turns, 1)}
        return {name: max(scores) - min(scores) for name, scores in given.items() if len(scores) > 1}

    def error(self) -> str | None:
        """Why a turn has no score; None where all have."""
        lost = [turn for turn in self.turns if not _given(turn)]
        return "; ".join(f"turn {turn[0].turn}: {turn[-1].error}" for turn in lost) or None

    def fields(self) -> dict[str, Any]:
        """What the item's line holds of it."""
        fields: dict[str, Any] = {"scores": self.scores()}
        error, spread = self.error(), self.spread()
        if error is not None:
            fields["error"] = error
        if spread:
            fields["spread"] = spread
        return {**fields, "judgements": [one.as_dict() for turn in self.turns for one in turn]}


def _given(turn: Sequence[Judgement]) -> list[float]:
    return [one.score for one in turn if one.score is not None]


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


@dataclass(frozen=True)
class Judge:
    """A judge's file, the model that plays it, and how often it is asked about each answer."""

    instructed: Instructed
    client: Client
    repeats: int = 1

    def __post_init__(self) -> None:
        """Checks `repeats`.

        Raises:
            KoalpacaError: it is below 1 (judge-option).
        """
        if self.repeats < 1:
            raise KoalpacaError(
                "judge-option", f"it is {self.repeats}.", where="judge repeats", fix="Give 1 or more."
            )

    @property
    def scale(self) -> tuple[float, float]:
        """The lowest and the highest score that can count."""
        file = self.instructed.file
        lowest = float(file.lowest)
        return (min(lowest, math.sqrt(lowest)) if file.not_korean == "square root" else lowest), float(file.highest)

    def identity(self) -> dict[str, Any]:
        """What must be equal for two judged results to be compared; where the judge is served is none of it."""
        end, file = self.client.endpoint, self.instructed.file
        return {
            "judge": file.name,
            "judge_version": file.version,
            "judge_hash": self.instructed.digest,
            "judge_model": end.model,
            "judge_temperature": end.temperature,
            "judge_max_tokens": end.max_tokens,
            "judge_repeats": self.repeats,
        }

    def check(self, turns: int, where: str) -> None:
        """Refuses a dialogue of another number of turns than the judge's file has.

        Raises:
            KoalpacaError: judge-turns.
        """
        wanted = len(self.instructed.file.turns)
        if turns != wanted:
            raise KoalpacaError(
                "judge-turns",
                f"it has {turns} turns; the judge '{self.instructed.file.name}' judges dialogues of {wanted}.",
                where=where,
                fix="Ask as many questions, or write a judge file of as many turns.",
            )

    def judge(
        self, dialogues: Sequence[Dialogue], done: Callable[[int], None] = lambda count: None
    ) -> list[Judged]:
        """Judges every turn of every dialogue, several at once; results are in the order given.

        Args:
            dialogues: of as many turns as the judge's file has, fully answered.
            done: called with the number of questions asked so far.

        Raises:
            KoalpacaError: a dialogue of another number of turns (judge-turns), before anything is asked.
        """
        wanted = len(self.instructed.file.turns)
        for one in dialogues:
            self.check(len(one.questions), one.id)
            self.check(len(one.answers), one.id)
        keys = [
            (one, turn, repeat) for one in dialogues for turn in range(wanted) for repeat in range(self.repeats)
        ]
        pool = ThreadPoolExecutor(self.client.endpoint.concurrency, thread_name_prefix="judge")
        try:
            waiting = [pool.submit(self._judge, *key) for key in keys]
            found = []
            for count, future in enumerate(waiting, 1):
                found.append(future.result())
                done(count)
        except BaseException:
            self.client.stop()
            raise
        finally:
            # an interrupted run does not ask what is still in the queue
            pool.shutdown(wait=True, cancel_futures=True)
        each = iter(found)
        return [
            Judged(tuple(tuple(next(each) for _ in range(self.repeats)) for _ in range(wanted))) for _ in dialogues
        ]

    def _judge(self, dialogue: Dialogue, turn: int, repeat: int) -> Judgement:
        file = self.instructed.file
        messages: list[Message] = file.messages(turn, dialogue.questions, dialogue.answers, dialogue.references)
        reply = self.client.ask(messages)
        given, error = None, reply.error
        if reply.text is not None:
            try:
                given = file.read(reply.text)
            except ValueError as problem:
                cut = " It was cut by the length limit." if reply.finish == "length" else ""
                error = f"{problem}{cut}"
        score = given
        if given is not None and file.not_korean == "square root" and dialogue.id not in file.not_korean_except:
            score = given if is_korean(dialogue.answers[turn]) else math.sqrt(given)
        return Judgement(turn + 1, repeat + 1, reply, given, score, error)


def is_korean(answer: str) -> bool:
    """Whether an answer is in Korean, for the square root.

    Code and formulas are left out. An answer without letters (a number, only code) is in no language and passes.
    """
    return language.is_korean(_CODE.sub(" ", answer)) is not False


def asked(questions: Sequence[str], answers: Sequence[str]) -> Conversation:
    """The conversation up to the first question without an answer; the model writes that answer next."""
    turns = []
    for question, answer in zip(questions, answers, strict=False):
        turns += [Turn("user", question), Turn("assistant", answer)]
    return Conversation((*turns, Turn("user", questions[len(answers)])))


def summary(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a result says of its judge, from lines with the fields of `Judged.fields`.

    `errors`: items without a score. `failed`: questions to the judge that gave none. `spread`: mean over the turns
    that were judged twice or more. `length_correlation`: Spearman's, of answer length and score over all turns; a
    judge that likes length shows here, and so does a model whose longer answers are better.
    """
    spreads = [spread for line in lines for spread in line.get("spread", {}).values()]
    every = [one for line in lines for one in line["judgements"]]
    return {
        "errors": sum("error" in line for line in lines),
        "judgements": len(every),
        "failed": sum(one["score"] is None for one in every),
        "spread": _mean(spreads),
        "length_correlation": _length_correlation(lines),
    }


def _length_correlation(lines: Sequence[Mapping[str, Any]]) -> float | None:
    pairs = [
        (len(turn["answer"]), score)
        for line in lines
        for n, turn in enumerate(line.get("turns", ()), 1)
        if (score := line["scores"].get(f"score_{n}")) is not None
    ]
    if len(pairs) < 3:
        return None
    from scipy.stats import rankdata

    lengths, scores = (rankdata(values) for values in zip(*pairs, strict=True))
    if lengths.std() == 0 or scores.std() == 0:
        return None
    return float(np.corrcoef(lengths, scores)[0, 1])
