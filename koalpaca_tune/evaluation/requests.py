"""Items and conversations as requests to a model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace

from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.evaluation.items import Item
from koalpaca_tune.evaluation.protocol import Renderer
from koalpaca_tune.evaluation.tasks import TaskFile
from koalpaca_tune.records import Conversation, Piece, Rendered, Turn


def of_item(task: TaskFile, item: Item, render: Renderer) -> list[Rendered]:
    """One request for each choice; the learned span is what is scored.

    A question goes through the training template, so that what was trained is what is judged; the end token
    after the answer is cut off, because stopping is measured apart. A completion is plain text.
    """
    if task.form == "question":
        user = Turn("user", item.prompt, item.context)
        return [
            answer_only(render(Conversation((user, Turn("assistant", choice)), origin=item.origin)))
            for choice in item.choices
        ]
    if task.score == "whole":
        return [
            Rendered((Piece(item.prompt + choice, "content", learn=True),), item.origin) for choice in item.choices
        ]
    prompt = Piece(item.prompt, "content")
    return [Rendered((prompt, Piece(choice, "content", learn=True)), item.origin) for choice in item.choices]


def answer_only(rendered: Rendered) -> Rendered:
    """The same text with special tokens no longer learned, cut after the last answer's text."""
    pieces = [replace(p, learn=False) if p.kind == "special" else p for p in rendered.pieces]
    while pieces and not pieces[-1].learn:
        pieces.pop()
    return Rendered(tuple(pieces), rendered.origin)


def learned_characters(rendered: Rendered) -> int:
    """How many characters the learned spans have."""
    return sum(end - start for start, end in rendered.spans)


def question_of(conversation: Conversation) -> Conversation:
    """The conversation up to its last answer, for a model to answer.

    Raises:
        KoalpacaError: it has no answer (heldout-answer).
    """
    turns = conversation.turns
    for n in range(len(turns) - 1, -1, -1):
        if turns[n].role == "assistant":
            return Conversation(turns[:n], conversation.origin, conversation.source)
    raise KoalpacaError(
        "heldout-answer",
        "a held-out conversation has no answer to compare with.",
        where=conversation.origin,
        fix="Leave it out, or give it an assistant turn.",
    )


def reference_of(conversation: Conversation) -> str:
    """The text of the last answer (see question_of)."""
    return conversation.turns[len(question_of(conversation).turns)].content


PROBES: Sequence[Conversation] = (
    Conversation((Turn("user", "가 나"),), "probe"),
    Conversation((Turn("user", "가 나", "다"), Turn("assistant", "라 마."), Turn("user", "바")), "probe"),
    Conversation(
        (Turn("user", "가"), Turn("assistant", "나"), Turn("user", "다"), Turn("assistant", "라")), "probe"
    ),
)


def template_digest(render: Renderer) -> str:
    """A hash of what a template does: text, pieces and learned spans of fixed conversations.

    Two evaluations may be compared only if their templates did the same, whatever they are called.
    """
    seen = [[[p.text, p.kind, p.learn] for p in render(probe).pieces] for probe in PROBES]
    return hashlib.sha256(json.dumps(seen, ensure_ascii=False).encode()).hexdigest()[:16]
