"""The named templates as Jinja chat templates, for programs that know no other: vLLM, transformers, llama.cpp.

A server that guesses the prompt's form ruins a tuned model without a word of warning. So the exported
model carries the form it was trained on, character for character.

Every text stands in an expression (`{{- "..." -}}`), so no setting of the engine about blanks matters. The
tokenizer's begin and end tokens are written out: what a program calls `bos_token` differs between programs.
A message may have `context` beside `content`, as our turns do. Turns out of order are refused, as in training.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from koalpaca_tune.templates import chat, plain
from koalpaca_tune.templates.template import Markers

_TEXT = "(message['content'] | trim)"
_CONTEXT = "(message['context'] | trim)"
_HAS_CONTEXT = "'context' in message and message['context']"
ORDER = "Turns alternate: user, assistant, user, ...; a system turn only at the start."


def source(name: str, markers: Markers, *, adds_bos: bool = False) -> str | None:
    """The Jinja source of a named template; None for the tokenizer's own, which the tokenizer has already.

    Args:
        name: a name of `TEMPLATES`.
        markers: the tokenizer's begin and end tokens.
        adds_bos: whether the tokenizer itself puts BOS in front: the text of a chat template is tokenised
            without that, so the template says it.
    """
    writer = WRITERS.get(name)
    if writer is None:
        return None
    bos = markers.bos if adds_bos and name not in _BEGIN_THEMSELVES else None
    return "".join([_say(_text(bos)) if bos else "", *writer(markers)])


def _text(text: str) -> str:
    """A string literal that Jinja reads."""
    return json.dumps(text, ensure_ascii=False)


def _say(*parts: str) -> str:
    return f"{{{{- {' ~ '.join(parts)} -}}}}"


def _when(condition: str, then: str, other: str = "") -> str:
    otherwise = f"{{%- else -%}}{other}" if other else ""
    return f"{{%- if {condition} -%}}{then}{otherwise}{{%- endif -%}}"


def _turns(system: str, user: str, assistant: str) -> Iterator[str]:
    """The loop over messages, with what each role writes; any other order of roles is refused."""
    yield "{%- set seen = namespace(turns=0, system='') -%}{%- for message in messages -%}"
    yield f"{{%- if message['role'] == 'system' and loop.first -%}}{system}"
    for role, rest, body in (("user", 0, user), ("assistant", 1, assistant)):
        yield f"{{%- elif message['role'] == '{role}' and seen.turns % 2 == {rest} -%}}{body}"
        yield "{%- set seen.turns = seen.turns + 1 -%}"
    yield f"{{%- else -%}}{_say(f'raise_exception({_text(ORDER)})')}{{%- endif -%}}{{%- endfor -%}}"


def _plain(lead: str, preamble: tuple[str, str], question: str) -> Callable[[Markers], Iterator[str]]:
    """A template of `plain`: preamble without and with context, then question blocks and answers."""

    def write(markers: Markers) -> Iterator[str]:
        without, within = (_text(text) for text in preamble)
        apart = _when("seen.turns > 0", _say(_text("\n\n")))
        if any(preamble):
            first = _say(f"({within} if {_HAS_CONTEXT} else {without})")
            apart = _when("seen.turns > 0", _say(_text("\n\n")), first)
        yield from _turns(
            _say(_TEXT, _text("\n\n")),
            apart + question,
            _say(_text(lead), _TEXT, _text(markers.eos)),
        )

    return write


def _blocks(instruction: str, context: str, answer: str) -> str:
    """As `plain.blocks`."""
    given = _when(_HAS_CONTEXT, _say(_text(f"\n\n{context}\n"), _CONTEXT))
    return _say(_text(f"{instruction}\n"), _TEXT) + given + _say(_text(f"\n\n{answer}"))


_KOALPACA = (
    _say(_text("### 질문: "), _TEXT)
    + _when(_HAS_CONTEXT, _say(_text("\n\n### 맥락: "), _CONTEXT))
    + _say(_text("\n\n### 답변:"))
)

_QUESTION = _say(_TEXT) + _when(_HAS_CONTEXT, _say(_text("\n\n"), _CONTEXT))
"""A question of the chat templates: the context follows after a blank line."""


def _llama2(markers: Markers) -> Iterator[str]:
    folded = _say(_text("<<SYS>>\n"), "seen.system", _text("\n<</SYS>>\n\n")) + "{%- set seen.system = '' -%}"
    yield from _turns(
        f"{{%- set seen.system = {_TEXT} -%}}",
        _say(_text((markers.bos or "") + "[INST] "))
        + _when("seen.system", folded)
        + _QUESTION
        + _say(_text(" [/INST]")),
        _say(_text(" "), _TEXT, _text(" " + markers.eos)),
    )


def _headed(begin: str, head: str, after: str, end: str) -> Callable[[Markers], Iterator[str]]:
    """Llama-3 and ChatML: `{head}{role}{after}{text}{end}`, and the head of the answer to come."""

    def write(markers: Markers) -> Iterator[str]:
        if begin:
            yield _say(_text(begin))
        open_ = _say(_text(head), "message['role']", _text(after))
        close = _say(_text(end))
        yield from _turns(open_ + _say(_TEXT) + close, open_ + _QUESTION + close, open_ + _say(_TEXT) + close)
        yield _when(
            "add_generation_prompt and seen.turns % 2 == 1", _say(_text(head), _text("assistant"), _text(after))
        )

    return write


WRITERS: dict[str, Callable[[Markers], Iterator[str]]] = {
    "koalpaca": _plain(" ", ("", ""), _KOALPACA),
    "koalpaca-v1.0": _plain(
        "",
        (plain.KOALPACA_V1_0, plain.KOALPACA_V1_0_INPUT),
        _blocks("### Instruction(명령어):", "### Input(입력):", "### Response(응답):"),
    ),
    "kullm-v2": _plain(
        "", (plain.KULLM_V2, plain.KULLM_V2_INPUT), _blocks("### 명령어:", "### 입력:", "### 응답:\n")
    ),
    "llama2": _llama2,
    "llama3": _headed(chat.BEGIN, chat.HEADER, f"{chat.HEADER_END}\n\n", chat.TURN_END),
    "chatml": _headed("", chat.IM_START, "\n", f"{chat.IM_END}\n"),
}
"""Name of a template -> its Jinja source, for a tokenizer's markers."""

_BEGIN_THEMSELVES = ("llama2", "llama3")
"""Templates that write BOS as their first token."""
