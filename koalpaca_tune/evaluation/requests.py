"""Items and conversations as requests to a model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace

from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.evaluation.protocol import Renderer
from koalpaca_tune.records import Conversation, Piece, Rendered, Turn
from koalpaca_tune.suites.asking import ChoiceProfile, Profile
from koalpaca_tune.suites.item import Item


def of_choices(profile: ChoiceProfile, item: Item, render: Renderer) -> list[Rendered]:
    """One request for each choice; the learned span is what is scored.

    A question goes through the training template, so that what was trained is what is judged, its examples as
    earlier turns; the end token after the answer is cut off, because stopping is measured apart. A completion is
    plain text.
    """
    if profile.form == "question":
        turns = (*_shown(item), Turn("user", item.prompt, item.context))
        return [_last_answer(render(_with(turns, choice, item.origin))) for choice in item.choices]
    before = _before(profile, item)
    if profile.score == "whole":
        front = [Piece(before, "content")] if before else []
        return [
            Rendered((*front, Piece(item.prompt + choice, "content", learn=True)), item.origin)
            for choice in item.choices
        ]
    prompt = Piece(before + item.prompt, "content")
    return [Rendered((prompt, Piece(choice, "content", learn=True)), item.origin) for choice in item.choices]


def unconditional(profile: ChoiceProfile, item: Item, render: Renderer) -> list[Rendered]:
    """One request for each choice, after the prompt without its question; none without such a prompt."""
    if item.unconditional is None:
        return []
    return of_choices(profile, replace(item, prompt=item.unconditional, context=None, examples=()), render)


def to_answer(profile: Profile, item: Item, render: Renderer) -> Rendered:
    """The text after which an answer is written."""
    if profile.form == "question":
        turns = (*_shown(item), Turn("user", item.prompt, item.context))
        return to_continue(render(Conversation(turns, item.origin)))
    return Rendered((Piece(_before(profile, item) + item.prompt, "content"),), item.origin)


def to_continue(rendered: Rendered) -> Rendered:
    """The same text with nothing to learn: earlier answers in a prompt are read, whatever tokens they came from."""
    return Rendered(tuple(replace(piece, learn=False) for piece in rendered.pieces), rendered.origin)


def of_text(item: Item) -> Rendered:
    """Running text: the last part is scored, what is in front of it is read."""
    front = [Piece(item.prompt, "content")] if item.prompt else []
    return Rendered((*front, Piece(item.text, "content", learn=True)), item.origin)


def _shown(item: Item) -> Iterator[Turn]:
    for one in item.examples:
        yield Turn("user", one.prompt, one.context)
        yield Turn("assistant", one.answer)


def _with(turns: tuple[Turn, ...], answer: str, origin: str) -> Conversation:
    return Conversation((*turns, Turn("assistant", answer)), origin)


def _before(profile: Profile, item: Item) -> str:
    return "".join(f"{one.prompt}{one.answer}{profile.separator}" for one in item.examples)


def _last_answer(rendered: Rendered) -> Rendered:
    """As `answer_only`, with the answers of the examples no longer learned."""
    pieces = list(answer_only(rendered).pieces)
    at = len(pieces)
    while at and pieces[at - 1].learn:
        at -= 1
    pieces[:at] = [replace(piece, learn=False) for piece in pieces[:at]]
    return Rendered(tuple(pieces), rendered.origin)


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
