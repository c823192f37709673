"""The one error type a user sees: where it happened, what is wrong (with the value), what to do.

Every problem carries a short code. The codes are explained, in Korean, in docs/ko/errors.md; a test
compares that page with the codes in this source tree, so a new one cannot stay unexplained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

MOST = 20
"""Problems of one file that are told one by one."""


def shown(text: str) -> str:
    """Text without control characters: they could move the cursor or recolour the screen of who reads it."""
    return text.translate(_CONTROLS)


_CONTROLS = {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\n\t"}
_CONTROLS |= {0x7F: "␡"} | {code: f"\\x{code:02x}" for code in range(0x80, 0xA0)}
_CONTROLS |= {code: f"\\u{code:04x}" for code in (0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))}
_CONTROLS |= {code: f"\\u{code:04x}" for code in range(0xD800, 0xE000)}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing the user can fix. Printed as `where: what fix`, on one line."""

    code: str
    what: str
    where: str = ""
    fix: str = ""

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return shown(" ".join(f"{place}{self.what} {self.fix}".split()))


class KoalpacaError(Exception):
    """A problem (or several of one file) that the user can fix. The CLI prints it and exits with status 2."""

    def __init__(self, code: str, what: str, *, where: str = "", fix: str = "") -> None:
        self.problems: tuple[Problem, ...] = (Problem(code, what, where, fix),)
        super().__init__(str(self.problems[0]))

    @classmethod
    def of(cls, problems: Sequence[Problem]) -> KoalpacaError:
        """All problems of one file at once, in the order given (at least one); of very many, the first `MOST`."""
        first = problems[0]
        if len(problems) > MOST:
            more = Problem(problems[MOST].code, f"... and {len(problems) - MOST:,} more problems.", first.where)
            problems = [*problems[:MOST], more]
        error = cls(first.code, first.what, where=first.where, fix=first.fix)
        error.problems = tuple(problems)
        error.args = ("\n".join(str(problem) for problem in problems),)
        return error


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """`Did you mean 'x'?` if something close is known, else the list of what is known."""
    close = get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"Did you mean '{close[0]}'?"
    return f"Known: {', '.join(known)}." if known else ""
