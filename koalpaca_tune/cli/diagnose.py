"""`koalpaca diagnose`: which cause fits a run's loss curve, with evidence and the next command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from koalpaca_tune.diagnosis.verdict import Diagnosis
    from koalpaca_tune.runs.diagnose import Read


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="측정한 값까지 JSON으로 (as JSON, with all signals).")
def diagnose(run: Path, as_json: bool) -> None:
    """RUN 폴더의 손실 곡선에 맞는 까닭, 근거, 다음 명령 (which cause fits a run's loss curve).

    \b
    예 (example):
      koalpaca diagnose runs/demo
      koalpaca diagnose runs/demo --json
    """
    from koalpaca_tune import jsonl
    from koalpaca_tune.runs import diagnose as runs

    read, found = runs.of(run)
    if as_json:
        click.echo(jsonl.dumps(read.as_dict(found)))
    else:
        _show(read, found)


def _show(read: Read, found: Diagnosis) -> None:
    from koalpaca_tune.cli.show import done, table
    from koalpaca_tune.diagnosis.causes import CAUSES
    from koalpaca_tune.diagnosis.names import ODD, SIGNALS, VERDICTS

    if not found.fits:
        korean, english = VERDICTS[found.verdict]
        done(f"진단 (diagnosis): {korean} ({english})")
    for place, fit in enumerate(found.fits):
        cause = CAUSES[fit.name]
        done(f"{'진단 (diagnosis)' if not place else '이것도 맞음 (fits as well)'}: {cause.ko} ({cause.en})")
        done(f"  {cause.why_ko}")
        done(f"  {cause.why_en}")
        rows = [
            (f"{korean} ({english})", written.format(read.signals[key]))
            for key in cause.evidence
            if key in read.signals
            for korean, english, written in (SIGNALS[key],)
        ]
        if rows:
            table("근거 (evidence)", rows)
        done(f"다음 (next): {read.next_command(cause.command)}\n")
    if found.odd:
        done("눈에 띄는 것 (unusual): " + "; ".join(f"{ODD[name][0]} ({ODD[name][1]})" for name in found.odd))
    for fault in read.faults:
        done(f"결함이 알려진 판 (known fault): {fault}")
    for line in read.unread:
        done(f"보지 못한 것 (not looked at): {line}")
    if not found.fits and found.verdict == "none":
        done(f"다음 (next): koalpaca diagnose {read.folder} --json, koalpaca doctor")
