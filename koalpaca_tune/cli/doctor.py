"""`koalpaca doctor`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
def doctor() -> None:
    """이 컴퓨터를 확인함 (checks this machine: card, 4-bit kernels, disk, Hub, fonts). 문제가 있으면 1로 끝남.

    \b
    예 (example):
      koalpaca doctor
    """
    from koalpaca_tune.cli import preflight, quiet
    from koalpaca_tune.cli.show import console

    with console.status("확인하는 중 (checking)"):
        from koalpaca_tune.runs.doctor import examine

        quiet.libraries()
        found = examine(Path.cwd())
    preflight.findings(found)
    if any(one.state == "bad" for one in found):
        raise SystemExit(1)
