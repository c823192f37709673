"""Templates of chat models: Llama-2, Llama-3, ChatML, and whatever template a tokenizer brings along.

None of these has a place for context; it follows the question after a blank line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import jinja2

from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.records import Conversation, Piece, Rendered, Turn
from koalpaca_tune.templates.template import Markers, content, frame, special

BEGIN, HEADER, HEADER_END, TURN_END = (
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
)
IM_START, IM_END = "<|im_start|>", "<|im_end|>"


def question(turn: Turn) -> str:
    """A turn's text with its context."""
    text = turn.content.strip()
    return f"{text}\n\n{turn.context.strip()}" if turn.context else text


def llama2(conversation: Conversation, markers: Markers) -> Rendered:
    """`{bos}[INST] {user} [/INST] {answer} {eos}` per exchange; the system text inside the first question."""

    def pieces() -> Iterator[Piece]:
        system = ""
        for turn in conversation.turns:
            if turn.role == "system":
                system = turn.content.strip()
            elif turn.role == "user":
                if markers.bos:
                    yield special(markers.bos)
                yield frame("[INST] ")
                if system:
                    yield frame("<<SYS>>\n")
                    yield content(system)
                    yield frame("\n<</SYS>>\n\n")
                    system = ""
                yield content(question(turn))
                yield frame(" [/INST]")
            else:
                yield content(" " + turn.content.strip(), learn=True)
                yield frame(" ", learn=True)
                yield special(markers.eos, learn=True)

    return Rendered(tuple(pieces()), conversation.origin)


def llama3(conversation: Conversation, markers: Markers) -> Rendered:
    """Header, blank line, text, `<|eot_id|>`."""

    def header(role: str) -> Iterator[Piece]:
        yield special(HEADER)
        yield frame(role)
        yield special(HEADER_END)
        yield frame("\n\n")

    def pieces() -> Iterator[Piece]:
        yield special(BEGIN)
        for turn in conversation.turns:
            learn = turn.role == "assistant"
            yield from header(turn.role)
            yield content(question(turn), learn=learn)
            yield special(TURN_END, learn=learn)
        if conversation.turns[-1].role != "assistant":
            yield from header("assistant")

    return Rendered(tuple(pieces()), conversation.origin)


def chatml(conversation: Conversation, markers: Markers) -> Rendered:
    """`<|im_start|>{role}\\n{text}<|im_end|>\\n`; the newline after the end is not learned."""

    def pieces() -> Iterator[Piece]:
        for turn in conversation.turns:
            learn = turn.role == "assistant"
            yield special(IM_START)
            yield frame(f"{turn.role}\n")
            yield content(question(turn), learn=learn)
            yield special(IM_END, learn=learn)
            yield frame("\n")
        if conversation.turns[-1].role != "assistant":
            yield special(IM_START)
            yield frame("assistant\n")

    return Rendered(tuple(pieces()), conversation.origin)


Apply = Callable[[list[dict[str, str]], bool], str]
"""(messages, add_generation_prompt) -> text: a tokenizer's own apply_chat_template."""


_FOREIGN = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What a template from elsewhere may raise: its own refusal, or any mistake in it."""


def tokenizer_own(apply: Apply, specials: Sequence[str]) -> Callable[[Conversation, Markers], Rendered]:
    """The tokenizer's own chat template; answers are found by rendering every prefix of the conversation.

    Args:
        apply: renders messages to text, special tokens spelt out.
        specials: the tokenizer's special tokens; outside the turns' own text they are real.
    """
    split = re.compile("(" + "|".join(re.escape(s) for s in sorted(specials, key=len, reverse=True)) + ")")

    def render(conversation: Conversation, markers: Markers) -> Rendered:
        messages = [{"role": turn.role, "content": question(turn)} for turn in conversation.turns]

        def text(messages: list[dict[str, str]], generate: bool) -> str:
            try:
                return apply(messages, generate)
            except _FOREIGN as error:
                raise _refused(conversation, error) from error

        asks = conversation.turns[-1].role != "assistant"
        whole = text(messages, asks)

        def upto(count: int, generate: bool) -> int:
            part = text(messages[:count], generate)
            if not whole.startswith(part):
                raise _moved(conversation)
            return len(part)

        answers = [n for n, turn in enumerate(conversation.turns) if turn.role == "assistant"]
        learned = [(upto(n, True), upto(n + 1, False)) for n in answers]
        stand_ins = [{**message, "content": f"\ue000{n}\ue001"} for n, message in enumerate(messages)]
        owned = _contents(messages, whole, text(stand_ins, asks))
        cuts = sorted({0, len(whole), *(at for span in (*learned, *owned) for at in span)})
        pieces: list[Piece] = []
        for start, end in pairwise(cuts):
            learn = any(a <= start and end <= b for a, b in learned)
            if any(a <= start and end <= b for a, b in owned):
                pieces.append(content(whole[start:end], learn=learn))
                continue
            for part in split.split(whole[start:end]) if specials else [whole[start:end]]:
                if part:
                    pieces.append(special(part, learn=learn) if part in specials else frame(part, learn=learn))
        return Rendered(tuple(pieces), conversation.origin)

    return render


def _moved(conversation: Conversation) -> KoalpacaError:
    return KoalpacaError(
        "template-prefix",
        "the tokenizer's chat template changes earlier text when a turn is added: answers cannot be located.",
        where=conversation.origin,
        fix="Choose a template by name instead (template: llama3, chatml, ...).",
    )


def _refused(conversation: Conversation, error: Exception) -> KoalpacaError:
    said = " ".join(str(error).split()) or type(error).__name__
    return KoalpacaError(
        "template-refused",
        f"the tokenizer's chat template refuses these turns: {said[:200].rstrip('.')}.",
        where=conversation.origin,
        fix="Choose a template by name instead (template: llama3, chatml, ...), or change the data.",
    )


_STAND_IN = re.compile("\ue000([0-9]+)\ue001")


def _contents(messages: list[dict[str, str]], whole: str, frame: str) -> list[tuple[int, int]]:
    """Where each message's own text stands in the rendered text, in order (not found: treated as frame).

    `frame` is the same conversation with stand-ins for the texts. A search for the texts themselves would
    take the template's own `<|im_start|>` for the text of a user who wrote just that.
    """
    spans: list[tuple[int, int]] = []
    rebuilt, at = "", 0
    for found in _STAND_IN.finditer(frame):
        own = messages[int(found[1])]["content"]
        rebuilt += frame[at : found.start()] + own
        spans.append((len(rebuilt) - len(own), len(rebuilt)))
        at = found.end()
    if rebuilt + frame[at:] == whole:
        return [span for span in spans if span[0] < span[1]]
    # the template changes a text (cuts its spaces, drops a part): look for it
    spans, at = [], 0
    for message in messages:
        start = whole.find(message["content"], at)
        if start >= 0 and message["content"]:
            at = start + len(message["content"])
            spans.append((start, at))
    return spans
