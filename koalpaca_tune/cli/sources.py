"""`koalpaca data sources` and `koalpaca data source`: the public sets that are described, and their terms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import click

if TYPE_CHECKING:
    from koalpaca_tune.data.sources import Source
    from koalpaca_tune.data.terms import Flag

FLAGS: dict[Flag, str] = {True: "예 (yes)", False: "아니오 (no)", "unknown": "⚠ 알 수 없음 (unknown)"}
TRANSLATED = {
    "no": "아니오 (no)",
    "machine": "기계 (machine)",
    "people": "사람 (people)",
    "mixed": "일부 (partly)",
    "unknown": "알 수 없음 (unknown)",
}


@click.command()
def sources() -> None:
    """공개 데이터의 목록과 라이선스 (public data sets, with their licences).

    \b
    예 (example):
      koalpaca data sources
      koalpaca data prepare source:nsmc --data-root FOLDER --out prepared
    """
    from rich.table import Table

    from koalpaca_tune.cli.show import console, done
    from koalpaca_tune.data import sources as described

    shown = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("이름", "라이선스", "상업적 이용", "기록", "어디서"):
        justify: Literal["left", "right"] = "right" if name == "기록" else "left"
        # a name is typed again after source:, so it stays in one piece
        shown.add_column(name, justify=justify, overflow="fold", no_wrap=name == "이름")
    for name in described.names():
        source = described.load(name)
        size = "-" if source.records is None else f"{source.records:,}"
        shown.add_row(name, source.licence, _commercial(source), size, _where(source))
    console.print(shown)
    console.print()
    done("자세히 (details): koalpaca data source NAME")


@click.command()
@click.argument("name")
def source(name: str) -> None:
    """한 데이터의 조건과 알려진 문제, 쓰는 법 (one set: its terms, its problems, how to use it).

    \b
    예 (example):
      koalpaca data source kobest
    """
    from koalpaca_tune.cli.show import done, table
    from koalpaca_tune.data import sources as described

    found = described.load(name)
    table(
        f"{name}: {found.title}",
        [
            ("주소 (url)", found.url or "이 패키지에 들어 있음 (in this package)"),
            ("Hub", found.hub),
            ("판 (revision)", found.revision or "고정되지 않음 (not pinned)"),
            ("라이선스 (licence)", found.licence),
            ("비상업 (non-commercial)", FLAGS[found.noncommercial]),
            ("동일조건 (share-alike)", FLAGS[found.sharealike]),
            ("변경 금지 (no derivatives)", FLAGS[found.noderivatives]),
            ("다른 모델의 글 (made with)", ", ".join(found.made_with) or None),
            ("번역 (translated)", TRANSLATED[found.translated]),
            ("겹치는 데이터 (overlaps)", ", ".join(found.overlaps) or None),
        ],
    )
    table("지킬 것 (obligations)", [("-", f"{said.ko}\n{said.en}") for said in found.terms.obligations])
    if found.problems:
        table("알려진 문제 (known problems)", [("-", f"{said.ko}\n{said.en}") for said in found.problems])
    table("구성 (parts)", _parts(found))
    done(f"쓰는 법 (use): koalpaca data prepare source:{name}{_option(found)} --out prepared")


def _parts(found: Source) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = []
    for part in found.parts:
        where = part.file or f"hf:{found.hub} {(part.hub.config or '') if part.hub else ''}".strip()
        held = "" if part.split == "train" else " (평가용: 학습에 쓰지 않음, held out)"
        task = f"source:{found.name}/{part.task}" if part.task and part.split == "train" else None
        phrasings = f"{len(found.tasks[part.task].phrasings)}가지로 물음" if part.task else None
        size = None if part.rows is None else f"{part.rows:,}행"
        rows.append((where, ", ".join(filter(None, (part.split + held, size, task, phrasings)))))
    return rows


def _option(found: Source) -> str:
    local = any(part.file for part in found.parts if part.split == "train")
    needed = local and found.url is not None and not any(part.hub for part in found.parts)
    return " --data-root FOLDER" if needed else ""


def _commercial(found: Source) -> str:
    return {True: "⚠ 안 됨", False: "됨", "unknown": "⚠ 알 수 없음"}[found.noncommercial]


def _where(found: Source) -> str:
    places = []
    trained = [part for part in found.parts if part.split == "train"]
    if found.url is None:
        places.append("패키지")
    elif any(part.file for part in trained):
        places.append(f"FOLDER/{found.folder}")
    if any(part.hub for part in trained):
        places.append(f"hf:{found.hub}" + ("" if found.revision else " (고정되지 않음)"))
    return ", ".join(places)
