"""`koalpaca eval` and `koalpaca compare`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("eval")
@click.argument("base")
@click.option("--adapter", type=click.Path(path_type=Path), help="어댑터 폴더 (adapter folder of a run).")
@click.option("--suite", help="과제 묶음; 없으면 레시피의 것 또는 ko-mini (suite of tasks).")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="결과 폴더: OUT/base, OUT/adapter.")
@click.option("--heldout", type=click.Path(path_type=Path), help="따로 둔 대화 (held-out conversations, JSONL).")
@click.option("--data-root", type=click.Path(path_type=Path), help="KoBEST TSV 등이 있는 폴더 (local task data).")
@click.option("--template", help="템플릿; 어댑터가 있으면 그 어댑터의 것 (only without --adapter).")
@click.option("--4bit/--full", "four_bit", default=None, help="4비트로 읽을지; 어댑터가 있으면 그 어댑터대로.")
def evaluate(
    base: str,
    adapter: Path | None,
    suite: str | None,
    out: Path,
    heldout: Path | None,
    data_root: Path | None,
    template: str | None,
    four_bit: bool | None,
) -> None:
    """BASE를 평가하고, 어댑터가 있으면 같은 문항으로 함께 평가 (judge a base, and its adapter on the same items).

    \b
    예 (example):
      koalpaca eval embedded --adapter runs/demo/adapter --suite ko-mini --out runs/demo/judged
    """
    from koalpaca_tune.cli.show import bar, console, done

    with console.status("라이브러리를 읽는 중 (loading)"):
        from koalpaca_tune.cli import quiet
        from koalpaca_tune.runs import adapters
        from koalpaca_tune.runs import evaluate as runs

        quiet.libraries()
    choices = adapters.choose(base, adapter, template, four_bit)
    with bar("평가 (eval)") as update:
        folders = runs.evaluate(
            choices,
            suite,
            out,
            heldout=heldout,
            data_root=data_root,
            progress=lambda what, finished, total: update(finished, total, name=what),
        )
    for folder in folders:
        done(f"결과 (result): {folder}/result.json")
    if adapter is not None:
        done(f"다음 (next): koalpaca compare {out}/base {out}/adapter --out {out}/comparison")


@click.command()
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="보고서 폴더 (folder for the report).")
def compare(before: Path, after: Path, out: Path) -> None:
    """두 평가를 문항마다 짝지어 비교 (paired comparison: exact McNemar, bootstrap, Holm).

    \b
    예 (example):
      koalpaca compare runs/demo/judged/base runs/demo/judged/adapter --out runs/demo/comparison
    """
    from koalpaca_tune.cli.show import console, done
    from koalpaca_tune.evaluation import report
    from koalpaca_tune.evaluation.compare import compare as run

    with console.status("짝지어 비교하는 중 (comparing)"):
        comparison = run(before, after)
        report.write(comparison, out)
    from koalpaca_tune.cli import verdict

    verdict.show(comparison)
    done(f"보고서 (report): {out}/report.html")
