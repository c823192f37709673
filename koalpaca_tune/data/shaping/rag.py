"""A question, the documents that were found for it, and an answer that cites them as [1], [2]."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from koalpaca_tune.data.rows import Row
from koalpaca_tune.data.shaping.columns import (
    ANSWERS,
    CONTEXTS,
    OUTPUTS,
    QUESTIONS,
    Columns,
    Index,
    pair,
    single,
    system,
)
from koalpaca_tune.data.shaping.shape import Shape
from koalpaca_tune.data.shaping.values import cell, listed, short, text, with_system
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.records import Conversation, Turn

DOCUMENTS = (
    *("documents", "document", "docs", "passages", "contexts", "ctxs"),
    *(
        "retrieved_documents",
        "retrieved_contexts",
        "문서",
        "문서들",
        "문서목록",
        "검색결과",
        "검색문서",
        "참고문서",
    ),
)
CITATIONS = ("citations", "citation", "cited", "인용", "출처번호")
TITLE_KEYS = ("title", "제목")
BODY_KEYS = ("text", "content", "contents", "passage", "body", "본문", "내용")
ID_KEYS = ("id", "doc_id", "docid", "document_id")

_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)
_CITED = re.compile(r"\[(\d{1,4}(?:\s*[,\-–~]\s*\d{1,4})*)\]")


def _find(names: Index) -> Columns | None:
    return _columns(names, single(names, DOCUMENTS, "documents"))


def _find_row(names: Index) -> Columns | None:
    return _columns(
        names, single(names, DOCUMENTS, "documents") or single(names, CONTEXTS, "documents (the context)")
    )


def _columns(names: Index, documents: str | None) -> Columns | None:
    found = pair(names, ((QUESTIONS, (*ANSWERS, *OUTPUTS)),)) if documents else None
    if found is None:
        return None
    return Columns(
        question=found[0],
        answer=found[1],
        documents=documents,
        citations=single(names, CITATIONS, "citations"),
        system=system(names),
    )


def grounded(row: Row, columns: Columns) -> Conversation:
    """The documents, numbered, as context of the question; the answer with its citations.

    Raises:
        KoalpacaError: no documents, or one without text (row-shape, row-type); a citation of a document
            that is not there, or that differs from the column of citations (row-citation).
    """
    documents = _documents(row.values.get(columns.documents or ""), columns.documents or "", row.origin)
    answer = cell(row, columns.answer)
    cited = _cited(answer)
    _check(cited, len(documents), row.origin)
    if columns.citations and row.values.get(columns.citations) is not None:
        said = _numbers(row.values[columns.citations], [name for name, _ in documents], row.origin)
        _check(said, len(documents), row.origin)
        if not cited and answer.strip():
            answer = f"{answer.rstrip()} {''.join(f'[{number}]' for number in said)}".rstrip()
        elif set(cited) != set(said):
            raise KoalpacaError(
                "row-citation",
                f"the answer cites {_spelt(cited)}, the column '{short(columns.citations)}' {_spelt(said)}.",
                where=row.origin,
                fix="Documents are counted from 1.",
            )
    context = "\n\n".join(f"[{n}] {body}" for n, (_, body) in enumerate(documents, 1))
    turns = (Turn("user", cell(row, columns.question), context), Turn("assistant", answer))
    return Conversation(with_system(cell(row, columns.system), turns), row.origin)


def _documents(given: Any, name: str, origin: str) -> list[tuple[str, str]]:
    found = listed(given)
    if found is None and isinstance(given, dict):
        found = [given]
    if not found:
        raise KoalpacaError(
            "row-shape",
            f"'{short(name)}' is {short(repr(given))}, not a list of documents.",
            where=origin,
            fix="One text beside a question is its context: columns: {question: ..., context: ..., answer: ...}.",
        )
    return [_document(one, f"{short(name)}[{n}]", origin) for n, one in enumerate(found)]


def _document(given: Any, what: str, origin: str) -> tuple[str, str]:
    title = identity = ""
    body = given
    if isinstance(given, Mapping):
        body_key = next((key for key in BODY_KEYS if given.get(key) is not None), None)
        if body_key is None:
            raise KoalpacaError(
                "row-shape",
                f"{what} has {short(', '.join(map(repr, given))) or 'nothing'}.",
                where=origin,
                fix="A document is a text, or has a text (or content), and perhaps a title.",
            )
        body = given[body_key]
        title_key = next((key for key in TITLE_KEYS if given.get(key) is not None), None)
        title = text(given[title_key], f"{what}.{title_key}", origin).strip() if title_key else ""
        identity = str(next((given[key] for key in ID_KEYS if given.get(key) is not None), ""))
    body = text(body, what, origin).strip()
    if not body:
        raise KoalpacaError("row-shape", f"{what} has no text.", where=origin, fix="Leave the document out.")
    return identity, f"{title}\n{body}" if title else body


def _cited(answer: str) -> list[int]:
    """Numbers of the cited documents, each once, in order; what stands in code is no citation."""
    numbers: dict[int, None] = {}
    for found in _CITED.finditer(_CODE.sub("", answer)):
        for part in re.split(r"\s*,\s*", found[1]):
            first, *rest = (int(number) for number in re.split(r"\s*[\-–~]\s*", part))
            # [1-3] cites 2 as well; a range that is none is caught by its ends
            span = range(first, rest[-1] + 1) if rest and rest[-1] - first < 100 else [first, *rest]
            numbers.update(dict.fromkeys((first, *span, *rest)))
    return list(numbers)


def _numbers(given: Any, identities: Sequence[str], origin: str) -> list[int]:
    parts: list[Any]
    if isinstance(given, str) and not given.lstrip().startswith("["):
        parts = [part for part in re.split(r"[\s,;]+", given.strip()) if part]
    elif isinstance(given, int):
        parts = [given]
    else:
        parts = listed(given) if given != "" else []  # type: ignore[assignment]
        if parts is None:
            raise _bad(given, origin)
    # documents with names of their own are cited by these
    named = {name: n for n, name in enumerate(identities, 1)} if all(identities) else {}
    if named and all(isinstance(part, str | int) and str(part) in named for part in parts):
        return list(dict.fromkeys(named[str(part)] for part in parts))
    return list(dict.fromkeys(_number(part, origin) for part in parts))


def _number(given: Any, origin: str) -> int:
    if isinstance(given, int) and not isinstance(given, bool):
        return given
    if isinstance(given, str) and (found := re.fullmatch(r"\[?(\d{1,4})\]?", given.strip())):
        return int(found[1])
    raise _bad(given, origin)


def _bad(given: Any, origin: str) -> KoalpacaError:
    return KoalpacaError(
        "row-citation",
        f"{short(repr(given))} names no document.",
        where=origin,
        fix="Citations are numbers counted from 1, or the ids of the documents.",
    )


def _check(cited: Sequence[int], documents: int, origin: str) -> None:
    wrong = [number for number in cited if not 1 <= number <= documents]
    if wrong:
        raise KoalpacaError(
            "row-citation",
            f"it cites {_spelt(wrong)}, and there {'is' if documents == 1 else 'are'} {documents} "
            f"document{'' if documents == 1 else 's'}.",
            where=origin,
            fix="Documents are counted from 1.",
        )


def _spelt(numbers: Sequence[int]) -> str:
    return "".join(f"[{number}]" for number in numbers[:8]) or "nothing"


rag = Shape(
    "rag",
    "question/documents/answer or 질문/문서/답변",
    grounded,
    _find,
    _find_row,
    proof="one row",
)
"""A question, the documents found for it, and an answer that cites them."""
