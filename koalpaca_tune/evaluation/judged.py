"""Conversations judged by a model behind an endpoint: the tuned model writes every turn, then the judge reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from koalpaca_tune.evaluation import requests
from koalpaca_tune.evaluation.job import Job, about, categories, mean_of
from koalpaca_tune.evaluation.lines import JUDGED
from koalpaca_tune.evaluation.looks import of_answer, totals
from koalpaca_tune.evaluation.protocol import LanguageModel, Lengths, Renderer, Written
from koalpaca_tune.evaluation.store import Line, digest
from koalpaca_tune.judging import judge as judges
from koalpaca_tune.judging.judge import Dialogue, Judge
from koalpaca_tune.records import Rendered
from koalpaca_tune.suites.item import Item
from koalpaca_tune.suites.items import ItemSet
from koalpaca_tune.suites.schema import JudgedTask
from koalpaca_tune.suites.tasks import Task

SCORES = ("score", "score_1", "score_2")


@dataclass(frozen=True, slots=True)
class Unwritten:
    """The answer to a question that leaves no room for one."""

    text: str = ""
    stopped: bool = False
    tokens: int = 0


def job(
    task: Task,
    chosen: ItemSet,
    model: LanguageModel,
    render: Renderer,
    judge: Judge,
    lengths: Lengths | None = None,
) -> Job:
    """Every turn is answered, then judged; a judge that fails leaves an error, which another run asks again."""
    file, items = task.file, chosen.items
    assert isinstance(file, JudgedTask)
    turns = max(len(item.turns) for item in items)
    for item in items:
        # before a model writes answers that nobody would judge
        judge.check(len(item.turns), item.origin)

    def texts(position: int) -> list[Rendered]:
        # later turns hold the model's own answers, which are not known before it is asked
        return [render(judges.asked([items[position].turns[0][0]], []))]

    def lines(positions: Sequence[int]) -> list[Line]:
        written = _answers([items[n] for n in positions], model, render, file.max_new_tokens, lengths)
        bare = [_line(items[n], answers) for n, answers in zip(positions, written, strict=True)]
        return mend(positions, bare)

    def mend(positions: Sequence[int], bare: Sequence[Line]) -> list[Line]:
        asked = [_dialogue(items[n], line) for n, line in zip(positions, bare, strict=True)]
        kept = [{key: value for key, value in line.items() if key != "error"} for line in bare]
        return [line | one.fields() for line, one in zip(kept, judge.judge(asked), strict=True)]

    def summary(lines: Sequence[Line]) -> dict[str, Any]:
        names = SCORES[: 1 + turns] if turns > 1 else SCORES[:1]
        columns = {name: [line["scores"].get(name) for line in lines] for name in names}
        return {
            "metrics": {name: mean_of(values) for name, values in columns.items()},
            "yes_no": [],
            "lower_is_better": [],
            "undecided": {name: sum(value is None for value in values) for name, values in columns.items()},
            "measures": totals([turn["measures"] for line in lines for turn in line["turns"]]),
            "empty": sum(not turn["answer"].strip() for line in lines for turn in line["turns"]),
            "cut": sum(not line["stopped"] for line in lines),
            **judges.summary(lines),
            **categories(lines, "score", lambda group: mean_of([line["scores"]["score"] for line in group])),
        }

    identity = judge.identity()
    return Job(
        name=task.name,
        title=file.title,
        title_en=file.title_en,
        kind="answer",
        version=file.version,
        digest=digest(chosen.digest, identity),
        ids=tuple(item.id for item in items),
        requests=1,
        lines=lines,
        summary=summary,
        about=about(task, chosen)
        | {"primary": "score", "max_new_tokens": file.max_new_tokens, "judge": identity}
        | {"judge_url": judge.client.endpoint.base_url, "scale": list(judge.scale)},
        texts=texts,
        writes=file.max_new_tokens,
        also=JUDGED,
        mend=mend,
    )


def _answers(
    asked: Sequence[Item], model: LanguageModel, render: Renderer, limit: int, lengths: Lengths | None
) -> list[list[Written]]:
    """All answers to first turns, then all to second ones, each after the model's own answer."""
    written: list[list[Written]] = [[] for _ in asked]
    for turn in range(max(len(item.turns) for item in asked)):
        those = [n for n, item in enumerate(asked) if turn < len(item.turns)]
        prompts = []
        for n in those:
            questions = [question for question, _ in asked[n].turns[: turn + 1]]
            conversation = judges.asked(questions, [one.text for one in written[n]])
            prompts.append(requests.to_continue(render(replace(conversation, origin=asked[n].origin))))
        for n, answer in zip(those, _write(model, prompts, limit, lengths), strict=True):
            written[n].append(answer)
    return written


def _write(
    model: LanguageModel, prompts: Sequence[Rendered], limit: int, lengths: Lengths | None
) -> Sequence[Written]:
    """Answers that end at the limit, or where the base's context ends: a first answer may leave little of it."""
    if lengths is None or lengths.room is None:
        return model.write(prompts, limit)
    left = [min(limit, lengths.room - count) for count in lengths.tokens(prompts)]
    found: list[Written] = [Unwritten()] * len(prompts)
    for most in sorted({one for one in left if one > 0}, reverse=True):
        those = [n for n, one in enumerate(left) if one == most]
        for n, answer in zip(those, model.write([prompts[n] for n in those], most), strict=True):
            found[n] = answer
    return found


def _line(item: Item, answers: Sequence[Written]) -> Line:
    questions = [question for question, _ in item.turns]
    line: Line = {
        "id": item.id,
        "prompt": "\n\n".join(questions),
        "turns": [
            {"question": question, "answer": answer.text, "measures": of_answer(answer.text, question)}
            for question, answer in zip(questions, answers, strict=True)
        ],
        "text": "\n\n".join(answer.text for answer in answers),
        "golds": [reference for _, reference in item.turns if reference],
        "tokens": sum(answer.tokens for answer in answers),
        "stopped": all(answer.stopped for answer in answers),
    }
    return line if item.category is None else line | {"category": item.category}


def _dialogue(item: Item, line: Line) -> Dialogue:
    return Dialogue(
        item.id,
        tuple(turn["question"] for turn in line["turns"]),
        tuple(turn["answer"] for turn in line["turns"]),
        tuple(reference for _, reference in item.turns),
    )
