"""`koalpaca merge`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from koalpaca_tune.inference.merging.report import Onto


@click.command()
@click.argument("base")
@click.argument("adapter", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="합친 모델의 폴더 (merged model).")
@click.option(
    "--dtype", type=click.Choice(["bfloat16", "float16", "float32"]), default="bfloat16", show_default=True
)
@click.option(
    "--onto",
    type=click.Choice(["base", "trained"]),
    default="base",
    show_default=True,
    help="더할 곳: 기반 모델의 원래 가중치, 또는 4비트 학습이 본 그대로의 가중치 (what it is added to).",
)
def merge(base: str, adapter: Path, out: Path, dtype: str, onto: Onto) -> None:
    """어댑터를 모델에 합치고, 합치기 전과의 로짓 차이를 보임 (merge, and print the logit error).

    텐서를 하나씩 읽고 쓰므로 모델 전체가 메모리에 올라가지 않습니다. 멈추면 같은 명령으로 이어집니다.

    \b
    예 (example):
      koalpaca merge EleutherAI/polyglot-ko-12.8b runs/polyglot-ko-12.8b/adapter --out merged
    """
    from koalpaca_tune.cli.show import console, done

    with console.status("합치는 중 (merging)") as status:
        from koalpaca_tune.cli import quiet

        quiet.libraries()
        from koalpaca_tune.inference.merging.merge import merge as run
        from koalpaca_tune.runs import adapters

        choices = adapters.choose(base, adapter, None, None)
        report = run(choices.base, adapter, out, dtype=dtype, onto=onto, say=status.update)
    for line in report.lines():
        done(line)
    done(f"합친 모델 (merged model): {out}")
