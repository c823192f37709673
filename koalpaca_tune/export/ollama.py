"""An Ollama Modelfile: where the weights are, the prompt's form in Ollama's own template language, where to stop.

Ollama renders with Go's text/template and knows messages with a role and a content, no context. Every text
stands in an action (`{{ "..." }}`), so blanks of the file mean nothing. Begin of text is left to llama.cpp, which
puts it in front where the tokenizer does. Go's templates cannot cut blanks at the ends of a message: clients
should not send any.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.templates import chat, plain
from koalpaca_tune.templates.template import Markers


def modelfile(weights: str, template: str, markers: Markers, *, adds_bos: bool, context: int) -> str:
    """The text of a Modelfile.

    Args:
        weights: the GGUF file as Ollama finds it from the Modelfile: with `./` where it lies beside.
        template: name of the template.
        markers: the tokenizer's begin and end tokens.
        adds_bos: whether the tokenizer puts BOS in front by itself.
        context: tokens of prompt and answer together.

    Raises:
        KoalpacaError: a template that is not one of ours (export-template).
    """
    stops = [markers.eos, *_STOPS.get(template, ())]
    lines = [
        f"FROM {weights}",
        f'TEMPLATE """{source(template, markers, adds_bos=adds_bos)}"""',
        *(f"PARAMETER stop {_text(stop)}" for stop in dict.fromkeys(stops)),
        f"PARAMETER num_ctx {context}",
    ]
    return "\n".join(lines) + "\n"


def source(template: str, markers: Markers, *, adds_bos: bool) -> str:
    """A named template in Go's text/template, over `.Messages`.

    Raises:
        KoalpacaError: not one of ours (export-template).
    """
    writer = WRITERS.get(template)
    if writer is None:
        raise KoalpacaError(
            "export-template",
            f"the template '{template}' cannot be written for Ollama.",
            where="template",
            fix=f"Known: {', '.join(WRITERS)}.",
        )
    return writer(markers, adds_bos)


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _say(text: str) -> str:
    return f"{{{{ {_text(text)} }}}}" if text else ""


_CONTENT = "{{ .Content }}"


def _turns(system: str, user: str, assistant: str, *, before: str = "", after: str = "") -> str:
    return (
        f'{before}{{{{ range .Messages }}}}{{{{ if eq .Role "system" }}}}{system}'
        f'{{{{ else if eq .Role "user" }}}}{user}{{{{ else if eq .Role "assistant" }}}}{assistant}'
        f"{{{{ end }}}}{{{{ end }}}}{after}"
    )


Writer = Callable[[Markers, bool], str]
"""(markers, whether llama.cpp itself puts BOS in front) -> source."""


def _plain(lead: str, preamble: str, question: tuple[str, str]) -> Writer:
    def write(markers: Markers, adds_bos: bool) -> str:
        first = _say(preamble) + "{{ $first = false }}"
        apart = "{{ if $first }}" + first + "{{ else }}" + _say("\n\n") + "{{ end }}"
        return _turns(
            _CONTENT + _say("\n\n"),
            apart + _say(question[0]) + _CONTENT + _say(question[1]),
            _say(lead) + _CONTENT + _say(markers.eos),
            before="{{ $first := true }}",
        )

    return write


def _llama2(markers: Markers, adds_bos: bool) -> str:
    told = _say("<<SYS>>\n") + "{{ $system }}" + _say("\n<</SYS>>\n\n")
    folded = "{{ if $system }}" + told + '{{ $system = "" }}{{ end }}'
    return _turns(
        "{{ $system = .Content }}",
        # every exchange begins with BOS; the first one's is llama.cpp's where it puts one in front
        "{{ if $told }}"
        + _say(markers.bos or "")
        + "{{ end }}{{ $told = true }}"
        + _say("[INST] ")
        + folded
        + _CONTENT
        + _say(" [/INST]"),
        _say(" ") + _CONTENT + _say(" " + markers.eos),
        before=f'{{{{ $system := "" }}}}{{{{ $told := {"false" if adds_bos else "true"} }}}}',
    )


def _headed(begin: str, head: str, middle: str, end: str) -> Writer:
    def write(markers: Markers, adds_bos: bool) -> str:
        turn = _say(head) + "{{ .Role }}" + _say(middle) + _CONTENT + _say(end)
        before = "" if adds_bos else _say(begin)
        return _turns(turn, turn, turn, before=before, after=_say(f"{head}assistant{middle}"))

    return write


WRITERS: dict[str, Writer] = {
    "koalpaca": _plain(" ", "", ("### 질문: ", "\n\n### 답변:")),
    "koalpaca-v1.0": _plain("", plain.KOALPACA_V1_0, ("### Instruction(명령어):\n", "\n\n### Response(응답):")),
    "kullm-v2": _plain("", plain.KULLM_V2, ("### 명령어:\n", "\n\n### 응답:\n")),
    "llama2": _llama2,
    "llama3": _headed(chat.BEGIN, chat.HEADER, f"{chat.HEADER_END}\n\n", chat.TURN_END),
    "chatml": _headed("", chat.IM_START, "\n", f"{chat.IM_END}\n"),
}
"""Name of a template -> its source."""

_STOPS = {"llama3": (chat.TURN_END,), "chatml": (chat.IM_END,)}
