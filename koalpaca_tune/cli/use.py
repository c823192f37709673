"""`koalpaca generate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from koalpaca_tune.errors import KoalpacaError

if TYPE_CHECKING:
    from koalpaca_tune.inference.decoding import Written
    from koalpaca_tune.inference.language_model import TorchLanguageModel


@click.command()
@click.argument("base")
@click.argument("questions", nargs=-1)
@click.option("--adapter", type=click.Path(path_type=Path), help="어댑터 폴더: 기반 모델과 나란히 (side by side).")
@click.option("--file", "file", type=click.Path(path_type=Path), help="한 줄에 질문 하나 (a question a line).")
@click.option("--max-new-tokens", default=256, show_default=True, type=click.IntRange(1, 8192))
@click.option(
    "--temperature", type=click.FloatRange(0, 5, min_open=True), help="표본 추출; 없으면 가장 그럴듯한 것만."
)
@click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), help="--temperature와 함께 (with it) [0.9].")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="--temperature와 함께 (with it) [42].")
@click.option("--system", help="시스템 문장 (system text).")
@click.option("--template", help="템플릿; 어댑터가 있으면 그 어댑터의 것 (only without --adapter).")
@click.option("--4bit/--full", "four_bit", default=None, help="4비트로 읽을지; 어댑터가 있으면 그 어댑터대로.")
@click.option(
    "--trust-remote-code",
    is_flag=True,
    help="어댑터의 기록이 고정한 베이스의 파이썬 코드를 돌림 (run the base's own code, as the record pins it).",
)
@click.option("--timing", is_flag=True, help="첫 토큰까지, 초당 토큰, 최대 메모리 (speed and memory).")
def generate(
    base: str,
    questions: tuple[str, ...],
    adapter: Path | None,
    file: Path | None,
    max_new_tokens: int,
    temperature: float | None,
    top_p: float | None,
    seed: int | None,
    system: str | None,
    template: str | None,
    four_bit: bool | None,
    trust_remote_code: bool,
    timing: bool,
) -> None:
    """질문에 답함: 어댑터를 주면 기반 모델과 나란히 (answers; base and adapter side by side).

    \b
    예 (example):
      koalpaca generate embedded "비 오는 날에는 뭘 하면 좋을까?" --adapter runs/demo/adapter
    """
    if temperature is None and (top_p is not None or seed is not None):
        raise click.UsageError("--top-p와 --seed는 --temperature와 함께 씁니다 (need --temperature).")
    asked = [*questions, *_lines(file)]
    if not asked:
        raise click.UsageError("질문이 없습니다: 인수나 --file로 주세요 (no question given).")
    from rich.text import Text

    from koalpaca_tune.cli.show import console

    with console.status("모델을 읽는 중 (loading)"):
        from koalpaca_tune.cli import quiet

        quiet.libraries()
        from koalpaca_tune.inference import answer
        from koalpaca_tune.inference.decoding import Sampling
        from koalpaca_tune.runs import adapters

        choices = adapters.choose(base, adapter, template, four_bit, trust_remote_code=trust_remote_code)
        lm = adapters.open_model(choices)
    sampling = None
    if temperature is not None:
        sampling = Sampling(temperature, 0.9 if top_p is None else top_p, 42 if seed is None else seed)
    for text in asked:
        conversation = answer.question(text, system=system)
        console.print(Text("질문  ", style="bold"), Text(text), sep="")
        if adapter is None:
            written = answer.answers(lm, [conversation], max_new_tokens, sampling=sampling)[0]
            _answer("답변", written)
        else:
            both = answer.side_by_side(lm, [conversation], max_new_tokens, sampling=sampling)[0]
            _answer("기반", both.base)
            _answer("튜닝", both.tuned)
        if timing:
            _timing(lm)
        console.print()


def _answer(label: str, written: Written) -> None:
    from rich.text import Text

    from koalpaca_tune.cli.show import console

    console.print(Text(f"{label}  ", style="bold green"), Text(written.text), sep="")
    if not written.stopped:
        console.print(Text("      (끝맺지 못함: 길이 한도에 닿음 / did not stop by itself)", style="dim"))


def _timing(lm: TorchLanguageModel) -> None:
    """Of the last answer: the tuned one where there are two."""
    from rich.text import Text

    from koalpaca_tune.cli.show import console

    pace = lm.pace
    if pace is None:
        parts = ["자체 생성기로 쓸 수 없는 모델이라 transformers로 씀 (written by transformers)"]
    else:
        parts = [f"첫 토큰 (first token) {pace.first:.3f} s"]
        if pace.rate is not None:
            parts.append(f"{pace.rate:.1f} tokens/s")
    parts.append(f"최대 메모리 (peak) {lm.peak_memory / 2**30:.2f} GiB")
    console.print(Text("      " + " · ".join(parts), style="dim"))


def _lines(file: Path | None) -> list[str]:
    if file is None:
        return []
    try:
        return [line for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise KoalpacaError(
            "question-file", f"it is not UTF-8 (byte {error.start}).", where=str(file), fix="Save it as UTF-8."
        ) from error
