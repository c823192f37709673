"""`koalpaca recipe`: the shipped recipes."""

from __future__ import annotations

from pathlib import Path

import click

from koalpaca_tune.errors import KoalpacaError


@click.group()
def recipe() -> None:
    """제공되는 레시피 (shipped recipes).

    \b
    예 (example):
      koalpaca recipe copy polyglot-ko-12.8b my.yaml
    """


@recipe.command("list")
def list_() -> None:
    """레시피 이름과 설명 (names, with a line about each).

    \b
    예 (example):
      koalpaca recipe list
    """
    from koalpaca_tune.cli.show import console
    from koalpaca_tune.config import load

    for name in load.names():
        about = load.find(name).read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        console.print(f"[bold]{name:18}[/bold] {about}", soft_wrap=True)


@recipe.command()
@click.argument("name")
def show(name: str) -> None:
    """레시피 하나를 기본값까지 모두 (one recipe with every default filled in).

    \b
    예 (example):
      koalpaca recipe show llama3-8b
    """
    from koalpaca_tune.config import load

    click.echo(load.dump(load.load(name)), nl=False)


@recipe.command()
@click.argument("name")
@click.argument("to", type=click.Path(path_type=Path))
def copy(name: str, to: Path) -> None:
    """레시피를 파일로 복사 (copy to a file of your own; never over an existing one).

    \b
    예 (example):
      koalpaca recipe copy polyglot-ko-5.8b my.yaml
    """
    from koalpaca_tune import jsonl
    from koalpaca_tune.config import load

    source = load.find(name)
    if to.exists():
        raise KoalpacaError(
            "out-exists", "there is a file already.", where=str(to), fix="Choose another name; nothing was changed."
        )
    jsonl.replace(to, [source.read_text(encoding="utf-8")])
    click.echo(f"{to}")
