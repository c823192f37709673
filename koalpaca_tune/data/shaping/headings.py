"""Dialogues in plain text under headings: KoAlpaca, KULLM, Alpaca, guanaco, SOLAR, Anthropic's HH.

The formats of one question and one answer (`### 질문:`, `### 답변:`) have further turns only after an end
token; in those of a dialogue (`### Human:`, `### Assistant:`) turns follow each other as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from koalpaca_tune.data.shaping.ends import check_ends, unreadable, without_begin, without_end
from koalpaca_tune.data.shaping.values import with_system
from koalpaca_tune.records import Turn

Part = Literal["system", "question", "context", "answer"]

_NEXT: Mapping[str, tuple[Part, ...]] = {
    "": ("system", "question"),
    "system": ("question",),
    "question": ("context", "answer"),
    "context": ("answer",),
    "answer": ("question",),
}
"""What may follow each part ("" is the start)."""


@dataclass(frozen=True, slots=True)
class Headings:
    """A format of headings.

    Attributes:
        name: as the prompt format is called.
        parts: heading -> what stands under it.
        preambles: fixed text before the first heading.
        dialogue: turns follow each other without end tokens.
        inline: headings stand within lines, too (`### Human: ...### Assistant: ...`).
        paragraphs: a heading counts only at the start of a paragraph.
    """

    name: str
    parts: Mapping[str, Part]
    preambles: tuple[str, ...] = ()
    dialogue: bool = False
    inline: bool = False
    paragraphs: bool = False
    in_line: re.Pattern[str] = field(init=False)
    at_start: re.Pattern[str] = field(init=False)

    def __post_init__(self) -> None:
        spelt = "|".join(re.escape(heading) for heading in sorted(self.parts, key=len, reverse=True))
        # a heading after an opening quote is spoken about; after a closing one (an answer's end) it is one
        object.__setattr__(self, "in_line", re.compile(f"(?<![“‘「『])(?<!\\s[`'\"])({spelt})"))
        start = r"(?:\A|(?<=\n\n)|(?<=\n\r\n))" if self.paragraphs else "^"
        object.__setattr__(self, "at_start", re.compile(f"{start}({spelt})", re.MULTILINE))

    @property
    def wanted(self) -> str:
        """The headings, for messages."""
        return " ".join(heading for heading, part in self.parts.items() if part in ("question", "answer"))

    def marks(self, text: str) -> list[re.Match[str]]:
        """The headings in a text, in order."""
        if self.inline:
            return list(self.in_line.finditer(text))
        found = list(self.at_start.finditer(text))
        if any(self.parts[mark[1]] == "answer" for mark in found):
            return found
        # all on one line: then each heading may stand there only once
        within = list(self.in_line.finditer(text))
        return within if len({mark[1] for mark in within}) == len(within) > len(found) else found

    def first(self, text: str) -> int | None:
        """Where the first question stands in a text; None: it is not of this format."""
        pattern = self.in_line if self.inline else self.at_start
        return next((mark.start() for mark in pattern.finditer(text) if self.parts[mark[1]] == "question"), None)


_ALPACA_EN = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.",
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.",
)
_KOALPACA_V1_0 = (
    "Below is an instruction that describes a task.\n아래는 작업을 설명하는 명령어입니다.\n\n"
    "Write a response that appropriately completes the request.\n"
    "명령어에 따른 요청을 적절히 완료하는 응답을 작성하세요.",
    "Below is an instruction that describes a task, paired with an input that provides further context.\n"
    "아래는 작업을 설명하는 명령어와 추가적 맥락을 제공하는 입력이 짝을 이루는 예제입니다.\n\n"
    "Write a response that appropriately completes the request.\n"
    "요청을 적절히 완료하는 응답을 작성하세요.",
)
_KULLM = (
    "아래는 작업을 설명하는 명령어입니다. 요청을 적절히 완료하는 응답을 작성하세요.",
    "아래는 작업을 설명하는 명령어와 추가 컨텍스트를 제공하는 입력이 짝을 이루는 예제입니다. "
    "요청을 적절히 완료하는 응답을 작성하세요.",
)


def _one_answer(name: str, question: str, context: str, answer: str, preambles: tuple[str, ...]) -> Headings:
    return Headings(name, {question: "question", context: "context", answer: "answer"}, preambles)


FORMATS = (
    _one_answer("koalpaca", "### 질문:", "### 맥락:", "### 답변:", ()),
    _one_answer("kullm-v2", "### 명령어:", "### 입력:", "### 응답:", _KULLM),
    _one_answer(
        "koalpaca-v1.0",
        "### Instruction(명령어):",
        "### Input(입력):",
        "### Response(응답):",
        _KOALPACA_V1_0,
    ),
    _one_answer("alpaca", "### Instruction:", "### Input:", "### Response:", _ALPACA_EN),
    Headings(
        "guanaco",
        {"### System:": "system", "### Human:": "question", "### Assistant:": "answer"},
        dialogue=True,
        inline=True,
    ),
    Headings(
        "solar",
        {"### System:": "system", "### User:": "question", "### Assistant:": "answer"},
        dialogue=True,
    ),
    Headings("hh", {"Human:": "question", "Assistant:": "answer"}, dialogue=True, paragraphs=True),
)
"""The formats, each with headings of its own."""


def parse(text: str, origin: str) -> tuple[Turn, ...] | None:
    """The turns of a text under headings; None when it holds no first heading of any format.

    Text before the first heading, other than the format's fixed preamble, is the system turn. A heading
    without an answer under it, at the end, is the place for one: the turns end with the question.

    Raises:
        KoalpacaError: it begins like a format and is not of it (row-text).
    """
    text = without_begin(text)
    starts = [(at, form) for form in FORMATS if (at := form.first(text)) is not None]
    if not starts:
        return None
    form = min(starts, key=lambda start: start[0])[1]
    marks = form.marks(text)
    turns = tuple(_turns(form, text, marks, origin))
    return with_system(_before(form, text[: marks[0].start()]), turns)


def _before(form: Headings, text: str) -> str:
    text = text.strip()
    for preamble in form.preambles:
        if text.endswith(preamble):
            return text[: -len(preamble)].strip()
    return text


def _turns(form: Headings, text: str, marks: list[re.Match[str]], origin: str) -> Iterator[Turn]:
    before, question, ended = "", "", []
    last = len(marks) - 1
    bounds = [mark.start() for mark in marks[1:]] + [len(text)]
    context: str | None = None
    for n, (mark, end) in enumerate(zip(marks, bounds, strict=True)):
        part, under = form.parts[mark[1]], text[mark.end() : end].strip()
        if part not in _NEXT[before]:
            raise unreadable(
                f"'{mark[1]}' stands after '{marks[n - 1][1]}'." if n else f"it starts with '{mark[1]}'.",
                origin,
                f"The format {form.name} has {form.wanted} in turn; one of these may be a part of the text.",
            )
        if part == "system" and under:
            yield Turn("system", under)
        elif part == "question":
            question, context = under, None
        elif part == "context":
            context = under or None
        elif part == "answer":
            yield Turn("user", question, context)
            answer, has_end = without_end(under)
            if n < last:
                ended.append(has_end)
            if answer or n < last:
                yield Turn("assistant", answer)
        before = part
    if before in ("question", "context"):
        if not form.dialogue:
            raise unreadable(
                f"there is '{marks[-1][1]}', and no answer after it.",
                origin,
                f"The format {form.name} has {form.wanted} in turn.",
            )
        yield Turn("user", without_end(question)[0])
    check_ends(ended, not form.dialogue, marks[0][1], origin)
