"""A comparison on the terminal: the table, then the verdict in words."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from koalpaca_tune.cli.show import console
from koalpaca_tune.evaluation.compare import Comparison, Row

COLOURS = {"improved": "green", "worse": "red", "no detectable change": "dim"}
WIDE = 90
WORDS = {"improved": "나아짐", "worse": "나빠짐", "no detectable change": "확인 안 됨"}


def show(comparison: Comparison) -> None:
    """Prints one row for each tested measure, then what it all says."""
    columns = ["전", "후", "차이 [95 % 구간]", "p (Holm)", "최소 검출"]
    if console.width < WIDE:
        columns.pop()  # the smallest detectable change is in the report too
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("")
    for title in columns:
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("판정", no_wrap=True)
    for row in comparison.rows:
        cells = _cells(row)[: len(columns) + 1]
        table.add_row(*cells, Text(WORDS[row.verdict], style=COLOURS[row.verdict]))
    console.print(table)
    said = comparison.said
    console.print()
    console.print(Text(said.headline, style="bold"))
    console.print(Text(said.korean))
    console.print(Text(said.english, style="dim"))


def _cells(row: Row) -> tuple[str, ...]:
    paired = row.paired
    scale, places, unit = (100, 1, "%") if row.unit == "share" else (1, 3, "")
    numbers = [paired.before, paired.after, paired.difference, paired.low, paired.high]
    before, after = (f"{scale * number:.{places}f}{unit}" for number in numbers[:2])
    difference, low, high = (f"{scale * number:+.{places}f}" for number in numbers[2:])
    p = "< 0.001" if row.p_holm < 0.001 else f"{row.p_holm:.3f}"
    detectable = "-" if paired.smallest is None else f"{scale * paired.smallest:.{places}f}"
    return row.title, before, after, f"{difference} [{low}, {high}]", p, detectable
