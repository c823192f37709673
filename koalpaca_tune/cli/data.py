"""`koalpaca data`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from koalpaca_tune.cli import sources as described
from koalpaca_tune.cli import tokens as token_report
from koalpaca_tune.errors import KoalpacaError


@click.group()
def data() -> None:
    """학습 데이터 준비와 살펴보기 (prepare and look at training data).

    \b
    예 (example):
      koalpaca data prepare my.csv --out prepared
    """


@data.command()
@click.argument("files", nargs=-1)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="결과 폴더 (folder for the result).")
@click.option("--samples", is_flag=True, help="함께 제공되는 예시 데이터를 씀 (use the shipped samples).")
@click.option(
    "--preparation", "file", type=click.Path(path_type=Path), help="준비 파일, YAML (a preparation of your own)."
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="그 값 하나를 바꿈 (one of its keys).")
@click.option("--valid-share", type=float, help="검증에 쓸 비율, 기본 0.1 (share kept for validation, 0 to 1).")
@click.option("--shape", help="FILE들의 레코드 모양; 없으면 알아냄 (record shape of FILES; guessed).")
@click.option("--encoding", help="FILE들의 글자 인코딩; 없으면 알아냄 (encoding of FILES; found out).")
@click.option(
    "--column", multiple=True, metavar="뜻=열", help="열의 뜻: question=문의내용 answer=답글 (what a column means)."
)
@click.option("--licence", help="FILE들의 라이선스, 예: CC-BY-4.0 (licence of FILES; unknown when not given).")
@click.option("--data-root", help="공개 데이터 폴더: source:와 평가 문항 (local public sets).")
@click.option("--workers", type=click.IntRange(1), help="프로세스 수; 없으면 코어 수 (processes; else one a core).")
@click.option("--overwrite", is_flag=True, help="이미 있는 결과를 바꿈 (replace an earlier result).")
def prepare(
    files: tuple[str, ...],
    out: Path,
    samples: bool,
    file: Path | None,
    overrides: tuple[str, ...],
    valid_share: float | None,
    shape: str | None,
    encoding: str | None,
    column: tuple[str, ...],
    licence: str | None,
    data_root: str | None,
    workers: int | None,
    overwrite: bool,
) -> None:
    """FILE들을 읽어 train.jsonl, valid.jsonl과 보고서를 만듦.

    FILE: CSV, TSV, 엑셀, JSON, JSONL, Parquet(gzip, zstd도), 데이터셋 폴더, hf:user/name, source:name.

    \b
    예 (example):
      koalpaca data prepare 상담.csv more.jsonl --out prepared
    """
    import signal
    import sys

    from koalpaca_tune.cli import prepared
    from koalpaca_tune.cli.show import bar
    from koalpaca_tune.config import load
    from koalpaca_tune.config.preparation import Input
    from koalpaca_tune.runs.prepare import prepare as run

    given = list(overrides)
    if valid_share is not None:
        # no exponent: 1e-05 is text to YAML
        given.append(f"valid_share={valid_share:.15f}")
    if data_root is not None:
        given.append(f"data_root={json.dumps(data_root)}")
    chosen = load.preparation(file, given)
    columns = _columns(column)
    added = [Input(path="source:samples")] if samples else []
    # a described set says itself how it is read
    own = [path for path in files if not path.startswith("source:")]
    added += [
        Input(path=path, shape=shape, encoding=encoding, columns=columns, licence=licence)
        if path in own
        else Input(path=path)
        for path in files
    ]
    if not (chosen.inputs or added):
        raise click.UsageError("파일이 없습니다 (no file given). 예: koalpaca data prepare my.csv --out prepared")
    if (shape or encoding or columns or licence) and not own:
        raise click.UsageError(
            "--shape, --encoding, --column, --licence는 자기 FILE에 쓰입니다 (they need a FILE that is no source:)."
        )
    # a scheduler ends it so: what was begun is cleared away
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with bar("읽기 (read)") as update:
        report = run(
            chosen.model_copy(update={"inputs": [*chosen.inputs, *added]}),
            out,
            overwrite=overwrite,
            workers=workers or _workers(),
            progress=lambda name, rows: update(rows, None, name=STAGES[name]),
        )
    prepared.show(report, out)


def _workers() -> int:
    """One process for each core that this one may use; each holds about half a GiB, so not without end."""
    import os

    # macOS and Windows do not tell which cores a process may use
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, 16)


STAGES = {"read": "읽기 (read)", "compare": "견주기 (compare)", "write": "쓰기 (write)"}


def _columns(column: tuple[str, ...]) -> dict[str, str] | None:
    columns: dict[str, str] = {}
    for text in column:
        meaning, equals, name = text.partition("=")
        if not equals or not name:
            raise KoalpacaError(
                "override", f"'{text}' is not 뜻=열.", where="--column", fix="Example: --column question=문의내용"
            )
        if meaning.strip() in columns:
            raise KoalpacaError(
                "override", f"'{meaning.strip()}' is given twice.", where="--column", fix="Keep one."
            )
        columns[meaning.strip()] = name.strip()
    return columns or None


@data.command()
def preparation() -> None:
    """준비 파일의 모든 값과 설명 (every key of a preparation, explained; a start for a file of your own).

    \b
    예 (example):
      koalpaca data preparation > my-preparation.yaml
    """
    from koalpaca_tune.config import load
    from koalpaca_tune.config.preparation import Preparation

    click.echo(load.explained(Preparation()))


@data.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--count", type=click.IntRange(1), help="몇 개를 찍음; 없으면 넘겨 봄 (print so many; else page).")
@click.option("--skip", default=0, show_default=True, type=click.IntRange(0), help="앞에서 건너뛸 수 (skip first).")
@click.option("--grep", metavar="글", help="이 글이 든 것만, 대소문자 무시 (only what contains this text).")
@click.option("--source", help="이 출처만 (only this source).")
@click.option("--origin", metavar="FILE[:ROW]", help="이 파일이나 행에서 온 것만 (only from this file or row).")
@click.option("--id", "id_", help="이 id만, 앞부분만 적어도 됨 (only this id, or ids that begin so).")
@click.option("--reason", help="rejected.jsonl에서 이 이유만 (only rejected for this reason).")
@click.option("--sort-by", metavar="SIGNAL", help="품질 신호가 나쁜 것부터 (by a quality signal, worst first).")
@click.option("--reverse", is_flag=True, help="--sort-by를 거꾸로, 좋은 것부터 (best first).")
@click.option("--shuffle", type=int, metavar="SEED", help="섞어서; 같은 수면 같은 순서 (shuffled by this seed).")
@click.option("--tokens", is_flag=True, help="토큰으로: 배우는 토큰은 초록 (as tokens, the learned ones green).")
@click.option("--base", help="누구의 토크나이저, 기본 embedded; --tokens를 켬 (whose tokenizer; turns it on).")
@click.option("--template", help="프롬프트 템플릿, 기본 koalpaca; --tokens를 켬 (template; turns it on).")
def look(
    file: Path,
    count: int | None,
    skip: int,
    grep: str | None,
    source: str | None,
    origin: str | None,
    id_: str | None,
    reason: str | None,
    sort_by: str | None,
    reverse: bool,
    shuffle: int | None,
    tokens: bool,
    base: str | None,
    template: str | None,
) -> None:
    """기록을 읽음: train.jsonl, rejected.jsonl, 그 밖의 파일 (reads records on the terminal).

    화면에서는 넘겨 봅니다: n 다음, p 이전, /글 찾기, 숫자 이동, t 토큰, q 끝.

    \b
    예 (example):
      koalpaca data look prepared/train.jsonl
      koalpaca data look prepared/rejected.jsonl --reason row-empty
      koalpaca data look prepared/train.jsonl --base EleutherAI/polyglot-ko-12.8b --count 5
    """
    from koalpaca_tune.cli import viewer
    from koalpaca_tune.cli.entries import Filter

    if shuffle is not None and sort_by is not None:
        raise click.UsageError("--shuffle과 --sort-by는 함께 쓸 수 없습니다 (choose one).")
    if reverse and sort_by is None:
        raise click.UsageError("--reverse는 --sort-by와 함께 씁니다 (it goes with --sort-by).")
    viewer.show(
        file,
        Filter(grep, source, origin, id_, reason),
        viewer.Order(shuffle, sort_by, reverse),
        count=count,
        skip=skip,
        tokens=tokens or base is not None or template is not None,
        base=base or "embedded",
        template=template or "koalpaca",
    )


data.add_command(token_report.tokens)
data.add_command(described.sources)
data.add_command(described.source)
