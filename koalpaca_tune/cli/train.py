"""`koalpaca train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from koalpaca_tune.errors import KoalpacaError

if TYPE_CHECKING:
    from koalpaca_tune.config.recipe import Recipe
    from koalpaca_tune.models.proof import Proof
    from koalpaca_tune.runs.finding import Finding
    from koalpaca_tune.runs.train import Examples, Ready


@click.command()
@click.argument("recipe")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--dry-run",
    is_flag=True,
    help="모든 확인을 하고 한 화면으로 보이며, 쓰지 않음 (all checks, nothing is written).",
)
@click.option("--resume", is_flag=True, help="마지막 체크포인트에서 이어서 (go on from the last checkpoint).")
@click.option(
    "--allow",
    multiple=True,
    metavar="KEY",
    help="--resume에서 달라도 되는 것: seed, data.train, base, ... (a difference that --resume accepts).",
)
def train(recipe: str, overrides: tuple[str, ...], dry_run: bool, resume: bool, allow: tuple[str, ...]) -> None:
    """QLoRA 학습: RECIPE는 파일 또는 제공되는 레시피 이름 (train; a file or a shipped recipe's name).

    \b
    예 (example):
      koalpaca train polyglot-ko-12.8b data.train=prepared/train.jsonl training.epochs=2
    """
    from koalpaca_tune.cli import preflight
    from koalpaca_tune.cli.show import done
    from koalpaca_tune.config import load

    checked = load.load(recipe, overrides)
    found: list[Finding] = []
    try:
        ready, folder = _prepare(checked, dry_run, resume, allow, found)
    except KoalpacaError as error:
        if dry_run and found and _is_main():
            preflight.screen(found, error)
        raise
    if dry_run and not _is_main():
        return
    if dry_run:
        done("확인을 마쳤습니다. 아무것도 쓰지 않았습니다. (dry run: nothing was written)")
        return
    _run(ready, folder, resume, allow)


def _is_main() -> bool:
    from koalpaca_tune.runs.train import is_main_process

    return is_main_process()


def _prepare(
    recipe: Recipe, dry_run: bool, resume: bool, allow: tuple[str, ...], found: list[Finding]
) -> tuple[Ready, Path]:
    """Loads everything and looks at it; `found` is filled on the way.

    Raises:
        KoalpacaError: something cannot be as the recipe says, or is not to be run with (preflight).
    """
    from koalpaca_tune.cli import preflight as screen
    from koalpaca_tune.cli.show import console

    with console.status("라이브러리와 데이터를 읽는 중 (loading)"):
        from koalpaca_tune.cli import quiet

        # before bitsandbytes is read, which complains as it is
        quiet.libraries()
        from koalpaca_tune.runs import preflight
        from koalpaca_tune.runs import train as runs

        found += preflight.of_recipe(recipe)
        folder = runs.run_folder(recipe) if dry_run else runs.check_folder(recipe, resume, allow)
        examples = runs.read_examples(recipe)
        found += preflight.of_data(recipe, examples)
    # with several processes, only the first one prints
    main = runs.is_main_process()
    if main and not dry_run:
        _data(examples)
    with console.status("모델을 읽는 중 (loading the base)"):
        ready = runs.make_ready(recipe, examples)
        found += preflight.of_model(ready)
    if main and not dry_run:
        _model(ready)
    with console.status("세 단계를 해 보는 중 (three steps, undone afterwards)"):
        found += preflight.of_probe(ready, folder)
    if main and dry_run:
        screen.screen(found)
        screen.batch(
            [examples.train[index] for row in ready.trainer.steps[0].rows for index in row], examples.encoder
        )
    elif main:
        screen.not_green(found)
    red = preflight.agree(ready, found)
    if red is not None:
        # told already
        found.clear()
        raise red
    return ready, folder


def _run(ready: Ready, folder: Path, resume: bool, allow: tuple[str, ...]) -> None:
    from koalpaca_tune.cli.show import bar, console
    from koalpaca_tune.runs import train as runs
    from koalpaca_tune.training.signals import Interrupted

    main = runs.is_main_process()
    try:
        with bar("학습 (train)") as update:

            def progress(steps: int, total: int, row: dict[str, Any]) -> None:
                for line in row.get("told", ()):
                    console.print(line, markup=False)
                update(steps, total, _note(row) if "loss" in row else None)

            entry = runs.run(ready, folder, resume=resume, allow=allow, progress=progress if main else None)
    except Interrupted as interrupted:
        if main:
            click.echo(str(interrupted.line), err=True)
        raise
    if main:
        _result(entry, str(folder))


def _note(row: dict[str, Any]) -> str:
    note = f"loss {row['loss']:.3f}  {row['tokens_per_second']:,.0f} tokens/s"
    if row["mfu"] is not None:
        note += f"  MFU {row['mfu']:.0%}"
    if row["peak_memory_gib"] is not None:
        note += f"  {row['peak_memory_gib']:.1f} GiB"
    return note


def _data(examples: Examples) -> None:
    from koalpaca_tune.cli.show import table

    def words(counts: Any) -> str:
        return (
            f"{counts.kept:,} of {counts.examples:,} examples, {counts.tokens:,} tokens, "
            f"{counts.learned_tokens:,} learned; too long: {counts.too_long_dropped:,} dropped, "
            f"{counts.too_long_cut:,} cut; nothing to learn: {counts.nothing_to_learn:,}"
        )

    rows = [("학습 (train)", words(examples.train_counts))]
    if examples.valid_counts:
        rows.append(("검증 (valid)", words(examples.valid_counts)))
    rows.append(("템플릿 (template)", examples.encoder.template.name))
    table("데이터 (data)", rows)


def _model(ready: Ready) -> None:
    from koalpaca_tune.cli.show import table

    proof, trainer, training = ready.loaded.proof, ready.trainer, ready.recipe.training
    parameters = sum(ready.trainable.values())
    table(
        "모델: 읽은 뒤 모듈에게 직접 물어본 값 (the base, as its own modules say)",
        [
            ("base", f"{ready.recipe.base.path} ({ready.loaded.fingerprint})"),
            ("장치 (device)", ready.accelerator.device),
            *_quantised(proof),
            ("compute dtype", proof.compute_dtype or str(ready.loaded.compute_dtype).removeprefix("torch.")),
            ("나머지 (other parameters)", proof.dtypes),
            (
                "학습 파라미터 (trainable)",
                f"{parameters:,}  ({', '.join(f'{k} {v:,}' for k, v in ready.trainable.items())})",
            ),
            ("단계 (steps)", len(trainer.steps)),
            (
                "한 단계 (one step)",
                f"{training.batch_size} x {ready.accelerator.num_processes} rows "
                f"of up to {ready.recipe.data.max_length:,} tokens",
            ),
            ("엔진 (engine)", trainer.prepared.words()),
            ("optimizer", type(trainer.optimizer).__name__),
        ],
    )


def _quantised(proof: Proof) -> list[tuple[str, object]]:
    if proof.bits == 8:
        return [
            ("8-bit 모듈 (modules)", proof.linears_8bit),
            ("8-bit 아닌 linear (not 8-bit)", proof.linears_other),
            ("LLM.int8 threshold", proof.threshold),
        ]
    return [
        ("4-bit 모듈 (modules)", proof.linears_4bit),
        ("4-bit 아닌 linear (not 4-bit)", proof.linears_other),
        ("quant type", proof.quant_type),
        ("double quantisation", proof.double_quant),
    ]


def _result(entry: dict[str, Any], folder: str) -> None:
    from koalpaca_tune.cli.show import done, table

    result = entry["result"]
    rows = [
        ("학습 손실 (train loss, last tenth)", result["loss"]),
        ("검증 손실 (valid loss)", result["valid_loss"]),
        ("토큰/초 (tokens/s)", result["tokens_per_second"]),
        ("최대 메모리 GiB (peak, CUDA)", result["peak_memory_gib"]),
        ("걸린 시간 s (seconds)", result["seconds"]),
    ]
    table("결과 (result)", rows)
    base = entry["base"]["path"]
    made, word = ("model", "모델") if entry["recipe"]["lora"] is None else ("adapter", "어댑터")
    done(f"{word} ({made}): {folder}/{made}")
    done(f"손실 곡선 (loss curve): {folder}/report/loss.svg")
    done(f"다음 (next): koalpaca eval {base} --adapter {folder}/{made} --out {folder}/judged")
