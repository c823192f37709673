"""Dialogues in the text of chat models: ChatML, Llama-3, Gemma, Llama-2."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from koalpaca_tune.data.shaping.ends import BEGINS, check_ends, unreadable, without_begin, without_end
from koalpaca_tune.data.shaping.roles import role_of
from koalpaca_tune.data.shaping.values import short, with_system
from koalpaca_tune.records import Turn


@dataclass(frozen=True, slots=True)
class Marks:
    """A format whose turns stand between a head with the role's name and a tail."""

    name: str
    head: str
    head_end: str
    tail: str


FORMATS = (
    Marks("chatml", "<|im_start|>", "\n", "<|im_end|>"),
    Marks("llama3", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    Marks("gemma", "<start_of_turn>", "\n", "<end_of_turn>"),
)
INST, INST_END = "[INST]", "[/INST]"
_SYSTEM = re.compile(r"\s*<<SYS>>(.*?)<</SYS>>(.*)", re.DOTALL)


def parse(text: str, origin: str) -> tuple[Turn, ...] | None:
    """The turns of a text that begins with a mark of a chat model (after the begin token); else None.

    Raises:
        KoalpacaError: it begins so and does not go on so (row-text), or a tool speaks (row-tool).
    """
    text = without_begin(text)
    if text.startswith(INST):
        return tuple(_llama2(text, origin))
    for form in FORMATS:
        if text.startswith(form.head):
            return tuple(_turns(form, text, origin))
    return None


def _turns(form: Marks, text: str, origin: str) -> Iterator[Turn]:
    chunks = text.split(form.head)
    for n, chunk in enumerate(chunks[1:], 1):
        said, found, rest = chunk.partition(form.head_end)
        # a generation prompt whose last newline was stripped
        if not found and not (n == len(chunks) - 1 and form.head_end == "\n"):
            raise unreadable(f"'{form.head}{short(chunk)}' is no head of a turn ({form.name}).", origin)
        role = role_of(said.strip(), f"the role of turn {n}", origin)
        content, tail, after = rest.partition(form.tail)
        last = n == len(chunks) - 1
        if last and role == "assistant" and not tail:
            content, _ = without_end(content)
            if content:
                yield Turn(role, content)
            return
        if not tail:
            raise unreadable(
                f"turn {n} does not end with {form.tail} ({form.name}).",
                origin,
                "If the marks are a part of its text, give the turns as a list of messages.",
            )
        if without_end(without_begin(after))[0]:
            raise unreadable(f"'{short(after.strip())}' stands after the end of turn {n} ({form.name}).", origin)
        yield Turn(role, content.strip())


def _llama2(text: str, origin: str) -> Iterator[Turn]:
    ended: list[bool] = []
    chunks = text.split(INST)
    turns: list[Turn] = []
    system = ""
    for n, chunk in enumerate(chunks[1:], 1):
        parts = chunk.split(INST_END)
        if len(parts) != 2:
            raise unreadable(
                f"question {n} has {len(parts) - 1} {INST_END}, not one (llama2).",
                origin,
                "If the marks are a part of its text, give the turns as a list of messages.",
            )
        asked, answered = parts
        if n == 1 and (found := _SYSTEM.fullmatch(asked)):
            system, asked = found[1].strip(), found[2]
        elif n > 1 and asked.lstrip().startswith("<<SYS>>"):
            raise unreadable(f"question {n} holds a system text; only the first may (llama2).", origin)
        turns.append(Turn("user", asked.strip()))
        last = n == len(chunks) - 1
        answer, has_end = without_end(answered if last else _without_last_begin(answered))
        if not last:
            ended.append(has_end)
        if answer or not last:
            turns.append(Turn("assistant", answer))
    check_ends(ended, True, INST, origin)
    yield from with_system(system, tuple(turns))


def _without_last_begin(text: str) -> str:
    text = text.rstrip()
    for token in BEGINS:
        # <|endoftext|> may be begin and end: what is left tells whether an end was there
        if text.endswith(token) and without_end(text[: -len(token)])[1]:
            return text[: -len(token)]
    return text
