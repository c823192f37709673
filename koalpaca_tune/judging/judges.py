"""What a judge is told, and how its score is read: reviewed YAML files with a version, in eval/judges."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from koalpaca_tune import patterns, resources
from koalpaca_tune.config import load as config_load
from koalpaca_tune.config.check import Strict, check
from koalpaca_tune.errors import KoalpacaError, did_you_mean

Form = Literal["labelled", "bracketed"]

_FORMS: dict[Form, re.Pattern[str]] = {
    # nothing may follow on the line: `점수: 8~9` is no score
    "labelled": re.compile(
        r"^[ \t*#>-]*점수\s*\**\s*[:：]\s*\**\s*(-?\d+(?:\.\d+)?)\s*(?:점|/\s*(\d+))?\s*\**\s*\.?\s*$", re.M
    ),
    "bracketed": re.compile(r"\[\[\s*(-?\d+(?:\.\d+)?)\s*(?:/\s*(\d+))?\s*\]\]"),
}
"""The number, and what it is out of, where that is said."""


class TurnPrompt(Strict):
    """What the judge is sent after one turn of the dialogue."""

    system: str = Field(min_length=1, description="Its role and its rules.")
    user: str = Field(
        min_length=1,
        description="Pattern with {question_1}, {answer_1}, {reference_1} and, from the second turn, _2.",
    )


class JudgeFile(Strict):
    """A judge."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")] = Field(description="The file's own name.")
    version: int = Field(ge=1, description="Raised when scores may change.")
    title: str = Field(min_length=1, description="Korean name for reports.")
    title_en: str = Field(min_length=1, description="English name for reports.")
    score: Form = Field(description="labelled: a line `점수: 8`; bracketed: `[[8]]`.")
    lowest: int = Field(ge=0, description="Smallest score; a smaller one is no score.")
    highest: int = Field(ge=1, description="Largest score.")
    not_korean: Literal["as it is", "square root"] = Field(
        description="What becomes of the score of an answer that is not in Korean."
    )
    not_korean_except: list[str] = Field(
        default_factory=list, description="Ids of items whose answers need not be Korean."
    )
    reference: str = Field(
        description="Pattern with {reference}: what {reference_1} becomes where an item has one; nothing elsewhere."
    )
    turns: list[TurnPrompt] = Field(min_length=1, description="One for each turn.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.lowest >= self.highest:
            raise ValueError("lowest is not below highest. | Give the range of the scores.")
        if patterns.fields(self.reference) != ["reference"]:
            raise ValueError("the pattern under reference must name {reference}, and nothing else. | Name it.")
        for n, turn in enumerate(self.turns, 1):
            named = patterns.fields(turn.user)
            known = [f"{kind}_{k}" for k in range(1, n + 1) for kind in ("question", "answer", "reference")]
            for name in named:
                if name not in known:
                    raise ValueError(f"turn {n} has no '{{{name}}}'. | {did_you_mean(name, known)}")
            for name in (f"question_{n}", f"answer_{n}"):
                if name not in named:
                    raise ValueError(f"turn {n} does not show {{{name}}}. | The judge must see it.")
        return self

    def messages(
        self, turn: int, questions: Sequence[str], answers: Sequence[str], references: Sequence[str | None]
    ) -> list[dict[str, str]]:
        """What the judge is sent on one turn (from 0) of a dialogue."""
        values: dict[str, str] = {}
        for n in range(turn + 1):
            given = references[n] if n < len(references) else None
            values[f"question_{n + 1}"] = questions[n]
            values[f"answer_{n + 1}"] = answers[n]
            values[f"reference_{n + 1}"] = patterns.fill(self.reference, {"reference": given}) if given else ""
        prompt = self.turns[turn]
        return [
            {"role": "system", "content": prompt.system.strip()},
            {"role": "user", "content": patterns.fill(prompt.user, values).strip()},
        ]

    def read(self, said: str) -> float:
        """The score in a judge's answer.

        Raises:
            ValueError: there is none in the agreed form, there are two that differ, or it is out of range.
        """
        numbers = _FORMS[self.score].findall(said)
        found = {float(number) for number, out_of in numbers if out_of in ("", str(self.highest))}
        if not found:
            raise ValueError("there is no score of the agreed form in its answer.")
        if len(found) > 1:
            raise ValueError(f"it gives {len(found)} different scores.")
        (score,) = found
        if not self.lowest <= score <= self.highest:
            raise ValueError(f"its score {score:g} is not in {self.lowest} to {self.highest}.")
        return score


@dataclass(frozen=True)
class Instructed:
    """A judge file that was read and checked, and the SHA-256 of its text (16 hex digits)."""

    file: JudgeFile
    digest: str


def names() -> list[str]:
    """Names of the shipped judges."""
    return sorted(shipped())


def shipped() -> Mapping[str, Path]:
    """The shipped judge files by name."""
    return {path.stem: path for path in (resources.EVAL / "judges").glob("*.yaml")}


def load(name: str) -> Instructed:
    """A judge by shipped name or by file.

    Raises:
        KoalpacaError: there is none of that name (judge-missing), or problems in the file (config-*).
    """
    own = name.endswith((".yaml", ".yml"))
    path = Path(name) if own else shipped().get(name)
    if path is None or not path.is_file():
        raise KoalpacaError(
            "judge-missing", f"there is no judge '{name}'.", where="judge", fix=did_you_mean(name, names())
        )
    document = config_load.read(path)
    file = check(JudgeFile, document)
    if file.name != path.stem:
        raise KoalpacaError(
            "judge-missing",
            f"'{file.name}' is not the file's name '{path.stem}'.",
            where=document.where(("name",)),
            fix="Make them the same.",
        )
    text = path.read_text(encoding="utf-8-sig")
    return Instructed(file, hashlib.sha256(text.encode()).hexdigest()[:16])
