"""A comparison on the terminal: warnings, the table, then the verdict in words; and the gate."""

from __future__ import annotations

import click
from rich.table import Table
from rich.text import Text

from koalpaca_tune.cli.show import console
from koalpaca_tune.comparison import gate as gates
from koalpaca_tune.comparison import words
from koalpaca_tune.comparison.compare import Comparison, Row

COLOURS = {"improved": "green", "worse": "red", "no detectable change": "dim"}
WIDE = 90
WARNINGS = 6
"""Warnings on the terminal; the report has them all."""


def show(comparison: Comparison) -> None:
    """Prints what was run, warnings, one row for each tested measure, then what it all says."""
    _head(comparison)
    _warn(comparison)
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
        word = words.row(row)["verdict"]
        word = "확인 안 됨" if word == words.VERDICTS["no detectable change"][0] else word
        table.add_row(*cells, Text(word, style=COLOURS[row.verdict]))
    console.print(table)
    if told := words.guessing(comparison.rows):
        console.print(Text(f"{told[0]} ({told[1]})", style="dim"))
    said = comparison.said
    console.print()
    console.print(Text(said.headline, style="bold"))
    console.print(Text(said.korean))
    console.print(Text(said.english, style="dim"))


def gate(comparison: Comparison) -> None:
    """Prints one line for each significant regression, or that there is none.

    Raises:
        click.exceptions.Exit: something got worse (status 3).
    """
    worse = gates.regressions(comparison)
    for row in worse:
        click.echo(gates.line(row), err=True)
    if worse:
        raise click.exceptions.Exit(gates.STATUS)
    click.echo(gates.passed(comparison))


def _head(comparison: Comparison) -> None:
    suite = comparison.pair.before.suite
    console.print(
        Text(" · ".join([f"{suite['title']} 버전 {suite['version']}", *_scope(comparison)]), style="bold")
    )


def _scope(comparison: Comparison) -> list[str]:
    return [f"{korean} ({english})" for korean, english in comparison.scope.heading()]


def _warn(comparison: Comparison) -> None:
    for notice in comparison.warnings[:WARNINGS]:
        console.print(Text(f"⚠ {notice.korean}", style="yellow"))
    more = len(comparison.warnings) - WARNINGS
    if more > 0:
        console.print(Text(f"⚠ 경고 {more}개가 보고서에 더 있습니다 ({more} more in the report).", style="yellow"))
    if comparison.warnings:
        console.print()


def _cells(row: Row) -> tuple[str, ...]:
    texts = words.row(row)
    difference = texts["change"].removesuffix("%p")
    smallest = "-" if row.paired.smallest is None else texts["smallest"].removeprefix("±").removesuffix("%p")
    return row.title, texts["before"], texts["after"], f"{difference} {texts['interval']}", texts["p"], smallest
