"""`koalpaca eval` and `koalpaca compare`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("eval")
@click.argument("base", required=False)
@click.option("--adapter", type=click.Path(path_type=Path), help="어댑터 폴더 (adapter folder of a run).")
@click.option("--suite", help="과제 묶음; 없으면 레시피의 것 또는 ko-mini (suite of tasks).")
@click.option(
    "--task", "tasks", multiple=True, help="과제 이름이나 파일; 여러 번 줄 수 있음 (a task; can be repeated)."
)
@click.option("--shots", type=click.IntRange(0), help="문항 앞의 예시 수 (examples in front of each item).")
@click.option("--profile", help="묻는 방식: lm-eval, polyglot, fixed (way to ask, where a task has it).")
@click.option("--limit", type=click.IntRange(1), help="과제마다 처음 몇 문항만 (first items of each task).")
@click.option("--out", type=click.Path(path_type=Path), help="결과 폴더: OUT/base, OUT/adapter.")
@click.option("--heldout", type=click.Path(path_type=Path), help="따로 둔 질문과 답 (held-out rows: JSONL, CSV).")
@click.option("--data-root", type=click.Path(path_type=Path), help="과제의 파일이 있는 폴더 (local task data).")
@click.option("--judge-url", help="채점하는 모델의 주소, .../v1 (OpenAI-compatible endpoint).")
@click.option("--judge-model", help="채점하는 모델의 이름 (model behind --judge-url).")
@click.option("--judge-key-env", help="열쇠가 든 환경 변수의 이름 (variable that holds the key).")
@click.option(
    "--judge-repeats",
    type=click.IntRange(1),
    help="답마다 채점하는 횟수; 기본 1 (how often each answer is judged).",
)
@click.option("--template", help="템플릿; 어댑터가 있으면 그 어댑터의 것 (only without --adapter).")
@click.option("--4bit/--full", "four_bit", default=None, help="4비트로 읽을지; 어댑터가 있으면 그 어댑터대로.")
@click.option(
    "--trust-remote-code",
    is_flag=True,
    help="어댑터의 기록이 고정한 베이스의 파이썬 코드를 돌림 (run the base's own code, as the record pins it).",
)
@click.option("--plan", is_flag=True, help="돌리지 않고 할 일과 찾을 수 있는 변화를 보임 (show, do not run).")
@click.option("--gate", is_flag=True, help="비교까지 하고, 나빠졌으면 3으로 끝남 (compare; exit 3 when worse).")
@click.option("--list", "listed", is_flag=True, help="묶음과 과제를 모두 보임 (suites and tasks).")
def evaluate(
    base: str | None,
    adapter: Path | None,
    suite: str | None,
    tasks: tuple[str, ...],
    shots: int | None,
    profile: str | None,
    limit: int | None,
    out: Path | None,
    heldout: Path | None,
    data_root: Path | None,
    judge_url: str | None,
    judge_model: str | None,
    judge_key_env: str | None,
    judge_repeats: int | None,
    template: str | None,
    four_bit: bool | None,
    trust_remote_code: bool,
    plan: bool,
    gate: bool,
    listed: bool,
) -> None:
    """BASE를 평가하고, 어댑터가 있으면 같은 문항으로 함께 평가 (judge a base, and its adapter on the same items).

    \b
    예 (example):
      koalpaca eval --list
      koalpaca eval embedded --adapter runs/demo/adapter --suite ko-mini --out runs/demo/judged
      koalpaca eval embedded --suite kobest --data-root datasets --shots 5 --plan
    """
    from koalpaca_tune.cli import asked as shown

    if listed:
        shown.listing()
        return
    if base is None:
        raise click.UsageError("BASE가 있어야 합니다 (missing argument BASE; or --list).")
    if gate and adapter is None:
        raise click.UsageError("--gate는 --adapter와 함께 씁니다 (--gate compares: give --adapter).")
    if out is None and not plan:
        raise click.UsageError("--out이 있어야 합니다 (missing option --out).")
    if (judge_url is None) != (judge_model is None) or ((judge_key_env or judge_repeats) and judge_url is None):
        raise click.UsageError("--judge-url과 --judge-model은 함께 씁니다 (give both, or neither).")
    from koalpaca_tune.cli.show import bar, console, done

    def told(korean: str, english: str) -> None:
        done(f"{korean} ({english})")

    with console.status("과제와 라이브러리를 읽는 중 (reading)"):
        from koalpaca_tune.cli import quiet

        quiet.libraries()
        from koalpaca_tune.judging.endpoint import Endpoint
        from koalpaca_tune.runs import adapters
        from koalpaca_tune.runs import evaluate as runs
        from koalpaca_tune.suites.selection import Asked

        if out is not None:
            runs.check_out(out)
        prepared = runs.prepare(
            adapters.choose(base, adapter, template, four_bit, trust_remote_code=trust_remote_code, whole=True),
            Asked(suite, tasks, profile, shots, limit),
            heldout=heldout,
            data_root=data_root,
            judge=Endpoint(judge_url, judge_model, judge_key_env) if judge_url and judge_model else None,
            repeats=judge_repeats or 1,
            probe=not plan,
            told=told,
        )
    for korean, english in prepared.notes:
        told(korean, english)
    if plan:
        shown.plan(prepared)
        return
    assert out is not None
    with bar("평가 (eval)") as update:
        folders = runs.evaluate(
            prepared, out, progress=lambda what, finished, total: update(finished, total, name=what), told=told
        )
    if not gate:
        console.print()
        shown.scores(folders)
    for folder in folders:
        done(f"결과 (result): {folder}/result.json")
    if gate:
        _gate(out)
    elif adapter is not None:
        done(f"다음 (next): koalpaca compare {out}/base {out}/adapter --out {out}/comparison")


def _gate(out: Path) -> None:
    """Compares what was just judged, and exits with 3 on a regression."""
    from koalpaca_tune.cli import verdict
    from koalpaca_tune.cli.show import done
    from koalpaca_tune.comparison import report
    from koalpaca_tune.comparison.compare import compare as run

    comparison = run(out / "base", out / "adapter")
    report.write(comparison, out / "comparison")
    verdict.show(comparison)
    done(f"보고서 (report): {out}/comparison/report.html")
    verdict.gate(comparison)


@click.command()
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="보고서 폴더 (folder for the report).")
@click.option(
    "--gate",
    is_flag=True,
    help="하나라도 뚜렷이 나빠졌으면 종료 상태 3 (exit status 3 on a significant regression).",
)
@click.option(
    "--without-texts",
    is_flag=True,
    help="문항과 답의 글을 뺀 보고서: 자료를 내보일 수 없을 때 (leaves the texts of items out).",
)
def compare(before: Path, after: Path, out: Path, gate: bool, without_texts: bool) -> None:
    """두 평가를 문항마다 짝지어 비교 (paired comparison: exact McNemar, bootstrap, Holm).

    --gate는 셸 스크립트와 CI를 위한 것입니다. 보고서를 쓴 뒤, Holm으로 조정한 p가 0.05보다 작게 나빠진 측정이
    있으면 stderr에 한 줄씩 적고 3으로 끝납니다. 없으면 0, 잘못 부르면 2입니다.
    (For scripts and CI: the report is written either way; then one line on stderr for each measure that got worse
    by the adjusted p, and exit status 3. 0 when there is none, 2 for a mistake in the call.)

    \b
    예 (example):
      koalpaca compare runs/demo/judged/base runs/demo/judged/adapter --out runs/demo/comparison
      koalpaca compare judged/base judged/adapter --out comparison --gate || exit 1
    """
    from koalpaca_tune.cli.show import console, done
    from koalpaca_tune.comparison import report
    from koalpaca_tune.comparison.compare import compare as run
    from koalpaca_tune.errors import KoalpacaError

    if before.resolve() == after.resolve():
        fix = "Name two evaluations, such as judged/base and judged/adapter."
        raise KoalpacaError("compare-same", "before and after are the same folder.", where=str(before), fix=fix)

    report.check_out(out)
    with console.status("짝지어 비교하는 중 (comparing)"):
        comparison = run(before, after)
        report.write(comparison, out, texts=not without_texts)
    from koalpaca_tune.cli import verdict

    verdict.show(comparison)
    done(f"보고서 (report): {out}/report.html")
    if gate:
        verdict.gate(comparison)
