"""Column names: how they are compared, and which of them mean the same.

Names are compared in any case, NFC or NFD, with or without spaces, underscores and hyphens.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache

from koalpaca_tune.data.rows import readable
from koalpaca_tune.errors import KoalpacaError

Names = tuple[str, ...]
Index = Mapping[str, Names]
"""`key` of a name -> the names that have it."""

COMMANDS = ("instruction", "명령어", "명령", "명령문", "지시", "지시문", "지시사항")
QUESTIONS = (
    *("질문", "질의", "문의", "물음", "질문내용", "질의내용", "문의내용", "문의사항", "고객질문", "고객문의"),
    *("question", "query", "prompt", "프롬프트"),
    *COMMANDS,
)
ANSWERS = (
    *("답변", "응답", "대답", "답", "정답", "답변내용", "응답내용", "상담사답변", "상담원답변", "모범답변"),
    *("answer", "response", "completion", "reply"),
)
OUTPUTS = ("output", "출력")
INPUTS = ("input", "입력")
CONTEXTS = ("context", "맥락", "문맥", "지문", "본문", "passage", *INPUTS)
SYSTEMS = ("system", "system_prompt", "시스템", "시스템프롬프트")


@lru_cache(maxsize=4096)
def fold(name: str) -> str:
    """A column name in NFC, small letters, without outer space."""
    return unicodedata.normalize("NFC", name).strip().casefold()


@lru_cache(maxsize=4096)
def key(name: str) -> str:
    """A column name as it is compared: folded, without spaces, underscores and hyphens."""
    return fold(name).translate(_JOINTS)


_JOINTS = str.maketrans("", "", " _-\u00a0")


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of one row (or file) that a shape uses, under the names they have there."""

    system: str | None = None
    question: str = ""
    context: str | None = None
    documents: str | None = None
    answer: str = ""
    rejected: str | None = None
    citations: str | None = None
    messages: str = ""
    text: str = ""
    paragraphs: str = ""
    impossible: str | None = None

    @property
    def used(self) -> tuple[str, ...]:
        """The names, without the empty ones."""
        return tuple(name for name in (getattr(self, field.name) for field in fields(self)) if name)


def index(names: Sequence[str]) -> Index:
    """The names by their keys, so that two spellings of one name are both seen."""
    found: dict[str, Names] = {}
    for name in names:
        found[key(name)] = (*found.get(key(name), ()), name)
    return found


def present(names: Index, known: Sequence[str]) -> list[str]:
    """The names that are among the known ones, in the order of the known ones."""
    return [name for each in known for name in names.get(key(each), ())]


def single(names: Index, known: Sequence[str], meaning: str) -> str | None:
    """The one column with this meaning, or None.

    Raises:
        KoalpacaError: there are several (shape-ambiguous).
    """
    found = present(names, known)
    if len(found) > 1:
        raise ambiguous(meaning, found)
    return found[0] if found else None


def pair(names: Index, families: Sequence[tuple[Sequence[str], Sequence[str]]]) -> tuple[str, str] | None:
    """The one question column and answer column that some family holds, or None.

    Args:
        names: of the file or row.
        families: known questions with the answers that may go with them.

    Raises:
        KoalpacaError: there are several pairs (shape-ambiguous).
    """
    found = [
        (question, answer)
        for questions, answers in families
        for question in present(names, questions)
        for answer in present(names, answers)
    ]
    if len(found) > 1:
        raise ambiguous("question and answer", [f"{question}/{answer}" for question, answer in found])
    return found[0] if found else None


def system(names: Index) -> str | None:
    """The column of the system text.

    Raises:
        KoalpacaError: there are several (shape-ambiguous).
    """
    return single(names, SYSTEMS, "system text")


def context(names: Index, taken: str = "") -> str | None:
    """The column of the context, other than the one that is taken for the question.

    Raises:
        KoalpacaError: there are several (shape-ambiguous).
    """
    return single(names, [name for name in CONTEXTS if key(name) != key(taken)], "context")


def ambiguous(meaning: str, found: Sequence[str]) -> KoalpacaError:
    """The error of several columns with one meaning."""
    return KoalpacaError(
        "shape-ambiguous",
        f"more than one choice for the {meaning}: {', '.join(repr(readable(name)) for name in found)}.",
        fix="Say which are meant with columns (columns: {question: ..., answer: ...}), or remove the others.",
    )
