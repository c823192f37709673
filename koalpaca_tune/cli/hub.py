"""`koalpaca hub`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from koalpaca_tune.config.recipe import Recipe
    from koalpaca_tune.hub.push import Plan, Sent
    from koalpaca_tune.hub.subject import Form


@click.group()
def hub() -> None:
    """모델 카드, 업로드, 내려받기 (model card, upload, download).

    \b
    예 (example):
      koalpaca hub card runs/demo/adapter --comparison runs/demo/comparison
    """


@hub.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--comparison", type=click.Path(path_type=Path), help="koalpaca compare의 결과 폴더 (its folder).")
@click.option("--adapter", type=click.Path(path_type=Path), help="합친 모델의 카드: 합친 어댑터 (what was merged).")
@click.option("--repo", help="user/name; 없으면 레시피의 hub.repo (from the recipe).")
@click.option(
    "--license", "license_", help="공개하는 것의 라이선스; 없으면 레시피의 hub.license (from the recipe)."
)
@click.option("--base-license", help="기반 모델의 라이선스; 없으면 아는 것만 (else what is known).")
@click.option("--data-license", multiple=True, help="데이터의 라이선스, 여러 번 가능 (repeatable).")
@click.option(
    "--usd-per-hour", type=click.FloatRange(0, min_open=True), help="기계의 시간당 값: 비용을 적음 (cost)."
)
@click.option(
    "--grams-per-kwh",
    type=click.FloatRange(0, 2000, min_open=True),
    help="전기의 탄소, g/kWh: 탄소를 적음 (carbon).",
)
def card(
    folder: Path,
    comparison: Path | None,
    adapter: Path | None,
    repo: str | None,
    license_: str | None,
    base_license: str | None,
    data_license: tuple[str, ...],
    usd_per_hour: float | None,
    grams_per_kwh: float | None,
) -> None:
    """어댑터, 합친 모델, 데이터의 카드를 그 폴더에 씀 (writes the card, README.md).

    \b
    예 (example):
      koalpaca hub card runs/demo/adapter --comparison runs/demo/comparison
      koalpaca hub card merged --adapter runs/demo/adapter
      koalpaca hub card prepared --license cc-by-4.0
    """
    from koalpaca_tune import jsonl
    from koalpaca_tune.cli.show import done
    from koalpaca_tune.hub import bundle
    from koalpaca_tune.hub import card as cards
    from koalpaca_tune.hub.cost import Rates

    if bundle.kind_of(folder) == "dataset":
        idle = {
            "--comparison": comparison,
            "--adapter": adapter,
            "--base-license": base_license,
            "--data-license": data_license or None,
            "--usd-per-hour": usd_per_hour,
            "--grams-per-kwh": grams_per_kwh,
        }
        _data_card(folder, repo, license_, [name for name, value in idle.items() if value is not None])
        return
    known, recipe = _made_by(adapter or folder)
    licence = license_ or recipe.hub.license
    path = cards.write(
        folder,
        comparison,
        repo=repo or recipe.hub.repo,
        license=licence,
        data_licenses=data_license or recipe.hub.data_licenses,
        base_license=base_license,
        rates=Rates(usd_per_hour, grams_per_kwh),
        adapter=adapter,
    )
    if comparison is not None:
        verdict = jsonl.read_json(comparison / "comparison.json")["verdict"]
        done(f"판정 (verdict): {verdict['headline']}. {verdict['korean']}")
    form: Form = "adapter" if bundle.kind_of(folder) == "adapter" else "merged" if adapter else "full"
    _said(cards.conflicts(known, licence, base_license, form))
    done(f"모델 카드 (model card): {path}")


def _data_card(folder: Path, repo: str | None, licence: str | None, idle: list[str]) -> None:
    from koalpaca_tune.cli.show import done
    from koalpaca_tune.hub import data_card

    if idle:
        raise click.UsageError(f"{idle[0]}: 데이터의 카드에는 쓰이지 않습니다 (not for data).")
    path = data_card.write(folder, repo=repo, license=licence)
    _said(data_card.conflicts(licence, data_card.sources(folder)))
    done(f"데이터 카드 (dataset card): {path}")


def _made_by(folder: Path) -> tuple[dict[str, Any], Recipe]:
    """The record and recipe of a run's adapter or model.

    Raises:
        KoalpacaError: it is a merged model (card-adapter), or none of a run (adapter-missing).
    """
    from koalpaca_tune.errors import KoalpacaError
    from koalpaca_tune.runs import record

    if _is_merged(folder):
        raise KoalpacaError(
            "card-adapter",
            "it is a merged model, whose record does not tell the training.",
            where=str(folder),
            fix="Give the adapter that was merged: --adapter runs/NAME/adapter.",
        )
    return record.of_adapter(folder)


def _is_merged(folder: Path) -> bool:
    from koalpaca_tune import jsonl
    from koalpaca_tune.hub import bundle, facts

    path = folder / facts.RECORD
    return bundle.kind_of(folder) == "model" and path.is_file() and jsonl.read_json(path).get("kind") == "merged"


def _said(lines: Any) -> None:
    from koalpaca_tune.cli.show import console

    for said in lines:
        console.print(f"! {said.ko} ({said.en})", style="yellow", markup=False, soft_wrap=True)


@hub.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--repo", help="user/name; 없으면 레시피의 hub.repo (from the recipe).")
@click.option("--private/--public", default=None, help="비공개 여부; 없으면 레시피의 hub.private, 아니면 비공개.")
@click.option("--revision", help="커밋할 가지; 없으면 main (branch).")
@click.option("--tag", help="커밋에 붙일 이름, 예: v1.0 (a name for the commit).")
@click.option(
    "--replace", is_flag=True, help="저장소에 남은 다른 가중치를 같은 커밋에서 지움 (delete old weights)."
)
@click.option("--yes", is_flag=True, help="정말로 올림; 없으면 보여 주기만 (really send; otherwise only show).")
def push(
    folder: Path,
    repo: str | None,
    private: bool | None,
    revision: str | None,
    tag: str | None,
    replace: bool,
    yes: bool,
) -> None:
    """어댑터, 합친 모델, 데이터, 비교 보고서를 올림: --yes가 없으면 보이기만 (sends only with --yes).

    \b
    예 (example):
      koalpaca hub push runs/polyglot-ko-12.8b/adapter --repo me/my-adapter --yes
      koalpaca hub push comparison --repo me/my-adapter --yes
    """
    from koalpaca_tune.cli.show import done
    from koalpaca_tune.errors import KoalpacaError
    from koalpaca_tune.hub import push as pushing

    recipe = _recipe(folder)
    target = repo or (recipe.hub.repo if recipe else None)
    if target is None:
        raise KoalpacaError(
            "hub-repo", "there is no repository name.", where="hub push", fix="Give --repo user/name."
        )
    wanted = private if private is not None else recipe.hub.private if recipe else True
    plan = pushing.plan(folder, target, wanted, branch=revision, tag=tag, replace=replace)
    _show(plan)
    if not yes:
        done("아무것도 보내지 않았습니다. 보내려면 --yes를 붙이세요. (nothing was sent)")
        return
    sent = pushing.send(plan, pushing.token(), say=done)
    _report(plan, sent)


def _recipe(folder: Path) -> Recipe | None:
    """The recipe of a run's adapter or model; what is of another kind is told on the command line alone."""
    from koalpaca_tune.hub import bundle
    from koalpaca_tune.runs import record

    tuned = bundle.kind_of(folder) in ("adapter", "model") and not _is_merged(folder)
    return record.of_adapter(folder)[1] if tuned else None


