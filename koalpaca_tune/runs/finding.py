"""What a check found, of a machine (`koalpaca doctor`) or of a run (preflight)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from koalpaca_tune.errors import KoalpacaError, Problem

State = Literal["ok", "note", "bad"]


@dataclass(frozen=True)
class Finding:
    """One check.

    Attributes:
        name: what was looked at, Korean and English.
        state: ok; note: to be known of; bad: not to be run with.
        seen: how it is.
        fix: what to do, where it is not ok.
    """

    name: str
    state: State
    seen: str
    fix: str = ""


def error(findings: Iterable[Finding]) -> KoalpacaError | None:
    """All that is bad as one error, a line each; None where nothing is."""
    problems = [Problem("preflight", f"{one.seen}.", one.name, one.fix) for one in findings if one.state == "bad"]
    return KoalpacaError.of(problems) if problems else None
