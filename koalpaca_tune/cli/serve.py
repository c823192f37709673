"""`koalpaca serve`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import click

from koalpaca_tune.errors import KoalpacaError

NEEDED = ("fastapi", "uvicorn", "prometheus_client")


def _named(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> dict[str, Path]:
    """`NAME=FOLDER` each, split at the first equals sign."""
    folders: dict[str, Path] = {}
    for value in values:
        name, equals, folder = value.partition("=")
        if not (name and equals and folder):
            raise click.BadParameter(f"'{value}': 이름=폴더로 적습니다 (write NAME=FOLDER).", ctx, param)
        if name in folders:
            raise click.BadParameter(f"'{name}'이(가) 두 번 있습니다 (a name stands twice).", ctx, param)
        folders[name] = Path(folder)
    return folders


@click.command()
@click.argument("base")
@click.option(
    "--adapter",
    "adapters",
    multiple=True,
    callback=_named,
    metavar="NAME=FOLDER",
    help="이름=폴더; 여러 번 (an adapter under a name).",
)
@click.option("--name", help="기반 모델의 이름 (the base's name); 없으면 BASE 그대로.")
@click.option("--host", default="127.0.0.1", show_default=True, help="들을 주소; 밖으로 열려면 키가 필요함.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0: 빈 포트.")
@click.option("--api-key-env", metavar="NAME", help="키가 든 환경 변수 (variable that holds the key).")
@click.option("--api-key-file", type=click.Path(path_type=Path), help="키가 한 줄에 하나씩 든 파일 (keys).")
@click.option("--slots", default=16, show_default=True, type=click.IntRange(1, 64), help="한 번에 쓰는 답의 수.")
@click.option("--context", type=click.IntRange(2), help="질문과 답의 토큰 (tokens of a text) [기반 모델의 것].")
@click.option(
    "--max-new-tokens", default=1024, show_default=True, type=click.IntRange(1), help="답 하나의 최대 토큰."
)
@click.option(
    "--queue", default=128, show_default=True, type=click.IntRange(0), help="기다릴 수 있는 요청; 넘으면 429."
)
@click.option(
    "--timeout",
    default=300.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="요청 하나의 초; 넘으면 408.",
)
@click.option(
    "--max-body", default=1 << 20, show_default=True, type=click.IntRange(1), help="요청의 바이트; 넘으면 413."
)
@click.option(
    "--grace", default=30.0, show_default=True, type=click.FloatRange(0), help="끝낼 때 쓰던 답에 주는 초."
)
@click.option("--template", help="기반 모델만의 템플릿; 어댑터는 제 것을 씀 (of the base alone).")
@click.option("--4bit/--full", "four_bit", default=None, help="4비트로 읽을지; 어댑터가 있으면 그 어댑터대로.")
@click.option(
    "--trust-remote-code", is_flag=True, help="어댑터의 기록에 고정된, 기반 모델의 코드를 실행 (base's own code)."
)
def serve(
    base: str,
    adapters: dict[str, Path],
    name: str | None,
    host: str,
    port: int,
    api_key_env: str | None,
    api_key_file: Path | None,
    slots: int,
    context: int | None,
    max_new_tokens: int,
    queue: int,
    timeout: float,
    max_body: int,
    grace: float,
    template: str | None,
    four_bit: bool | None,
    trust_remote_code: bool,
) -> None:
    """OpenAI 호환 서버: 기반 모델 하나에 어댑터 여럿 (an OpenAI-compatible server).

    요청의 model이 어댑터의 이름입니다. 이 기계에서만 들으며, 밖으로 열려면 키가 있어야 합니다.

    \b
    예 (example):
      koalpaca serve embedded --adapter demo=runs/demo/adapter
      curl http://127.0.0.1:8000/v1/chat/completions -H "Content-Type: application/json" \\
        -d '{"model": "demo", "messages": [{"role": "user", "content": "안녕?"}]}'
    """
    missing = [one for one in NEEDED if find_spec(one) is None]
    if missing:
        raise KoalpacaError(
            "extra-missing",
            f"the server needs {', '.join(missing)}, which is not installed.",
            fix='pip install "koalpaca-tune[serve]"',
        )
    from koalpaca_tune.cli.show import console, done
    from koalpaca_tune.serving import doors as openings
    from koalpaca_tune.serving.limits import Limits

    # everything that can be wrong is told before the model is read
    doors = openings.doors(host, key_env=api_key_env, key_file=api_key_file)
    with console.status("모델을 읽는 중 (loading)"):
        from koalpaca_tune.serving.listening import Server, bound

        socket = bound(host, port)
        from koalpaca_tune.cli import quiet

        # before bitsandbytes is read, which complains as it is
        quiet.libraries()
        from koalpaca_tune.runs.serve import open_models
        from koalpaca_tune.serving.metrics import Metrics
        from koalpaca_tune.serving.parts import Parts
        from koalpaca_tune.serving.scheduler import Scheduler

        opened = open_models(
            base,
            adapters,
            name=name,
            template=template,
            four_bit=four_bit,
            trust_remote_code=trust_remote_code,
            slots=slots,
            room=context,
            most_new_tokens=max_new_tokens,
        )
    limits = Limits(body=max_body, seconds=timeout, waiting=queue, stopping=grace)
    metrics = Metrics()
    scheduler = Scheduler(opened.writer, slots=slots, most_waiting=queue, metrics=metrics, within=opened.within)
    server = Server(Parts(opened.served, scheduler, metrics, doors, limits))
    shown = f"[{host}]" if ":" in host else host
    done(f"http://{shown}:{socket.getsockname()[1]}/v1  ({opened.engine})")
    for one, model in opened.served.models.items():
        done(f"  {one}  (템플릿 {model.encoder.template.name})")
    done("Ctrl-C나 SIGTERM으로 끝냅니다; 쓰던 답은 마칩니다 (stops when the answers under way are done)")
    try:
        server.run(sockets=[socket])
    finally:
        scheduler.close()
    if scheduler.broken is not None:
        raise scheduler.broken
