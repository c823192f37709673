"""What `koalpaca data prepare` says when it is done."""

from __future__ import annotations

from pathlib import Path

from rich.markup import escape

from koalpaca_tune.cli.show import console, done, table
from koalpaca_tune.data import pages, words
from koalpaca_tune.data.report import Report, notes
from koalpaca_tune.data.rows import readable


def show(report: Report, out: Path) -> None:
    """Prints how each file was read, the counts of each stage, and where the results are."""
    for file in report.files:
        table(
            escape(readable(file.name)),
            [
                ("읽은 방법 (read as)", pages.read_as(file)),
                ("모양과 열 (shape)", readable(f"{file.shape}: {', '.join(file.columns)}")),
                ("쓰지 않은 열 (unused)", readable(", ".join(file.unused)) or None),
                ("행 (rows)", file.rows),
                ("남은 기록 (kept)", file.kept),
            ],
        )
    table(
        "단계마다 (stages)",
        [
            ("읽은 행 (rows)", report.rows),
            *((f"고침: {words.STEPS[step]} ({step})", count) for step, count in report.cleaned.items()),
            *((f"가림: {words.KINDS[kind]} ({kind})", count) for kind, count in report.masked.items()),
            *((f"제외: {words.REASONS[code]} ({code})", count) for code, count in report.rejected.items()),
            ("답이 여럿인 질문 (conflicting)", report.conflicting_questions),
            ("학습 (train)", report.train),
            ("검증 (valid)", report.valid),
        ],
    )
    for note in notes(report):
        console.print(f"! {note}", style="yellow", markup=False, soft_wrap=True)
    folder = readable(str(out))
    done(f"학습 (train): {folder}/train.jsonl")
    done(f"검증 (valid): {folder}/valid.jsonl")
    done(f"보고서 (report): {folder}/report.html")
