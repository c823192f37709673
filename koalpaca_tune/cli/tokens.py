"""`koalpaca data tokens`: what tokenizers make of a set, before one is chosen or a length is set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from koalpaca_tune.data.rows import Rejected
    from koalpaca_tune.records import Conversation
    from koalpaca_tune.tokens.survey import Lengths, Report, Survey


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--tokenizer",
    "tokenizers",
    multiple=True,
    default=("embedded",),
    show_default=True,
    help="모델 이름이나 tokenizer.json이 있는 폴더; 여러 번 줄 수 있음 (a base, or a folder; can be repeated).",
)
@click.option("--template", default="koalpaca", show_default=True, help="프롬프트 템플릿 (prompt template).")
@click.option(
    "--max-length",
    default=1024,
    show_default=True,
    type=click.IntRange(1),
    help="이보다 긴 기록을 셈, 토큰 수 (counts what is longer, in tokens).",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="보고서 폴더; 없으면 화면에만 (folder for the report)."
)
def tokens(
    files: tuple[Path, ...], tokenizers: tuple[str, ...], template: str, max_length: int, out: Path | None
) -> None:
    """FILE들이 몇 토큰이 되고 무엇이 max_length에 넘치는지, 토크나이저를 나란히 (tokens, side by side).

    \b
    예 (example):
      koalpaca data tokens prepared/train.jsonl --tokenizer embedded --tokenizer EleutherAI/polyglot-ko-12.8b
    """
    from dataclasses import replace

    from koalpaca_tune.cli.show import bar, done
    from koalpaca_tune.errors import KoalpacaError
    from koalpaca_tune.models import tokenizer
    from koalpaca_tune.tokens import survey_report
    from koalpaca_tune.tokens.survey import survey

    if out is not None and out.exists() and not out.is_dir():
        raise KoalpacaError(
            "out-folder", "it is a file, not a folder.", where=str(out), fix="Choose another --out."
        )
    vocabularies = [tokenizer.load(name) for name in dict.fromkeys(tokenizers)]
    unread: list[Rejected] = []
    count = 0

    def broken(row: Rejected) -> None:
        nonlocal count
        count += 1
        if not unread:
            unread.append(row)

    with bar("세기 (count)") as update:
        report = survey(
            _conversations(files, broken), vocabularies, template, max_length, lambda done: update(done, None)
        )
    first = f"{unread[0].origin}: {unread[0].problem.what}" if unread else ""
    report = replace(report, unread=count, unread_first=first)
    _print(report)
    if out is not None:
        survey_report.write(report, out)
        done(f"보고서 (report): {out / survey_report.OURS[-1]}")


def _conversations(files: tuple[Path, ...], broken: Callable[[Rejected], None]) -> Iterator[Conversation]:
    from koalpaca_tune.data import load

    for file in files:
        yield from load.conversations(file, broken)


def _print(report: Report) -> None:
    from rich.text import Text

    from koalpaca_tune.cli.look import visible
    from koalpaca_tune.cli.show import console

    counts = (
        f"기록 {report.records:,}개, 글자 {report.characters:,}자, 어절 {report.words:,}개, "
        f"한글 음절 {report.syllables:,}개 (records, characters, words, Hangul syllables)"
    )
    console.print(Text(counts), soft_wrap=True)
    console.print(Text(f"템플릿 (template): {report.template}", "dim"))
    _print_table(report)
    if report.unread:
        said = f"읽지 못한 행 (rows not read): {report.unread:,}. {visible(report.unread_first)}"
        console.print(Text(said, "yellow"), soft_wrap=True)
    for one in report.surveys:
        console.print(Text(f"\n{visible(one.name)}", "bold"))
        _print_findings(one)
        if one.lengths:
            _print_longest(one.lengths)
    console.print()


def _print_table(report: Report) -> None:
    from rich.table import Table
    from rich.text import Text

    from koalpaca_tune.cli.look import visible
    from koalpaca_tune.cli.show import console
    from koalpaca_tune.tokens import survey_report

    shown = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    shown.add_column("", overflow="fold")
    shown.add_column("", overflow="fold", style="dim")
    for one in report.surveys:
        name = one.name.rstrip("/").rsplit("/", 1)[-1] if one.name.startswith(("/", ".")) else one.name
        shown.add_column(Text(visible(name)), justify="right", overflow="fold")
    for line in survey_report.table(report):
        shown.add_row(line.ko, line.en, *line.shown)
    console.print(shown)


def _print_findings(one: Survey) -> None:
    from rich.text import Text

    from koalpaca_tune.cli.look import visible
    from koalpaca_tune.cli.show import console

    if not one.findings:
        console.print(Text("특수 토큰에서 잘못된 것을 찾지 못했습니다 (no mistake found)", "dim"))
    for finding in one.findings:
        text = Text.assemble(("고칠 것 (mend): ", "bold yellow") if finding.mistake else ("참고 (note): ", "dim"))
        text.append(visible(finding.ko))
        if finding.records is not None:
            text.append(f" 기록 {finding.records:,}개.")
        text.append(f" {visible(finding.en)} [{finding.code}]", "dim")
        console.print(text, soft_wrap=True)
        if finding.where:
            console.print(Text(f"    {visible(', '.join(finding.where))}", "dim"), soft_wrap=True)


def _print_longest(lengths: Lengths) -> None:
    from rich.text import Text

    from koalpaca_tune.cli.look import visible
    from koalpaca_tune.cli.show import console

    if not lengths.too_long:
        return
    console.print("가장 긴 기록과 잘려 나갈 글 (the longest records, and what a cut would lose)", markup=False)
    for long in lengths.longest:
        if long.tail:
            lost = (
                f"  {long.origin}: {long.tokens:,} 토큰, 학습 (learned) {long.learned:,}, 잃음 (lost) {long.lost:,}"
            )
            console.print(Text(visible(lost)), soft_wrap=True)
            console.print(Text(f"    …{' '.join(visible(long.tail).split())}", "dim"), soft_wrap=True)
