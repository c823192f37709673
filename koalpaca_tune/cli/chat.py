"""`koalpaca chat`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("base")
@click.option("--adapter", type=click.Path(path_type=Path), help="어댑터 폴더 (adapter folder).")
@click.option("--system", help="시스템 문장 (system text).")
@click.option("--max-new-tokens", type=click.IntRange(1), default=256, show_default=True)
@click.option(
    "--temperature", type=click.FloatRange(0, 5, min_open=True), help="표본 추출; 없으면 가장 그럴듯한 것만."
)
@click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), help="--temperature와 함께 (with it) [0.9].")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="--temperature와 함께 (with it) [42].")
@click.option("--compare", is_flag=True, help="처음부터 기반 모델의 답도 나란히 (base beside adapter).")
@click.option("--template", help="템플릿; 어댑터가 있으면 그 어댑터의 것 (only without --adapter).")
@click.option("--4bit/--full", "four_bit", default=None, help="4비트로 읽을지; 어댑터가 있으면 그 어댑터대로.")
@click.option(
    "--trust-remote-code", is_flag=True, help="어댑터의 기록에 고정된, 기반 모델의 코드를 실행 (base's own code)."
)
def chat(
    base: str,
    adapter: Path | None,
    system: str | None,
    max_new_tokens: int,
    temperature: float | None,
    top_p: float | None,
    seed: int | None,
    compare: bool,
    template: str | None,
    four_bit: bool | None,
    trust_remote_code: bool,
) -> None:
    """모델과 이야기함: 앞의 말을 기억하고, 쓰는 대로 보여 줌 (a talk with a model).

    어댑터가 있으면 학습한 템플릿을 그대로 씁니다. 줄 앞의 /help가 명령을 보여 줍니다.
    터미널이 아니면 표준 입력의 한 줄을 질문 하나로 읽습니다.

    \b
    예 (example):
      koalpaca chat embedded --adapter runs/demo/adapter
    """
    if compare and adapter is None:
        raise click.UsageError("--compare는 --adapter와 함께 씁니다 (needs --adapter).")
    from koalpaca_tune.cli.show import console

    with console.status("모델을 읽는 중 (loading)"):
        from koalpaca_tune.cli import quiet

        # before bitsandbytes is read, which complains as it is
        quiet.libraries()
        from koalpaca_tune.cli import talk
        from koalpaca_tune.runs import adapters
        from koalpaca_tune.serving.memory import composed
        from koalpaca_tune.serving.settings import Settings

        settings = Settings(max_new_tokens, temperature, top_p, seed)
        choices = adapters.choose(base, adapter, template, four_bit, trust_remote_code=trust_remote_code)
        lm = adapters.open_model(choices)
    talk.Talk(lm, settings, composed(system.strip()) if system else None, compare=compare).run()
