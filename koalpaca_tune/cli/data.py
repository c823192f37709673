"""`koalpaca data`."""

from __future__ import annotations

from pathlib import Path

import click

from koalpaca_tune.errors import KoalpacaError

SAMPLES = ("chat.csv", "tasks.jsonl", "dialogues.jsonl")


@click.group()
def data() -> None:
    """학습 데이터 준비와 살펴보기 (prepare and look at training data).

    \b
    예 (example):
      koalpaca data prepare my.csv --out prepared
    """


@data.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option("--samples", is_flag=True, help="함께 제공되는 예시 데이터를 씀 (use the shipped samples).")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="결과 폴더 (folder for the result).")
@click.option(
    "--valid-share", default=0.1, show_default=True, help="검증에 쓸 비율 (share kept for validation, 0 to 1)."
)
@click.option("--shape", help="레코드 모양; 없으면 열 이름으로 알아냄 (record shape; guessed from the columns).")
@click.option("--encoding", help="글자 인코딩; 없으면 알아냄 (encoding; found out when not given).")
@click.option("--overwrite", is_flag=True, help="이미 있는 결과를 바꿈 (replace an earlier result).")
def prepare(
    files: tuple[Path, ...],
    samples: bool,
    out: Path,
    valid_share: float,
    shape: str | None,
    encoding: str | None,
    overwrite: bool,
) -> None:
    """FILE들을 읽어 train.jsonl, valid.jsonl과 보고서를 만듦 (CSV, TSV, JSON, JSONL).

    \b
    예 (example):
      koalpaca data prepare 상담.csv more.jsonl --out prepared
    """
    if not files and not samples:
        raise click.UsageError("파일이 없습니다 (no file given). 예: koalpaca data prepare my.csv --out prepared")
    from koalpaca_tune import resources
    from koalpaca_tune.cli.show import bar, done, table
    from koalpaca_tune.data.prepare import prepare as run
    from koalpaca_tune.data.report import REASONS, STEPS

    with bar("읽기 (read)") as update:
        report = run(
            [*(resources.DATA / "samples" / name for name in SAMPLES if samples), *files],
            out,
            valid_share=valid_share,
            shape=shape,
            encoding=encoding,
            overwrite=overwrite,
            progress=lambda name, rows: update(rows, None, name=name),
        )
    for file in report.files:
        read_as = ", ".join(filter(None, (file.format, file.encoding, file.delimiter, f"shape {file.shape}")))
        table(
            file.name,
            [
                ("읽은 방법 (read as)", read_as),
                ("열 (columns)", ", ".join(file.columns)),
                ("쓰지 않은 열 (unused)", ", ".join(file.unused) or None),
                ("행 (rows)", file.rows),
            ],
        )
    table(
        "단계마다 (stages)",
        [
            ("읽은 행 (rows)", report.rows),
            *((f"제외: {REASONS[code]} ({code})", count) for code, count in report.rejected.items()),
            *((f"고침: {STEPS[step]} ({step})", count) for step, count in report.cleaned.items()),
            ("중복 (duplicates)", report.duplicates),
            ("답이 여럿인 질문 (conflicting)", report.conflicting_questions),
            ("학습 (train)", report.train),
            ("검증 (valid)", report.valid),
        ],
    )
    done(f"학습 (train): {out / 'train.jsonl'}")
    done(f"검증 (valid): {out / 'valid.jsonl'}")
    done(f"보고서 (report): {out / 'report.html'}")


@data.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--base", default="embedded", show_default=True, help="토크나이저를 가져올 모델 (whose tokenizer).")
@click.option("--template", default="koalpaca", show_default=True, help="프롬프트 템플릿 (prompt template).")
@click.option("--count", default=3, show_default=True, type=click.IntRange(1), help="몇 개 (how many examples).")
@click.option("--skip", default=0, show_default=True, type=click.IntRange(0), help="앞에서 건너뛸 수 (skip first).")
def look(file: Path, base: str, template: str, count: int, skip: int) -> None:
    """예시를 토큰으로 보여 줌: 배우는 토큰은 초록 (examples with the learned tokens coloured).

    \b
    예 (example):
      koalpaca data look prepared/train.jsonl --base EleutherAI/polyglot-ko-12.8b
    """
    from itertools import islice

    from koalpaca_tune.cli import look as show
    from koalpaca_tune.data.load import conversations
    from koalpaca_tune.models import tokenizer
    from koalpaca_tune.tokens.encode import Encoder

    vocabulary = tokenizer.load(base)
    encoder = Encoder(vocabulary, vocabulary.template(template))
    chosen = list(islice(conversations(file), skip, skip + count))
    if not chosen:
        raise KoalpacaError(
            "look-nothing", f"there are no more than {skip} records.", where=str(file), fix="Lower --skip."
        )
    for encoded in encoder.conversations(chosen):
        show.example(encoded, encoder)
