"""Templates in plain text, for bases without chat tokens: KoAlpaca v1.1 and v1.0, KULLM v2.

They were published for one question and one answer. Further turns repeat the question and answer
blocks after the EOS of the answer before. None has a place for a system turn: its text goes first.

The learned span begins with the space of the first answer word (` {answer}`), never after a space
that belongs to the prompt: a byte-level BPE joins that space to the word, so the other cut would
put a token across the boundary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from koalpaca_tune.records import Conversation, Piece, Rendered, Turn
from koalpaca_tune.templates.template import Markers, content, frame, special

Question = Callable[[Turn], Iterable[Piece]]


def render(question: Question, answer_lead: str, preamble: Callable[[Turn], str]) -> Callable[..., Rendered]:
    """Builds the render function of a plain template.

    Args:
        question: the pieces of a user turn, up to and including the answer's heading.
        answer_lead: what stands between heading and answer, and is learned (a space, or nothing).
        preamble: fixed text before the first question, chosen by that turn.
    """

    def pieces(conversation: Conversation, markers: Markers) -> Iterator[Piece]:
        first = True
        for turn in conversation.turns:
            if turn.role == "system":
                yield content(turn.content.strip())
                yield frame("\n\n")
            elif turn.role == "user":
                yield frame(preamble(turn) if first else "\n\n")
                yield from question(turn)
                first = False
            else:
                yield content(answer_lead + turn.content.strip(), learn=True)
                yield special(markers.eos, learn=True)

    def rendered(conversation: Conversation, markers: Markers) -> Rendered:
        return Rendered(tuple(piece for piece in pieces(conversation, markers) if piece.text), conversation.origin)

    return rendered


def koalpaca_question(turn: Turn) -> Iterator[Piece]:
    """KoAlpaca v1.1: `### 질문: ...`, with `### 맥락: ...` when there is context."""
    yield frame("### 질문: ")
    yield content(turn.content.strip())
    if turn.context:
        yield frame("\n\n### 맥락: ")
        yield content(turn.context.strip())
    yield frame("\n\n### 답변:")


def blocks(instruction: str, context: str, answer: str) -> Question:
    """Heading lines with the text on the next line (KoAlpaca v1.0, KULLM v2)."""

    def question(turn: Turn) -> Iterator[Piece]:
        yield frame(f"{instruction}\n")
        yield content(turn.content.strip())
        if turn.context:
            yield frame(f"\n\n{context}\n")
            yield content(turn.context.strip())
        yield frame(f"\n\n{answer}")

    return question


KOALPACA_V1_0 = (
    "Below is an instruction that describes a task.\n"
    "아래는 작업을 설명하는 명령어입니다.\n\n"
    "Write a response that appropriately completes the request.\n"
    "명령어에 따른 요청을 적절히 완료하는 응답을 작성하세요.\n\n"
)
KOALPACA_V1_0_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context.\n"
    "아래는 작업을 설명하는 명령어와 추가적 맥락을 제공하는 입력이 짝을 이루는 예제입니다.\n\n"
    "Write a response that appropriately completes the request.\n"
    "요청을 적절히 완료하는 응답을 작성하세요.\n\n"
)
KULLM_V2 = "아래는 작업을 설명하는 명령어입니다. 요청을 적절히 완료하는 응답을 작성하세요.\n\n"
KULLM_V2_INPUT = (
    "아래는 작업을 설명하는 명령어와 추가 컨텍스트를 제공하는 입력이 짝을 이루는 예제입니다. "
    "요청을 적절히 완료하는 응답을 작성하세요.\n\n"
)

koalpaca = render(koalpaca_question, " ", lambda turn: "")
koalpaca_v1_0 = render(
    blocks("### Instruction(명령어):", "### Input(입력):", "### Response(응답):"),
    "",
    lambda turn: KOALPACA_V1_0_INPUT if turn.context else KOALPACA_V1_0,
)
kullm_v2 = render(
    blocks("### 명령어:", "### 입력:", "### 응답:\n"),
    "",
    lambda turn: KULLM_V2_INPUT if turn.context else KULLM_V2,
)
