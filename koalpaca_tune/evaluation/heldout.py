"""Held-out conversations, and running text: how likely, and what is written to a question."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from koalpaca_tune import korean
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.evaluation import metrics, requests
from koalpaca_tune.evaluation.job import Job, about, categories, column, mean_of, scored
from koalpaca_tune.evaluation.looks import of_answer, totals
from koalpaca_tune.evaluation.protocol import LanguageModel, Renderer, Score, Written
from koalpaca_tune.evaluation.store import Line, digest
from koalpaca_tune.records import Conversation, Rendered
from koalpaca_tune.suites.items import ItemSet
from koalpaca_tune.suites.tasks import SCORING, Task

LIKELIHOOD, GENERATION = "heldout-nll", "heldout-generation"
MEASURES = ("stop_rate", "repetition", "hangul_share", "speech_consistency", "morpheme_f1")
"""What is measured of a written answer and tested; `looks` has more, which is shown."""


def likelihood(heldout: Sequence[Conversation], model: LanguageModel, render: Renderer) -> Job:
    """Nats and characters of held-out answers; the end token is not counted (stopping is measured apart)."""

    def texts(position: int) -> list[Rendered]:
        return [requests.answer_only(render(heldout[position]))]

    def lines(positions: Sequence[int]) -> list[Line]:
        asked = [request for n in positions for request in texts(n)]
        return [
            _likelihood_line(heldout[n].id, request, score)
            for n, request, score in zip(positions, asked, scored(model, asked), strict=True)
        ]

    ids = tuple(conversation.id for conversation in heldout)
    return Job(
        name=LIKELIHOOD,
        title="검증 답변의 가능도",
        title_en="Likelihood of held-out answers",
        kind="likelihood",
        version=1,
        digest=digest(LIKELIHOOD, SCORING, ids),
        ids=ids,
        requests=1,
        lines=lines,
        summary=_fit,
        about={"primary": "bits_per_character"},
        texts=texts,
    )


def text(task: Task, chosen: ItemSet, model: LanguageModel) -> Job:
    """Nats and characters of running text, window by window."""
    items, file = chosen.items, task.file

    def texts(position: int) -> list[Rendered]:
        return [requests.of_text(items[position])]

    def lines(positions: Sequence[int]) -> list[Line]:
        asked = [request for n in positions for request in texts(n)]
        found = []
        for n, request, score in zip(positions, asked, scored(model, asked), strict=True):
            line = _likelihood_line(items[n].id, request, score)
            category = items[n].category
            found.append(line if category is None else line | {"category": category})
        return found

    return Job(
        name=task.name,
        title=file.title,
        title_en=file.title_en,
        kind="likelihood",
        version=file.version,
        digest=chosen.digest,
        ids=tuple(item.id for item in items),
        requests=1,
        lines=lines,
        summary=_fit,
        about=about(task, chosen) | {"primary": "bits_per_character"},
        texts=texts,
    )


def _fit(lines: Sequence[Line]) -> dict[str, Any]:
    nats, characters = column(lines, "nats"), column(lines, "characters")
    tokens = float(column(lines, "tokens").sum())
    # a base that likes nothing at all has a perplexity beyond what a float holds
    perplexity = math.exp(min(float(nats.sum()) / tokens, 700.0))
    return {
        "metrics": {"bits_per_character": _bits(lines), "perplexity": perplexity},
        "characters": int(characters.sum()),
        "tokens_per_character": tokens / float(characters.sum()),
        **categories(lines, "bits_per_character", _bits),
    }


def _bits(lines: Sequence[Line]) -> float:
    return metrics.bits_per_character(column(lines, "nats"), column(lines, "characters"))


def _likelihood_line(id: str, request: Rendered, score: Score) -> Line:
    characters = requests.learned_characters(request)
    if not characters or not score.tokens:
        raise KoalpacaError(
            "heldout-answer",
            "a held-out conversation has no answer to score.",
            where=request.origin,
            fix="Leave it out, or give it an assistant turn.",
        )
    return {"id": id, "nats": -score.logprob, "characters": characters, "tokens": score.tokens}


def generation(heldout: Sequence[Conversation], model: LanguageModel, render: Renderer, max_new_tokens: int) -> Job:
    """Answers written to held-out questions, measured without a judge."""

    def texts(position: int) -> list[Rendered]:
        return [requests.to_continue(render(requests.question_of(heldout[position])))]

    def lines(positions: Sequence[int]) -> list[Line]:
        written = model.write([one for n in positions for one in texts(n)], max_new_tokens)
        return [_generation_line(heldout[n], one) for n, one in zip(positions, written, strict=True)]

    def summary(lines: Sequence[Line]) -> dict[str, Any]:
        return {
            "metrics": {name: mean_of([line[name] for line in lines]) for name in MEASURES},
            "undecided": {name: sum(line[name] is None for line in lines) for name in MEASURES},
            "measures": totals([line["measures"] for line in lines]),
            "empty": sum(not line["text"].strip() for line in lines),
            "cut": sum(not line["stop_rate"] for line in lines),
        }

    ids = tuple(conversation.id for conversation in heldout)
    # Kiwi decides speech levels and morphemes: another version may decide otherwise
    hash = digest(GENERATION, SCORING, ids, max_new_tokens, version("kiwipiepy"))
    return Job(
        name=GENERATION,
        title="검증 질문에 쓴 답",
        title_en="Answers to held-out questions",
        kind="generation",
        version=1,
        digest=hash,
        ids=ids,
        requests=1,
        lines=lines,
        summary=summary,
        about={"primary": None, "max_new_tokens": max_new_tokens},
        texts=texts,
        writes=max_new_tokens,
    )


def _generation_line(conversation: Conversation, written: Written) -> Line:
    reference = requests.reference_of(conversation)
    question = requests.question_of(conversation)
    return {
        "id": conversation.id,
        "origin": conversation.origin,
        "question": _said(question),
        "reference": reference,
        "text": written.text,
        "tokens": written.tokens,
        "stop_rate": written.stopped,
        "repetition": korean.repetition(written.text),
        "hangul_share": korean.hangul_share(written.text),
        "speech_consistency": korean.speech_consistent(written.text),
        "morpheme_f1": korean.morpheme_f1(written.text, reference),
        "measures": of_answer(written.text, question.turns[-1].content),
    }


def _said(question: Conversation) -> str:
    """The last question with its context, and how many turns came before."""
    turn = question.turns[-1]
    earlier = f"(앞선 대화 {len(question.turns) - 1}개) " if len(question.turns) > 1 else ""
    return f"{earlier}{turn.content}" + (f"\n{turn.context}" if turn.context else "")
