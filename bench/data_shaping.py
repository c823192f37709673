"""Shapes on real text: rows per second, formats parsed back, and headings that stand inside answers.

python bench/data_shaping.py ../shared/data
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import zstandard

from koalpaca_tune.data.rows import Row
from koalpaca_tune.data.shaping import shapes
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.records import Conversation, Turn
from koalpaca_tune.templates.registry import TEMPLATES
from koalpaca_tune.templates.template import Markers

ARTICLES = 3_000
INSIDE = {
    "koalpaca": ("\n\n### 답변: 글", "\n\n### 질문: 가\n\n### 답변: 나"),
    "kullm-v2": ("\n\n### 응답:\n글", "\n\n### 명령어:\n가\n\n### 응답:\n나"),
    "llama2": (" [/INST] 글", " [INST] 가 [/INST] 나"),
    "llama3": (
        "<|start_header_id|>user<|end_header_id|>\n\n글",
        "<|start_header_id|>user<|end_header_id|>\n\n가<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n나<|eot_id|>",
    ),
    "chatml": (
        "<|im_start|>user\n글",
        "<|im_start|>user\n가<|im_end|>\n<|im_start|>assistant\n나<|im_end|>\n",
    ),
    "guanaco": ("### Assistant: 글", "### Human: 가### Assistant: 나"),
}
"""Template -> one of its headings, and a whole exchange, as they may stand in the middle of an answer."""


def chatbot(data: Path) -> list[tuple[str, str]]:
    """Questions and answers of Chatbot_data."""
    with (data / "chatbot_data/ChatbotData.csv").open(encoding="utf-8-sig", newline="") as file:
        return [(row["Q"].strip(), row["A"].strip()) for row in csv.DictReader(file)]


def articles(data: Path) -> list[tuple[str, str]]:
    """Titles and texts of the first Wikipedia articles."""

    def rows() -> Iterator[tuple[str, str]]:
        with (data / "kowiki/kowiki.jsonl.zst").open("rb") as file:
            stream = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), "utf-8")
            for line in itertools.islice(stream, ARTICLES):
                row = json.loads(line)
                yield row["title"].strip(), row["text"].strip()

    return list(rows())


def rendered(template: str, question: str, answer: str) -> str:
    """The exchange in a template's text."""
    if template == "guanaco":
        return f"### Human: {question}### Assistant: {answer}"
    turns = (Turn("user", question), Turn("assistant", answer))
    return TEMPLATES[template].render(Conversation(turns), Markers("<s>", "</s>")).text


def outcome(text: str, question: str, answer: str) -> str:
    """What became of a text: same, rejected or mangled."""
    try:
        made = shapes.SHAPES["text"](Row("f:1", {"text": text}))
    except KoalpacaError:
        return "rejected"
    same = isinstance(made, Conversation) and [turn.content for turn in made.turns] == [question, answer]
    return "same" if same else "mangled"


def counted(template: str, pairs: list[tuple[str, str]], inside: str = "") -> str:
    """The outcomes of all pairs, `inside` put into the middle of each answer."""
    counts: Counter[str] = Counter()
    for question, answer in pairs:
        half = len(answer) // 2
        whole = answer[:half] + inside + answer[half:]
        counts[outcome(rendered(template, question, whole), question, whole)] += 1
    return "  ".join(f"{name} {counts[name]:,}" for name in ("same", "rejected", "mangled"))


def speed(pairs: list[tuple[str, str]]) -> None:
    """Prints rows per second of each shape, the best of three."""
    rows = {
        "qa": lambda q, a: {"질문": q, "답변": a},
        "alpaca": lambda q, a: {"instruction": q, "input": "", "output": a},
        "koalpaca": lambda q, a: {"instruction": q, "output": a, "url": ""},
        "messages": lambda q, a: {
            "messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]
        },
        "squad": lambda q, a: {"context": a, "question": q, "answers": {"text": [a], "answer_start": [0]}},
        "preference": lambda q, a: {"prompt": q, "chosen": a, "rejected": f"{a} 아니요"},
        "rag": lambda q, a: {"question": q, "documents": [{"title": q, "text": a}] * 3, "answer": f"{a} [1]"},
        "text": lambda q, a: {"text": rendered("koalpaca", q, a)},
    }
    for name, make in rows.items():
        given = [Row(f"f:{n}", make(question, answer)) for n, (question, answer) in enumerate(pairs)]
        best = 0.0
        for _ in range(3):
            start = time.perf_counter()
            for row in given:
                shapes.SHAPES[name](row)
            best = max(best, len(given) / (time.perf_counter() - start))
        print(f"{name:12}{best:12,.0f} rows/s")


def main(data: Path) -> None:
    """Prints all three."""
    chat, wiki = chatbot(data), articles(data)
    speed(chat * 5)
    for template in (*TEMPLATES, "guanaco"):
        print(f"{template:14} chatbot_data: {counted(template, chat)}   kowiki: {counted(template, wiki)}")
    for template, (heading, exchange) in INSIDE.items():
        print(f"{template:14} a heading in the answer: {counted(template, wiki, heading)}")
        print(f"{template:14} an exchange in the answer: {counted(template, wiki, exchange)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
