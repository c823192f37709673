"""A whole dialogue in one column, in the text of some prompt format, parsed back into turns."""

from __future__ import annotations

from koalpaca_tune.data.rows import Row
from koalpaca_tune.data.shaping import headings, marked
from koalpaca_tune.data.shaping.columns import Columns, Index, single, system
from koalpaca_tune.data.shaping.dialogues import in_order
from koalpaca_tune.data.shaping.ends import unreadable
from koalpaca_tune.data.shaping.shape import Shape
from koalpaca_tune.data.shaping.values import cell, short, with_system
from koalpaca_tune.records import Conversation, Turn

TEXTS = ("text", "prompt", "content", "글", "텍스트")

FORMATS = (*(form.name for form in (*headings.FORMATS, *marked.FORMATS)), "llama2")
"""Names of the formats that are parsed."""

LOOKED_FOR = "; ".join(
    (*(form.wanted for form in headings.FORMATS), *(form.head for form in marked.FORMATS), "[INST]")
)


def turns(text: str, origin: str) -> tuple[Turn, ...] | None:
    """The turns of a text in one of `FORMATS`; None when it begins like none.

    Raises:
        KoalpacaError: it begins like a format and is not of it (row-text, row-tool).
    """
    return marked.parse(text, origin) or headings.parse(text, origin)


def written(row: Row, columns: Columns) -> Conversation:
    """The dialogue that a column holds.

    Raises:
        KoalpacaError: not text (row-type), of no format (row-text), or turns out of order (row-turns).
    """
    given = cell(row, columns.text)
    found = turns(given, row.origin)
    if found is None:
        raise unreadable(
            f"'{short(columns.text)}' begins with '{short(given.strip())}' and holds no dialogue that is known.",
            row.origin,
            f"Looked for: {LOOKED_FOR}.",
        )
    conversation = Conversation(with_system(cell(row, columns.system), found), row.origin)
    in_order(conversation)
    return conversation


def _find(names: Index) -> Columns | None:
    found = single(names, TEXTS, "text of a dialogue")
    return Columns(text=found, system=system(names)) if found else None


text = Shape(
    "text",
    "text with ### 질문: ... ### 답변: ..., ### Human: ..., [INST] ..., <|im_start|> ...",
    written,
    _find,
    proof="most rows",
)
"""A whole dialogue in one column, parsed back into turns."""
