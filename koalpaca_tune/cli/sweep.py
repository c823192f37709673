"""`koalpaca sweep`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("recipe")
@click.argument("space", nargs=-1, required=True, metavar="KEY=VALUES...")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="폴더; 있으면 이어서 (folder; goes on)."
)
@click.option("--trials", type=click.IntRange(1), default=12, show_default=True, help="시도의 수 (most trials).")
@click.option(
    "--judge",
    "judged",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="판정할 가장 나은 시도의 수 (how many of the best are judged).",
)
@click.option("--suite", help="판정하는 과제 묶음; 없으면 레시피의 것 (suite that judges).")
@click.option("--data-root", type=click.Path(path_type=Path), help="과제의 파일이 있는 폴더 (local task data).")
def sweep(
    recipe: str,
    space: tuple[str, ...],
    out: Path,
    trials: int,
    judged: int,
    suite: str | None,
    data_root: Path | None,
) -> None:
    """설정을 바꿔 가며 학습하고, 나은 것을 기준 레시피와 짝지어 판정 (tries settings and judges the best).

    \b
    쉼표는 값들, ..은 범위, 하나면 모두에 (commas: values; ..: a range; one value: for all).
    예 (example):
      koalpaca sweep demo lora.r=4,16,64 training.learning_rate=1e-4..2e-3 training.epochs=1 --out sweeps/demo
      koalpaca sweep demo quantization=nf4,nf4+double,fp4,int8,bf16,full --judge 6 --out sweeps/quant
    """
    from koalpaca_tune.cli.show import console, done
    from koalpaca_tune.config import space as spaces

    dimensions, fixed = spaces.read(space)
    from koalpaca_tune.runs import sweep as runs
    from koalpaca_tune.runs import swept as pages

    asked = runs.Asked(recipe, tuple(fixed), tuple(dimensions), trials, judged, suite, data_root, out)

    def tell(name: str, what: str) -> None:
        word = {"train": "학습 (train)", "eval": "판정 (eval)"}[what]
        done(f"{name}: {word}")

    found = runs.sweep(asked, tell)
    page = pages.write(found, out)
    from rich.table import Table

    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    for n, title in enumerate(pages.TITLES):
        table.add_column(title, justify="left" if n < 2 else "right", overflow="fold")
    for trial in found.trials:
        table.add_row(*pages.cells(trial))
    console.print(table)
    for one in found.judged:
        korean, english = pages.verdict(one)
        done(f"{one.trial.name} ({pages.settings(one.trial)}): {korean} ({english})")
    done(f"보고서 (report): {page}")
