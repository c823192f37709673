"""`koalpaca doctor`."""

from __future__ import annotations

from pathlib import Path

import click

MARKS = {"ok": "[green]좋음  ok  [/green]", "note": "[yellow]참고  note[/yellow]", "bad": "[red]문제  bad [/red]"}


@click.command()
def doctor() -> None:
    """이 컴퓨터를 확인함 (checks this machine: card, 4-bit kernels, disk, token, fonts). 문제가 있으면 1로 끝남.

    \b
    예 (example):
      koalpaca doctor
    """
    from rich.markup import escape

    from koalpaca_tune.cli.show import console

    with console.status("확인하는 중 (checking)"):
        from koalpaca_tune.runs.doctor import examine

        findings = examine(Path.cwd())
    for finding in findings:
        console.print(f"{MARKS[finding.state]}  [bold]{finding.name}[/bold]  {escape(finding.seen)}")
        if finding.fix:
            console.print(f"            → {escape(finding.fix)}")
    if any(finding.state == "bad" for finding in findings):
        raise SystemExit(1)