def _show(plan: Plan) -> None:
    from koalpaca_tune.cli.show import console, done, table

    where = "" if plan.branch == "main" else f" @ {plan.branch}"
    kind = "private" if plan.private else "public"
    if plan.kind == "report":
        kind = "the repository stays as visible as it is"
    table(
        f"올릴 파일 (to be sent to {plan.repo}{where}, {plan.kind}, {kind})",
        [(name, f"{size:,} bytes") for name, size in plan.files],
    )
    if plan.stays:
        done(f"보내지 않음 (stays here): {', '.join(plan.stays)}")
    if plan.kind == "report" and "items.jsonl" in plan.stays:
        console.print(
            "! 보고서에 문항과 답의 글이 들어 있습니다. 공개해도 되는 데이터인지 확인하세요; koalpaca compare "
            "--without-texts는 글 없이 만듭니다. (the report shows texts of the items)",
            style="yellow",
            markup=False,
            soft_wrap=True,
        )


def _report(plan: Plan, sent: Sent) -> None:
    from koalpaca_tune.cli.show import done

    if not sent.sent and not sent.deleted:
        done("모든 파일이 이미 그대로 있습니다: 커밋하지 않았습니다. (everything lies there already)")
    if sent.deleted:
        done(f"지웠습니다 (deleted): {', '.join(sent.deleted)}")
    done(f"다시 내려받아 한 바이트씩 견주고 열어 봄 (downloaded and compared): {len(sent.loaded)}")
    if sent.compared:
        done(f"Hub의 SHA-256과 견줌 (compared by digest): {len(sent.compared)}")
    tag = f", {plan.tag}" if plan.tag else ""
    done(f"올렸습니다 (sent): {plan.repo} @ {sent.commit}{tag}")


@hub.command()
@click.argument("repo")
@click.option("--out", type=click.Path(path_type=Path), help="새 폴더; 없으면 adapters/NAME (a new folder).")
@click.option("--revision", help="가지, 태그, 커밋; 없으면 main의 새 것 (branch, tag or commit).")
@click.option("--base", help="기반 모델; 없으면 어댑터가 말하는 것 (else what the adapter names).")
@click.option("--template", help="템플릿: 우리 기록이 없는 어댑터에만 (only for an adapter without our record).")
@click.option("--4bit/--full", "four_bit", default=None, help="기반 모델을 4비트로 읽을지: 위와 같음 (likewise).")
def pull(
    repo: str,
    out: Path | None,
    revision: str | None,
    base: str | None,
    template: str | None,
    four_bit: bool | None,
) -> None:
    """공개된 어댑터를 검사하고 받음, 남의 것도 (downloads and checks any published adapter).

    \b
    예 (example):
      koalpaca hub pull me/my-adapter
      koalpaca hub pull someone/polyglot-lora --template koalpaca --4bit
    """
    from huggingface_hub import get_token

    from koalpaca_tune.cli import pulled
    from koalpaca_tune.cli.show import done
    from koalpaca_tune.hub import pull as pulling

    folder = out or Path("adapters") / repo.rpartition("/")[2]
    choice = pulling.Choice(base, template, four_bit)
    pulled.show(pulling.pull(repo, folder, choice, revision=revision, token=get_token(), say=done))
