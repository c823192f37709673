"""A question with the answer that was preferred and the one that lost.

Texts beside a prompt; or both as lists of messages (TRL, UltraFeedback) or as whole dialogues in text
(Anthropic's HH), which then have to share everything but their last answer.
"""

from __future__ import annotations

from dataclasses import replace

from koalpaca_tune.data.rows import Row
from koalpaca_tune.data.shaping import texts
from koalpaca_tune.data.shaping.columns import Columns, Index, context, single, system
from koalpaca_tune.data.shaping.dialogues import in_order, is_messages, turns_of
from koalpaca_tune.data.shaping.pairs import find_question
from koalpaca_tune.data.shaping.shape import Shape
from koalpaca_tune.data.shaping.values import cell, short, with_system
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.records import Conversation, Turn

CHOSEN = ("chosen", "chosen_response", "preferred", "선택", "선택답변", "채택", "채택답변", "선호", "선호답변")
REJECTED = (
    *("rejected", "rejected_response", "dispreferred"),
    *("거부", "거부답변", "거절", "거절답변", "비채택", "비선호", "비선호답변", "탈락"),
)


def _find(names: Index) -> Columns | None:
    chosen, rejected = single(names, CHOSEN, "chosen answer"), single(names, REJECTED, "rejected answer")
    if chosen is None or rejected is None:
        return None
    question = find_question(names) or ""
    return Columns(
        question=question,
        answer=chosen,
        rejected=rejected,
        context=context(names, question),
        system=system(names),
    )


def preferred(row: Row, columns: Columns) -> Conversation:
    """The question with the chosen answer; the other one is kept as `dispreferred`.

    Raises:
        KoalpacaError: no text and no messages (row-type, row-shape), nothing in common or no difference
            (row-preference), no rejected answer (row-empty), or turns out of order (row-turns).
    """
    prompt, rendered = _prompt(row, columns.question)
    chosen, rejected = (
        _side(row, name, needed=not prompt, perhaps=rendered) for name in (columns.answer, columns.rejected or "")
    )
    if chosen[:-1] != rejected[:-1]:
        raise _differ("the dialogues before the two answers are not the same", row)
    won, lost = chosen[-1], rejected[-1]
    if won.role != "assistant" or lost.role != "assistant":
        raise _differ("one of them does not end with an answer", row)
    if not lost.content.strip():
        raise KoalpacaError("row-empty", "the rejected answer is empty.", where=row.origin)
    if won.content.strip() == lost.content.strip():
        raise _differ("the two answers are the same", row)
    lead = _with_context(_lead(prompt, chosen[:-1], row), cell(row, columns.context), row)
    turns = with_system(cell(row, columns.system), (*lead, won))
    conversation = Conversation(turns, row.origin, dispreferred=lost.content)
    in_order(conversation)
    return conversation


def _prompt(row: Row, name: str) -> tuple[tuple[Turn, ...], bool]:
    """The turns of the prompt, and whether it was text that had been rendered for training."""
    given = row.values.get(name) if name else None
    if is_messages(given):
        return turns_of(given, name, row), False
    asked = cell(row, name)
    if not asked.strip():
        return (), False
    # the marks of a prompt format are no words of the user
    found = texts.turns(asked, row.origin)
    return found or (Turn("user", asked),), found is not None


def _side(row: Row, name: str, *, needed: bool, perhaps: bool) -> tuple[Turn, ...]:
    given = row.values.get(name)
    if is_messages(given):
        return turns_of(given, name, row)
    answer = cell(row, name)
    dialogue = texts.turns(answer, row.origin) if needed or perhaps else None
    if dialogue is None and needed:
        raise KoalpacaError(
            "row-shape",
            f"there is no prompt, and '{short(name)}' holds no dialogue.",
            where=row.origin,
            fix="Give a prompt (질문), or whole dialogues in both.",
        )
    return dialogue or (Turn("assistant", answer),)


def _with_context(lead: tuple[Turn, ...], context: str, row: Row) -> tuple[Turn, ...]:
    if not context.strip() or not lead:
        return lead
    last = lead[-1]
    if last.role != "user" or last.context is not None:
        raise KoalpacaError(
            "row-shape",
            "the context has no question of its own to stand with.",
            where=row.origin,
            fix="Put it into the messages.",
        )
    return (*lead[:-1], replace(last, context=context))


def _lead(prompt: tuple[Turn, ...], shared: tuple[Turn, ...], row: Row) -> tuple[Turn, ...]:
    if not shared:
        return prompt
    # UltraFeedback repeats the question beside the dialogues that hold it
    asked = [turn.content.strip() for turn in shared if turn.role == "user"]
    if any(turn.role == "user" and turn.content.strip() not in asked for turn in prompt):
        raise _differ("the prompt is not the question of the dialogues", row)
    return shared


def _differ(what: str, row: Row) -> KoalpacaError:
    return KoalpacaError(
        "row-preference",
        f"{what}: they make no pair.",
        where=row.origin,
        fix="A pair answers one question in two ways.",
    )


preference = Shape(
    "preference",
    "prompt/chosen/rejected or 질문/선택/거부, as texts or lists of messages",
    preferred,
    _find,
    proof="one row",
)
"""A question with the answer that was preferred and the one that lost."""
