"""One evaluation: a suite, a model, a folder. Interrupted, it goes on where it was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from koalpaca_tune import jsonl
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.evaluation import fit, jobs, lines, requests
from koalpaca_tune.evaluation.jobs import Job, JudgeOf, Loaded
from koalpaca_tune.evaluation.protocol import LanguageModel, Lengths, Progress, Renderer
from koalpaca_tune.evaluation.store import RESULT, Line, Store
from koalpaca_tune.records import Conversation
from koalpaca_tune.suites.tasks import Suite

CHARACTERS = 200_000
"""Text given to the model at once: enough to share what begins alike. Lines are flushed after each lot."""

PROMPTS = 32
"""Questions answered at once."""

JUDGED = 8
"""Conversations that are written and judged before their lines are flushed."""


TOLD = ("name", "title", "title_en", "kind", "version", "hash", "items", "primary", "metrics")
"""What every task of a result says."""


@dataclass(frozen=True)
class Result:
    """What was found, as written to result.json.

    Attributes:
        folder: where identity.json, items.jsonl and result.json lie.
        suite: name, version, titles.
        identity: what the caller said about the model.
        template: hash of what the template does.
        tasks: one mapping per task: name, titles, kind, version, hash, items, metrics, collapse, ...
    """

    folder: Path
    suite: Mapping[str, Any]
    identity: Mapping[str, Any]
    template: str
    tasks: tuple[Mapping[str, Any], ...]

    def as_dict(self) -> dict[str, Any]:
        """The content of result.json."""
        return {
            "suite": dict(self.suite),
            "identity": dict(self.identity),
            "template": self.template,
            "tasks": [dict(task) for task in self.tasks],
        }

    @classmethod
    def read(cls, folder: Path) -> Result:
        """Reads result.json of a finished evaluation.

        Raises:
            KoalpacaError: no folder or no result in it (eval-unfinished), or not ours (eval-shape).
        """
        path = folder / RESULT
        if not path.is_file():
            raise KoalpacaError(
                "eval-unfinished",
                f"there is no {RESULT}: not the folder of a finished evaluation.",
                where=str(folder),
                fix="Run `koalpaca eval` again with this --out; what is done is kept.",
            )
        raw = jsonl.read_json(path)
        lacking = [key for key in ("suite", "identity", "template", "tasks") if key not in raw]
        tasks = raw.get("tasks", ())
        if not lacking and (not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks)):
            raise KoalpacaError("eval-shape", "its tasks are not a list of objects.", where=str(path))
        for part in ("suite", "identity"):
            if part in raw and not isinstance(raw[part], dict):
                raise KoalpacaError("eval-shape", f"its {part} is no object.", where=str(path))
        lacking += [f"suite.{key}" for key in ("title", "title_en", "version") if key not in raw.get("suite", {})]
        lacking += [key for task in tasks for key in TOLD if key not in task]
        if lacking:
            raise KoalpacaError("eval-shape", f"'{lacking[0]}' is missing.", where=str(path))
        return cls(folder, raw["suite"], raw["identity"], raw["template"], tuple(tasks))


def evaluate(
    suite: Suite,
    model: LanguageModel,
    render: Renderer,
    folder: Path,
    *,
    identity: Mapping[str, Any],
    loaded: Loaded | None = None,
    heldout: Sequence[Conversation] = (),
    data_root: Path | None = None,
    max_new_tokens: int = 96,
    heldout_limit: int = 60,
    lengths: Lengths | None = None,
    judge: JudgeOf | None = None,
    facts: Mapping[str, Mapping[str, Any]] | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Result:
    """Judges a model on a suite, and on held-out conversations when given.

    Everything is read and checked before the model is asked for anything.

    Args:
        suite: what to ask.
        model: who is asked.
        render: the training template.
        folder: where lines and result go; lines that are there already, of the same model and task, are kept.
        identity: what tells this model from others, JSON values. `base` and `base_*` must be equal for two
            evaluations to be compared; the rest (adapter, dtype, quantization, ...) may differ and is shown.
        loaded: the suite's items, where they were read before.
        heldout: conversations that were not learned; duplicates are asked once.
        data_root: folder of data sets that are not shipped.
        max_new_tokens: longest written answer to a held-out question.
        heldout_limit: how many held-out questions are answered, the first by id; all are scored.
        lengths: the tokenizer; with it, items too long for the base are found before the model is asked, or cut
            where their profile says so.
        judge: gives the judge of a judged task.
        facts: task -> what its result also says.
        progress: called as lines are done.

    Raises:
        KoalpacaError: unreadable items, another model's folder (eval-identity), a stored line that is not as it
            was written (eval-shape), a judged task without a judge
            (judge-none), items too long for the base (eval-too-long), a template that does not fit the tokenizer
            (from the model), a score that is not finite (eval-not-finite).
    """
    work = jobs.of(
        jobs.load(suite, data_root) if loaded is None else loaded,
        heldout,
        model,
        render,
        max_new_tokens=max_new_tokens,
        heldout_limit=heldout_limit,
        lengths=lengths,
        judge=judge,
    )
    if lengths is not None:
        fit.check(work, lengths)
    template = requests.template_digest(render)
    store = Store(folder, identity, template)
    for job in work:
        store.check(job.name, job.digest, partial(_as_written, job))
    (folder / RESULT).unlink(missing_ok=True)
    with store.writing():
        for job in work:
            _complete(job, store, progress)
    store.tidy()
    told = {"name": suite.name, "version": suite.version, "title": suite.title, "title_en": suite.title_en}
    result = Result(
        folder, told, dict(identity), template, tuple(_summary(job, store, facts or {}) for job in work)
    )
    jsonl.write_json(folder / RESULT, result.as_dict())
    return result


def _as_written(job: Job, line: Line, where: str) -> None:
    lines.check(line, job.kind, where, job.also)


def _complete(job: Job, store: Store, progress: Progress) -> None:
    done = store.done(job.name, job.digest)
    todo = [n for n, id in enumerate(job.ids) if id not in done]
    total = len(job.ids)
    head = {"task": job.name, "hash": job.digest}
    progress(job.title, total - len(todo), total)
    if job.mend is not None:
        again = [n for n, id in enumerate(job.ids) if "error" in done.get(id, {})]
        for start in range(0, len(again), JUDGED):
            part = again[start : start + JUDGED]
            store.add(head | line for line in job.mend(part, [done[job.ids[n]] for n in part]))
    finished = total - len(todo)
    for part in _lots(job, todo):
        store.add(head | line for line in job.lines(part))
        finished += len(part)
        progress(job.title, finished, total)


def _lots(job: Job, todo: Sequence[int]) -> Iterator[list[int]]:
    """Positions in lots: so many that write, so much text where answers are only scored."""
    most = JUDGED if job.mend is not None else PROMPTS if job.writes else len(todo)
    lot: list[int] = []
    characters = 0
    for n in todo:
        length = 0 if job.writes else sum(len(piece.text) for text in job.texts(n) for piece in text.pieces)
        if lot and (len(lot) == most or characters + length > CHARACTERS):
            yield lot
            lot, characters = [], 0
        lot.append(n)
        characters += length
    if lot:
        yield lot


def _summary(job: Job, store: Store, facts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "name": job.name,
        "title": job.title,
        "title_en": job.title_en,
        "kind": job.kind,
        "version": job.version,
        "hash": job.digest,
        "items": len(job.ids),
        **job.about,
        **facts.get(job.name, {}),
        **job.summary(lines_of(job.ids, store.done(job.name, job.digest))),
    }


def lines_of(ids: Sequence[str], done: Mapping[str, Line]) -> list[Line]:
    """The lines of these items, in this order."""
    return [done[id] for id in ids]
