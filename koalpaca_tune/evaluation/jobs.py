"""The three kinds of work: choices, likelihood of held-out answers, answers written to held-out questions.

A job knows its items and turns some of them into lines; it does not know files, resuming or progress.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Literal

import numpy as np

from koalpaca_tune import korean
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.evaluation import metrics, requests
from koalpaca_tune.evaluation.items import ItemSet
from koalpaca_tune.evaluation.protocol import LanguageModel, Renderer, Score, Written
from koalpaca_tune.evaluation.store import Line, digest
from koalpaca_tune.evaluation.tasks import SCORING, Task
from koalpaca_tune.records import Conversation, Rendered

Kind = Literal["choice", "likelihood", "generation"]

LIKELIHOOD, GENERATION = "heldout-nll", "heldout-generation"
MEASURES = ("stop_rate", "repetition", "hangul_share", "speech_consistency", "morpheme_f1")
"""What is measured of a written answer."""


@dataclass(frozen=True)
class Job:
    """Work on the items of one task.

    Attributes:
        name, title, title_en, kind: the task.
        version, digest: what must be equal for two evaluations to be compared.
        ids: item ids, in order.
        requests: how many requests one item makes of the model.
        lines: (positions) -> one line for each.
        summary: all lines, in order -> what the result says of them.
        about: fixed facts for the result (skill, profile, form, primary metric).
    """

    name: str
    title: str
    title_en: str
    kind: Kind
    version: int
    digest: str
    ids: tuple[str, ...]
    requests: int
    lines: Callable[[Sequence[int]], list[Line]]
    summary: Callable[[Sequence[Line]], dict[str, Any]]
    about: dict[str, Any] = field(default_factory=dict)


def choice(task: Task, chosen: ItemSet, model: LanguageModel, render: Renderer) -> Job:
    """Every choice of every item is scored."""
    items, file = chosen.items, task.file

    def lines(positions: Sequence[int]) -> list[Line]:
        asked = [requests.of_item(file, items[n], render) for n in positions]
        scores = iter(_scored(model, [request for one in asked for request in one]))
        return [
            _choice_line(items[n].origin, chosen, n, [next(scores) for _ in items[n].choices]) for n in positions
        ]

    def summary(lines: Sequence[Line]) -> dict[str, Any]:
        fixed = isinstance(file.choices, list)
        return {
            "metrics": {name: metrics.CHOICE[name](lines) for name in file.metrics},
            "chance": float(np.mean([1 / len(line["choices"]) for line in lines])),
            "collapse": metrics.collapse(lines, file.metrics[0]),
            # a label of two tokens is less likely than one of one, whatever the question: worth seeing
            "label_tokens": dict(zip(_labels(lines[0]), lines[0]["tokens"], strict=True)) if fixed else None,
        }

    return Job(
        name=task.name,
        title=file.title,
        title_en=file.title_en,
        kind="choice",
        version=file.version,
        digest=chosen.digest,
        ids=tuple(item.id for item in items),
        requests=max(len(item.choices) for item in items),
        lines=lines,
        summary=summary,
        about={"skill": file.skill, "profile": file.profile, "form": file.form, "primary": file.metrics[0]},
    )


def _choice_line(origin: str, chosen: ItemSet, position: int, scores: Sequence[Score]) -> Line:
    item = chosen.items[position]
    for score in scores:
        _finite(score, origin)
    return {
        "id": item.id,
        "prompt": item.prompt if item.context is None else f"{item.context}\n{item.prompt}",
        "choices": list(item.choices),
        "answer": item.answer,
        "logprobs": [score.logprob for score in scores],
        "characters": [len(choice.lstrip()) for choice in item.choices],
        "tokens": [score.tokens for score in scores],
    }


def _labels(line: Line) -> list[str]:
    return [choice.strip() for choice in line["choices"]]


def likelihood(heldout: Sequence[Conversation], model: LanguageModel, render: Renderer) -> Job:
    """Nats and characters of held-out answers; the end token is not counted (stopping is measured apart)."""

    def lines(positions: Sequence[int]) -> list[Line]:
        asked = [requests.answer_only(render(heldout[n])) for n in positions]
        return [
            _likelihood_line(heldout[n], request, score)
            for n, request, score in zip(positions, asked, _scored(model, asked), strict=True)
        ]

    def summary(lines: Sequence[Line]) -> dict[str, Any]:
        nats, characters = column(lines, "nats"), column(lines, "characters")
        tokens = float(column(lines, "tokens").sum())
        return {
            "metrics": {"bits_per_character": metrics.bits_per_character(nats, characters)},
            "characters": int(characters.sum()),
            "tokens_per_character": tokens / float(characters.sum()),
        }

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
        summary=summary,
        about={"primary": "bits_per_character"},
    )


def _likelihood_line(conversation: Conversation, request: Rendered, score: Score) -> Line:
    _finite(score, conversation.origin)
    characters = requests.learned_characters(request)
    if not characters or not score.tokens:
        raise KoalpacaError(
            "heldout-answer",
            "a held-out conversation has no answer to score.",
            where=conversation.origin,
            fix="Leave it out, or give it an assistant turn.",
        )
    return {"id": conversation.id, "nats": -score.logprob, "characters": characters, "tokens": score.tokens}


def generation(heldout: Sequence[Conversation], model: LanguageModel, render: Renderer, max_new_tokens: int) -> Job:
    """Answers written to held-out questions, measured without a judge."""

    def lines(positions: Sequence[int]) -> list[Line]:
        prompts = [render(requests.question_of(heldout[n])) for n in positions]
        written = model.write(prompts, max_new_tokens)
        return [_generation_line(heldout[n], one) for n, one in zip(positions, written, strict=True)]

    def summary(lines: Sequence[Line]) -> dict[str, Any]:
        means = {name: _mean_of(lines, name) for name in MEASURES}
        undecided = {name: sum(line[name] is None for line in lines) for name in MEASURES}
        return {"metrics": means, "undecided": undecided, "empty": sum(not line["text"].strip() for line in lines)}

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
    )


def _generation_line(conversation: Conversation, written: Written) -> Line:
    reference = requests.reference_of(conversation)
    return {
        "id": conversation.id,
        "origin": conversation.origin,
        "question": _said(requests.question_of(conversation)),
        "reference": reference,
        "text": written.text,
        "tokens": written.tokens,
        "stop_rate": written.stopped,
        "repetition": korean.repetition(written.text),
        "hangul_share": korean.hangul_share(written.text),
        "speech_consistency": korean.speech_consistent(written.text),
        "morpheme_f1": korean.morpheme_f1(written.text, reference),
    }


def _said(question: Conversation) -> str:
    """The last question with its context, and how many turns came before."""
    turn = question.turns[-1]
    earlier = f"(앞선 대화 {len(question.turns) - 1}개) " if len(question.turns) > 1 else ""
    return f"{earlier}{turn.content}" + (f"\n{turn.context}" if turn.context else "")


def column(lines: Sequence[Line], key: str) -> metrics.Floats:
    """One measured value of every line, as float64."""
    return np.asarray([line[key] for line in lines], dtype=np.float64)


def _mean_of(lines: Sequence[Line], key: str) -> float | None:
    decided = [float(line[key]) for line in lines if line[key] is not None]
    return float(np.mean(decided)) if decided else None


def _scored(model: LanguageModel, asked: Sequence[Rendered]) -> Sequence[Score]:
    scores = model.score(asked)
    assert len(scores) == len(asked)
    return scores


def _finite(score: Score, origin: str) -> None:
    if not math.isfinite(score.logprob):
        raise KoalpacaError(
            "eval-not-finite",
            f"the model gives a log-likelihood of {score.logprob}.",
            where=origin,
            fix="Its weights overflow: load it in bfloat16 or float32, not float16, and look at the training loss.",
        )
