"""`koalpaca hub`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


@click.group()
def hub() -> None:
    """모델 카드와 업로드 (model card and upload).

    \b
    예 (example):
      koalpaca hub card runs/demo/adapter --comparison runs/demo/comparison
    """


@hub.command()
@click.argument("adapter", type=click.Path(path_type=Path))
@click.option("--comparison", type=click.Path(path_type=Path), help="koalpaca compare의 결과 폴더 (its folder).")
@click.option("--repo", help="user/name; 없으면 레시피의 hub.repo (from the recipe).")
@click.option("--license", "license_", help="어댑터의 라이선스; 없으면 레시피의 hub.license (from the recipe).")
@click.option("--data-license", multiple=True, help="데이터의 라이선스, 여러 번 가능 (repeatable).")
def card(
    adapter: Path, comparison: Path | None, repo: str | None, license_: str | None, data_license: tuple[str, ...]
) -> None:
    """한국어 모델 카드를 어댑터 폴더에 씀 (writes the model card, README.md).

    \b
    예 (example):
      koalpaca hub card runs/demo/adapter --comparison runs/demo/comparison
    """
    from koalpaca_tune import jsonl
    from koalpaca_tune.cli.show import done
    from koalpaca_tune.hub import card as cards
    from koalpaca_tune.runs import record

    known, recipe = record.of_adapter(adapter)
    licence = license_ or recipe.hub.license
    path = cards.write(
        adapter,
        comparison,
        repo=repo or recipe.hub.repo,
        license=licence,
        data_licenses=data_license or recipe.hub.data_licenses,
    )
    if comparison is not None:
        verdict = jsonl.read_json(comparison / "comparison.json")["verdict"]
        done(f"판정 (verdict): {verdict['headline']}. {verdict['korean']}")
    _warn(licence, known)
    done(f"모델 카드 (model card): {path}")


def _warn(licence: str | None, record: dict[str, Any]) -> None:
    """Where the data's licences do not fit the adapter's: said, and left to the user."""
    from koalpaca_tune.cli.show import console
    from koalpaca_tune.data import licences
    from koalpaca_tune.hub import facts

    for said in licences.conflicts(licence, facts.sources(record) or []):
        console.print(f"! {said.ko} ({said.en})", style="yellow", markup=False, soft_wrap=True)


@hub.command()
@click.argument("adapter", type=click.Path(path_type=Path))
@click.option("--repo", help="user/name; 없으면 레시피의 hub.repo (from the recipe).")
@click.option("--private/--public", default=None, help="비공개 여부; 없으면 레시피의 hub.private.")
@click.option("--yes", is_flag=True, help="정말로 올림; 없으면 보여 주기만 (really send; otherwise only show).")
def push(adapter: Path, repo: str | None, private: bool | None, yes: bool) -> None:
    """올릴 것을 보이고, --yes와 토큰이 있을 때만 올림 (shows what would be sent; sends only with --yes).

    \b
    예 (example):
      koalpaca hub push runs/polyglot-ko-12.8b/adapter --repo me/my-adapter --yes
    """
    from koalpaca_tune.cli.show import done, table
    from koalpaca_tune.errors import KoalpacaError
    from koalpaca_tune.hub import push as pushing
    from koalpaca_tune.runs import record

    known, recipe = record.of_adapter(adapter)
    target = repo or recipe.hub.repo
    if target is None:
        raise KoalpacaError(
            "hub-repo", "there is no repository name.", where="hub push", fix="Give --repo user/name."
        )
    plan = pushing.plan(adapter, target, recipe.hub.private if private is None else private)
    table(
        f"올릴 파일 (to be sent to {plan.repo}, {'private' if plan.private else 'public'})",
        [(name, f"{size:,} bytes") for name, size in plan.files],
    )
    _warn(recipe.hub.license, known)
    if not yes:
        done("아무것도 보내지 않았습니다. 보내려면 --yes를 붙이세요. (nothing was sent)")
        return
    done(f"올렸습니다 (sent): {pushing.send(plan, pushing.token())}")
