"""`koalpaca hub`."""

from __future__ import annotations

from pathlib import Path

import click


@click.group()
def hub() -> None:
    """모델 카드와 업로드 (model card and upload).

    \b
    예 (example):
      koalpaca hub card runs/demo/adapter --comparison runs/demo/report
    """
