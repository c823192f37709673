"""`koalpaca train`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from koalpaca_tune.runs.train import Examples, Ready


@click.command()
@click.argument("recipe")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--dry-run", is_flag=True, help="모두 읽고 확인만 하고 쓰지 않음 (load and check, write nothing).")
@click.option("--resume", is_flag=True, help="마지막 체크포인트에서 이어서 (go on from the last checkpoint).")
def train(recipe: str, overrides: tuple[str, ...], dry_run: bool, resume: bool) -> None:
    """QLoRA 학습: RECIPE는 파일 또는 제공되는 레시피 이름 (train; a file or a shipped recipe's name).

    \b
    예 (example):
      koalpaca train polyglot-ko-12.8b data.train=prepared/train.jsonl training.epochs=2
    """
    from koalpaca_tune.cli.show import bar, console, done
    from koalpaca_tune.config import load

    checked = load.load(recipe, overrides)
    with console.status("라이브러리와 데이터를 읽는 중 (loading)"):
        from koalpaca_tune.cli import quiet
        from koalpaca_tune.runs import train as runs

        quiet.libraries()
        folder = runs.run_folder(checked) if dry_run else runs.check_folder(checked, resume)
        examples = runs.read_examples(checked)
    # with several processes, only the first one prints
    main = runs.is_main_process()
    if main:
        _data(examples)
    with console.status("모델을 읽는 중 (loading the base)"):
        ready = runs.make_ready(checked, examples)
    if main:
        _model(ready)
    if dry_run:
        from koalpaca_tune.cli import look

        look.example(examples.train[0], examples.encoder)
        with console.status("첫 손실을 재는 중 (first loss)"):
            loss = runs.first_loss(ready)
        done(f"첫 단계의 손실: 학습 토큰당 {loss:.4f} nats (loss of the first step, nothing trained)")
        done("확인을 마쳤습니다. 아무것도 쓰지 않았습니다. (dry run: nothing was written)")
        return
    with bar("학습 (train)") as update:

        def progress(steps: int, total: int, row: dict[str, Any]) -> None:
            note = None
            if "loss" in row:
                note = f"loss {row['loss']:.3f}  {row['tokens_per_second']:,.0f} tokens/s"
                if row["mfu"] is not None:
                    note += f"  MFU {row['mfu']:.0%}"
                if row["peak_memory_gib"] is not None:
                    note += f"  {row['peak_memory_gib']:.1f} GiB"
            update(steps, total, note)

        entry = runs.run(ready, folder, resume=resume, progress=progress if main else None)
    if main:
        _result(entry, str(folder))


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
            ("4-bit 모듈 (modules)", proof.linears_4bit),
            ("4-bit 아닌 linear (not 4-bit)", proof.linears_other),
            ("quant type", proof.quant_type),
            ("double quantisation", proof.double_quant),
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
    done(f"어댑터 (adapter): {folder}/adapter")
    done(f"손실 곡선 (loss curve): {folder}/report/loss.svg")
    done(f"다음 (next): koalpaca eval {entry['base']['path']} --adapter {folder}/adapter --out {folder}/judged")
