"""`koalpaca export`: for vLLM, llama.cpp and Ollama."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from koalpaca_tune.export.gguf_file import Written
    from koalpaca_tune.export.model import Model
    from koalpaca_tune.inference.merging.report import Onto

TYPE = click.Choice(["f16", "q8_0", "f32"])


@click.group()
def export() -> None:
    """다른 프로그램에서 쓸 수 있게 내보냄: vLLM, llama.cpp(GGUF), Ollama (for other programs).

    \b
    예 (example):
      koalpaca merge embedded runs/demo/adapter --out merged
      koalpaca export gguf merged --out model.gguf
    """


@export.command()
@click.argument("model")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="GGUF 파일 (the file).")
@click.option("--type", "kind", type=TYPE, default="f16", show_default=True, help="가중치의 형식 (of the weights).")
@click.option("--template", help="템플릿; 합친 모델은 제 것 (a merged model knows its own).")
def gguf(model: str, out: Path, kind: str, template: str | None) -> None:
    """GGUF 파일 하나로: 토크나이저와 채팅 템플릿까지 담고, 다시 열어 비교함 (one file, read back and compared).

    \b
    예 (example):
      koalpaca export gguf merged --out model.gguf --type q8_0
    """
    from koalpaca_tune.cli.show import done

    _, written = _written(model, out, kind, template)
    _tell(written)
    done(f"GGUF: {out} ({written.bytes / 2**20:.1f} MiB)")


@export.command()
@click.argument("model")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Modelfile과 GGUF의 폴더 (folder).")
@click.option(
    "--type", "kind", type=TYPE, default="q8_0", show_default=True, help="가중치의 형식 (of the weights)."
)
@click.option("--template", help="템플릿; 합친 모델은 제 것 (a merged model knows its own).")
def ollama(model: str, out: Path, kind: str, template: str | None) -> None:
    """Ollama의 Modelfile과 GGUF를 씀 (Modelfile and weights for Ollama).

    \b
    예 (example):
      koalpaca export ollama merged --out for-ollama
      ollama create my-model -f for-ollama/Modelfile
    """
    from koalpaca_tune import jsonl
    from koalpaca_tune.cli.show import done
    from koalpaca_tune.export import ollama as files

    opened = _open(model, template)
    # before the weights are written: a template that Ollama cannot have ends here
    text = files.modelfile(
        f"./{opened.name}.gguf",
        opened.template.name,
        opened.vocabulary.markers,
        adds_bos=opened.vocabulary.adds_bos,
        context=opened.config.max_position_embeddings,
    )
    _, written = _written(model, out / f"{opened.name}.gguf", kind, template, opened)
    jsonl.replace(out / "Modelfile", [text])
    _tell(written)
    done(f"다음 (next): ollama create {opened.name} -f {out / 'Modelfile'}")


@export.command()
@click.argument("model")
@click.argument("adapters", nargs=-1, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="새 폴더 (a new folder).")
@click.option("--template", help="템플릿; 어댑터와 합친 모델은 제 것 (only for a model without a record).")
@click.option(
    "--onto",
    type=click.Choice(["base", "trained"]),
    default="base",
    show_default=True,
    help="합쳐야 할 때 어디에 더할지, merge와 같음 (as in merge).",
)
def vllm(model: str, adapters: tuple[Path, ...], out: Path, template: str | None, onto: Onto) -> None:
    """vLLM이 서빙할 폴더와 명령을 씀: Llama는 어댑터 여럿 그대로, GPT-NeoX는 합쳐서 (a folder and the command).

    \b
    예 (example):
      koalpaca export vllm EleutherAI/polyglot-ko-12.8b runs/polyglot-ko-12.8b/adapter --out served
      sh served/serve.sh
    """
    from koalpaca_tune.cli.show import console, done

    if adapters and template is not None:
        raise click.UsageError(
            "--template은 어댑터 없이 씁니다: 어댑터는 제 템플릿을 압니다 (only without adapters)."
        )
    if onto == "trained" and not adapters:
        raise click.UsageError("--onto는 어댑터와 함께 씁니다 (only with adapters).")
    with console.status("쓰는 중 (writing)") as status:
        from koalpaca_tune.cli import quiet

        # before bitsandbytes is read, which complains as it is
        quiet.libraries()
        from koalpaca_tune.export import vllm as served
        from koalpaca_tune.runs import adapters as chosen

        if adapters:
            base = chosen.choose(model, adapters[0], None, None).base
            made = served.adapters(base, adapters, out, onto=onto, say=status.update)
        else:
            made = served.whole(_open(model, template), out)
    done(made.why)
    for report in made.merged:
        for line in report.lines():
            done(line)
    for command in made.commands:
        click.echo(command)
    done(f"실행 (run): sh {out / served.COMMAND}")


def _open(model: str, template: str | None) -> Model:
    from koalpaca_tune.cli import quiet

    # before bitsandbytes is read, which complains as it is
    quiet.libraries()
    from koalpaca_tune.export.model import open_model
    from koalpaca_tune.runs import adapters

    choices = adapters.choose(model, None, template, None)
    return open_model(choices.base, choices.template)


def _written(
    model: str, out: Path, kind: str, template: str | None, opened: Model | None = None
) -> tuple[Model, Written]:
    """Writes the file, and lets llama.cpp open it where that is installed."""
    from koalpaca_tune.cli.show import bar, console, done
    from koalpaca_tune.export import gguf_file, llama_cpp_check

    with console.status("모델을 읽는 중 (reading)"):
        opened = opened or _open(model, template)
    with bar("쓰는 중 (writing)") as update:
        written = gguf_file.write(opened, out, kind, update)
    with console.status("llama.cpp로 여는 중 (opening it with llama.cpp)"):
        checked = llama_cpp_check.check(opened, out)
    if checked is None:
        done(
            "llama-cpp-python이 없어 llama.cpp의 로짓과는 비교하지 않았습니다 (not installed: logits not compared)"
        )
    else:
        done(f"llama.cpp {checked.version}과 로짓 비교 (logits at {checked.positions} positions): {checked.apart}")
        done(f"토큰 비교 (texts cut into other ids): {len(checked.otherwise)}/{checked.texts}")
    return opened, written


def _tell(written: Written) -> None:
    from koalpaca_tune.cli.show import done

    tokens = written.tokens
    done(
        f"다시 읽어 비교: 텐서 {written.tensors}개, 가장 큰 차이는 그 텐서 최댓값의 {written.largest:.2g} "
        "(read back; greatest difference of a weight)"
    )
    done(f"토크나이저 {tokens.model}/{tokens.pre}: 한국어 글 {tokens.tried}개에서 같은 토큰 (same ids on them)")
    if tokens.unusual:
        done(
            f"  드문 글 {len(tokens.unusual)}개는 다르게 잘림 (unusual texts cut otherwise): {tokens.unusual[0]!r}"
        )
    if tokens.normalizer:
        done(f"  llama.cpp는 {tokens.normalizer} 정규화를 하지 않습니다: 글을 {tokens.normalizer}로 보내세요.")
