"""`koalpaca`: the commands. Each prints one clear line on a user's error and exits with status 2."""

from __future__ import annotations

import sys
from typing import Any

import click

from koalpaca_tune import __version__
from koalpaca_tune.cli import data, evaluate, hub, plan, recipe, train, use
from koalpaca_tune.cli.chat import chat
from koalpaca_tune.cli.diagnose import diagnose
from koalpaca_tune.cli.doctor import doctor
from koalpaca_tune.cli.export import export
from koalpaca_tune.cli.merge import merge
from koalpaca_tune.cli.serve import serve
from koalpaca_tune.cli.sweep import sweep
from koalpaca_tune.cli.web import web
from koalpaca_tune.errors import KoalpacaError, shown

ERRORS_PAGE = "docs/ko/errors.md"
OUT_OF_MEMORY = (
    "the card's memory is full. Lower engine.memory_budget or engine.micro_tokens, set "
    "engine.recompute=blocks, or lower data.max_length."
)


class Cli(click.Group):
    """The top group: turns user errors into one line each."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command; exit status 2 for what the user can mend, 130 when interrupted."""
        try:
            return super().invoke(ctx)
        except KoalpacaError as error:
            for problem in error.problems:
                click.echo(f"error [{problem.code}]: {problem}", err=True)
            codes = dict.fromkeys(problem.code for problem in error.problems)
            click.echo(f"설명: {', '.join(f'{ERRORS_PAGE}#{code}' for code in codes)}", err=True)
            ctx.exit(2)
        except KeyboardInterrupt:
            click.echo(
                "\n중단했습니다. 저장된 것은 그대로 있습니다. (interrupted; what was saved is kept)", err=True
            )
            ctx.exit(130)
        except BrokenPipeError:
            sys.stderr.close()
            ctx.exit(141)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            click.echo(shown(f"error [system]: {where}{error.strerror or error}."), err=True)
            click.echo(f"설명: {ERRORS_PAGE}#system", err=True)
            ctx.exit(2)
        except RuntimeError as error:
            # torch's own type, known by name: importing torch here would make every command slow
            if type(error).__name__ != "OutOfMemoryError":
                raise
            click.echo(f"error [out-of-memory]: {OUT_OF_MEMORY}", err=True)
            click.echo(f"설명: {ERRORS_PAGE}#out-of-memory", err=True)
            ctx.exit(2)


@click.group(cls=Cli, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="koalpaca")
def cli() -> None:
    """한국어 LLM 미세조정 도구 (Korean LLM fine-tuning).

    \b
    순서 (the way):
      koalpaca data prepare my.csv --out prepared
      koalpaca plan polyglot-ko-12.8b
      koalpaca train polyglot-ko-12.8b
      koalpaca eval EleutherAI/polyglot-ko-12.8b --adapter runs/polyglot-ko-12.8b/adapter --out judged
      koalpaca compare judged/base judged/adapter --out comparison
      koalpaca hub card runs/polyglot-ko-12.8b/adapter --comparison comparison
    """


cli.add_command(data.data)
cli.add_command(plan.plan)
cli.add_command(train.train)
cli.add_command(evaluate.evaluate)
cli.add_command(evaluate.compare)
cli.add_command(sweep)
cli.add_command(use.generate)
cli.add_command(chat)
cli.add_command(serve)
cli.add_command(web)
cli.add_command(merge)
cli.add_command(export)
cli.add_command(hub.hub)
cli.add_command(recipe.recipe)
cli.add_command(doctor)
cli.add_command(diagnose)


def main() -> None:
    """Entry point of the console script."""
    cli()


if __name__ == "__main__":
    main()
