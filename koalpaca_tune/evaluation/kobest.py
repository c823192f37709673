"""The five KoBEST files (Kim et al. 2022) as SKT-LSL/KoBEST_datarepo v1.0 publishes them.

Tab-separated, and each a little different: CRLF line ends but for HellaSwag; True, TRUE, False, FALSE in one
column; column order that changes from split to split, so columns go by name; COPA answers 1 and 2, and the
question word with a space behind it; WiC sentences with the word in [brackets]; spreadsheet quotes with
doubled quotes inside, in HellaSwag only. Texts are otherwise taken as published.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from koalpaca_tune import jsonl
from koalpaca_tune.errors import KoalpacaError

Parsed = tuple[Mapping[str, str], Sequence[str], int]
"""(fields, the item's own choices or none, index of the right choice)"""


def rows(path: Path, format: str) -> Iterator[tuple[str, str, Mapping[str, str], Sequence[str], int]]:
    """Yields (origin, id, fields, own choices, answer) for every line after the header.

    The id is the line number less one, unless the file has an ID column.

    Raises:
        KoalpacaError: a missing file (file-missing), missing columns (item-columns), a line with another number of
            cells (item-cells), a label or question word that is none (item-answer).
    """
    needed, parse = FORMATS[format]
    header: list[str] = []
    for number, text in jsonl.lines(path):
        origin = f"{path}:{number}"
        if not jsonl.is_utf8(text):
            raise KoalpacaError("item-encoding", "the line is not UTF-8.", where=origin, fix="Save it as UTF-8.")
        cells = [_unquoted(cell) for cell in text.rstrip("\r\n").split("\t")]
        if not header:
            header = cells
            missing = [column for column in needed if column not in header]
            if missing:
                raise KoalpacaError(
                    "item-columns",
                    f"there is no column '{missing[0]}' (found: {', '.join(header)}).",
                    where=origin,
                    fix=f"This task reads the {format} file of KoBEST v1.0.",
                )
            continue
        if len(cells) != len(header):
            raise KoalpacaError(
                "item-cells", f"the line has {len(cells)} cells, the header {len(header)}.", where=origin
            )
        row = dict(zip(header, cells, strict=True))
        fields, own, answer = parse(row, origin)
        yield origin, row.get("ID", str(number - 1)), fields, own, answer


def _unquoted(cell: str) -> str:
    # a text may begin with a quotation; only a cell that is quoted as a whole, with inner quotes doubled, is undone
    if re.fullmatch(r'"(?:[^"]|"")*""(?:[^"]|"")*"', cell):
        return cell[1:-1].replace('""', '"')
    return cell


def _truth(text: str, origin: str) -> int:
    value = text.strip().lower()
    if value not in ("true", "false"):
        raise _bad("answer", text, "True or False", origin)
    return int(value == "true")


def _number(text: str, first: int, last: int, origin: str) -> int:
    value = text.strip()
    if not (value.isascii() and value.isdigit() and first <= int(value) <= last):
        raise _bad("answer", text, f"a number from {first} to {last}", origin)
    return int(value) - first


def _bad(what: str, text: str, expected: str, origin: str) -> KoalpacaError:
    return KoalpacaError("item-answer", f"the {what} is '{text}', not {expected}.", where=origin)


def _boolq(row: Mapping[str, str], origin: str) -> Parsed:
    return {"paragraph": row["Text"], "question": row["Question"]}, (), _truth(row["Answer"], origin)


def _copa(row: Mapping[str, str], origin: str) -> Parsed:
    question = row["question"].strip()
    connectors = {"원인": " 왜냐하면", "결과": " 그래서"}
    if question not in connectors:
        raise _bad("question", row["question"], "원인 or 결과", origin)
    fields = {
        "premise": row["sentence"],
        "question": question,
        "connector": connectors[question],
        "alternative_1": row["1"],
        "alternative_2": row["2"],
    }
    return fields, (row["1"], row["2"]), _number(row["Answer"], 1, 2, origin)


def _wic(row: Mapping[str, str], origin: str) -> Parsed:
    fields = {"word": row["Target"].strip(), "context_1": row["SENTENCE1"], "context_2": row["SENTENCE2"]}
    return fields, (), _truth(row["ANSWER"], origin)


def _hellaswag(row: Mapping[str, str], origin: str) -> Parsed:
    endings = tuple(row[f"choice{n}"] for n in range(1, 5))
    return {"context": row["context"]}, endings, _number(row["label"], 0, 3, origin)


def _sentineg(row: Mapping[str, str], origin: str) -> Parsed:
    return {"sentence": row["Text"]}, (), _number(row["Label"], 0, 1, origin)


FORMATS: dict[str, tuple[tuple[str, ...], Callable[[Mapping[str, str], str], Parsed]]] = {
    "kobest-boolq": (("Text", "Question", "Answer"), _boolq),
    "kobest-copa": (("sentence", "question", "1", "2", "Answer"), _copa),
    "kobest-wic": (("Target", "SENTENCE1", "SENTENCE2", "ANSWER"), _wic),
    "kobest-hellaswag": (("context", "choice1", "choice2", "choice3", "choice4", "label"), _hellaswag),
    "kobest-sentineg": (("Text", "Label"), _sentineg),
}
"""Row format -> (columns it needs, reader)."""
