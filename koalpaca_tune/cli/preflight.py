"""The preflight on the terminal: one line for each check, and the first batch with its learned tokens coloured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from koalpaca_tune.cli.show import console
from koalpaca_tune.errors import KoalpacaError

if TYPE_CHECKING:
    from koalpaca_tune.records import Encoded
    from koalpaca_tune.runs.finding import Finding
    from koalpaca_tune.tokens.encode import Encoder

MARKS = {"ok": ("좋음", "green"), "note": ("참고", "yellow"), "bad": ("문제", "bold red")}
SHOWN = 3
"""Documents of the first batch that are printed."""
LINES = 5
"""Of each of them, at most: its begin and its end."""


def findings(found: Sequence[Finding]) -> None:
    """Prints each: mark, name, what was seen; under it what to do."""
    table = Table(show_header=False, box=None, padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(style="dim", max_width=22)
    table.add_column(overflow="fold")
    for one in found:
        word, style = MARKS[one.state]
        said = Text(one.seen)
        if one.fix:
            said.append(f"\n→ {one.fix}", style)
        table.add_row(Text(word, style), one.name, said)
    console.print(table)


def not_green(found: Sequence[Finding]) -> None:
    """What a run prints: a line that all is well, or what is not."""
    odd = [one for one in found if one.state != "ok"]
    words = f"{len(found) - len(odd)}/{len(found)}"
    console.print(f"출발 전 확인 (preflight): {words} 좋음 (green)", style="dim")
    if odd:
        findings(odd)
    console.print()


def screen(found: Sequence[Finding], failed: KoalpacaError | None = None) -> None:
    """All findings in one table, with a summary; `failed`: why the rest could not be looked at."""
    from koalpaca_tune.runs.finding import Finding

    shown = list(found)
    if failed is not None:
        shown += [Finding(one.where or one.code, "bad", one.what, one.fix) for one in failed.problems]
    console.print(Text("출발 전 확인 (preflight)", "bold"))
    findings(shown)
    line = Text()
    for state, (word, style) in MARKS.items():
        line.append(f"{word} {sum(one.state == state for one in shown)}  ", style)
    if failed is not None:
        line.append("나머지는 여기까지 와야 볼 수 있습니다 (the rest was not reached)", "dim")
    console.print(line)
    console.print()


def batch(documents: Sequence[Encoded], encoder: Encoder) -> None:
    """The first documents of the first step, token by token as the model sees them; learned ones in green."""
    from koalpaca_tune.cli import look

    title = f"첫 단계의 예시 {len(documents)}개 가운데 {min(SHOWN, len(documents))}개 (of the first batch)"
    console.print(Text(title, "bold"))
    for one in documents[:SHOWN]:
        counted = f"{one.origin}  ({len(one.ids):,} tokens, {one.learned:,} learned)"
        console.print(Text(look.visible(counted), "dim"))
        lines = list(look.coloured(one, encoder).wrap(console, console.width))
        if len(lines) > LINES:
            lines = [*lines[:2], Text(f"… ({len(lines) - LINES + 1} lines)", "dim"), *lines[2 - LINES :]]
        for line in lines:
            console.print(line)
    console.print(Text("초록 또는 ⟦ ⟧: 배우는 토큰 (green or in brackets: learned)", "dim"))
    console.print()
