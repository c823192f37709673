"""KoBEST's published TSV files as lm-eval's tasks want them: the columns of skt/kobest_v1, without the Hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pandas as pd

NAMES = ("boolq", "copa", "wic", "hellaswag", "sentineg")
FOLDERS = dict(zip(NAMES, ("BoolQ", "COPA", "WiC", "HellaSwag", "SentiNeg"), strict=True))
SPLITS = {"train": "train", "validation": "dev", "test": "test"}
COLUMNS: dict[str, dict[str, str]] = {
    "boolq": {"Text": "paragraph", "Question": "question", "Answer": "label"},
    "copa": {
        "sentence": "premise",
        "question": "question",
        "1": "alternative_1",
        "2": "alternative_2",
        "Answer": "label",
    },
    "wic": {"Target": "word", "SENTENCE1": "context_1", "SENTENCE2": "context_2", "ANSWER": "label"},
    "hellaswag": {"context": "context", **{f"choice{n}": f"ending_{n}" for n in range(1, 5)}, "label": "label"},
    "sentineg": {"Text": "sentence", "Label": "label"},
}
"""Columns of the TSV files -> columns of skt/kobest_v1."""
CLASSES: dict[str, list[str]] = {
    "boolq": ["False", "True"],
    "copa": ["alternative_1", "alternative_2"],
    "wic": ["False", "True"],
    "hellaswag": [f"ending_{n}" for n in range(1, 5)],
    "sentineg": ["negative", "positive"],
}


def rows_of(name: str, root: Path) -> Callable[..., datasets.DatasetDict]:
    """What lm-eval calls in place of load_dataset, with a task's metadata."""

    def rows(**metadata: Any) -> datasets.DatasetDict:
        return published(name, root)

    return rows


def published(name: str, root: Path) -> datasets.DatasetDict:
    """The splits of a task with the columns of skt/kobest_v1."""
    columns = COLUMNS[name]
    texts = {column: datasets.Value("string") for column in columns.values() if column != "label"}
    features = datasets.Features({**texts, "label": datasets.ClassLabel(names=CLASSES[name])})
    found = {}
    for split, file in SPLITS.items():
        frame = pd.read_csv(root / "kobest" / FOLDERS[name] / f"{file}.tsv", sep="\t").dropna()
        frame = frame[list(columns)].rename(columns=columns)
        # truths become 0 and 1; COPA counts from 1
        frame["label"] = frame["label"].astype(int) - (1 if name == "copa" else 0)
        found[split] = datasets.Dataset.from_pandas(frame, features=features, preserve_index=False)
    return datasets.DatasetDict(found)
