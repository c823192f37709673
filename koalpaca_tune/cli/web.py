"""`koalpaca web`."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import click

from koalpaca_tune.errors import KoalpacaError


@click.command()
@click.argument("base")
@click.option("--adapter", required=True, type=click.Path(path_type=Path), help="어댑터 폴더 (adapter folder).")
@click.option("--run", "run", type=click.Path(path_type=Path), help="손실을 보여 줄 실행 폴더 (a run's live loss).")
@click.option(
    "--votes",
    default=Path("votes.jsonl"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="투표를 덧붙일 파일 (where votes go).",
)
@click.option("--max-new-tokens", default=256, show_default=True, type=click.IntRange(1, 2048))
@click.option("--port", default=7860, show_default=True, type=click.IntRange(0, 65535), help="0: 빈 포트.")
@click.option("--4bit/--full", "four_bit", default=None, help="4비트로 읽을지; 없으면 어댑터대로.")
@click.option(
    "--trust-remote-code", is_flag=True, help="어댑터의 기록에 고정된, 기반 모델의 코드를 실행 (base's own code)."
)
def web(
    base: str,
    adapter: Path,
    run: Path | None,
    votes: Path,
    max_new_tokens: int,
    port: int,
    four_bit: bool | None,
    trust_remote_code: bool,
) -> None:
    """한 번 묻고 기반 모델과 튜닝 모델의 답을 나란히 보는 쪽 (both answers on a page, and a vote).

    이 기계에서만 열리고, 밖에서 아무것도 가져오거나 보내지 않습니다.

    \b
    예 (example):
      koalpaca web embedded --adapter runs/demo/adapter --run runs/demo
    """
    if find_spec("gradio") is None:
        raise KoalpacaError(
            "extra-missing",
            "the page needs gradio, which is not installed.",
            fix='pip install "koalpaca-tune[web]"',
        )
    if run is not None and not run.is_dir():
        raise KoalpacaError("file-missing", "there is no such folder.", where=str(run), fix="Give runs/NAME.")
    # before it is imported: it would tell its makers of every start, and look for a newer version
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    from koalpaca_tune.cli.show import console, done

    with console.status("모델을 읽는 중 (loading)"):
        import uvicorn

        from koalpaca_tune.cli import quiet

        # before bitsandbytes is read, which complains as it is
        quiet.libraries()
        from koalpaca_tune.runs import adapters
        from koalpaca_tune.serving.doors import doors
        from koalpaca_tune.serving.listening import bound
        from koalpaca_tune.serving.page import Shop, web_app

        socket = bound("127.0.0.1", port)
        choices = adapters.choose(base, adapter, None, four_bit, trust_remote_code=trust_remote_code)
        lm = adapters.open_model(choices)
        models = {"base": base, "adapter": str(adapter), "template": choices.template}
        app = web_app(Shop(lm, models, votes, run, max_new_tokens), doors("127.0.0.1", key_env=None, key_file=None))
    done(f"http://127.0.0.1:{socket.getsockname()[1]}/  (Ctrl-C로 끝냅니다)")
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=5)
    uvicorn.Server(config).run(sockets=[socket])
