"""`koalpaca eval`: the base, and with an adapter the tuned model too, on the same items in one process.

OUT/base and OUT/adapter each hold a whole result; a base already judged with the same identity is not
judged again. Everything that can be wrong is found before the weights are loaded.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from koalpaca_tune.config.recipe import Evaluation
from koalpaca_tune.data.load import conversations
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.evaluation import fit, jobs
from koalpaca_tune.evaluation import run as evaluation
from koalpaca_tune.evaluation.jobs import JudgeOf, Loaded
from koalpaca_tune.evaluation.protocol import Progress
from koalpaca_tune.judging import judges
from koalpaca_tune.judging.endpoint import Client, Endpoint
from koalpaca_tune.judging.judge import Judge
from koalpaca_tune.records import Conversation
from koalpaca_tune.runs import leaks, lengths, record
from koalpaca_tune.runs.adapters import Choices, open_model
from koalpaca_tune.runs.leaks import Leaks
from koalpaca_tune.runs.lengths import TokenLengths
from koalpaca_tune.suites.selection import Asked, select
from koalpaca_tune.suites.tasks import Suite

Told = Callable[[str, str], None]


@dataclass(frozen=True)
class Prepared:
    """What will be asked, read and checked; no weights are loaded.

    Attributes:
        suite: tasks, as they are asked.
        loaded: their items.
        heldout: conversations that are scored and answered as well.
        lengths: the base's tokenizer.
        judge, repeats: who judges conversations, and how often each answer is.
        leaks: what the adapter's training file holds of the items; None without an adapter.
        added: tasks beside those of the suite.
        notes: what an option did not reach, what was left out, or what could not be looked for, (Korean, English).
    """

    choices: Choices
    settings: Evaluation
    suite: Suite
    loaded: Loaded
    heldout: Sequence[Conversation]
    lengths: TokenLengths
    judge: Endpoint | None
    repeats: int
    leaks: Leaks | None
    added: tuple[str, ...]
    notes: tuple[tuple[str, str], ...]

    def sizes(self) -> list[fit.Size]:
        """What each task comes to, by the base's tokenizer."""
        return fit.sizes(self._work(), self.lengths)

    def items(self) -> Mapping[str, int]:
        """Title -> items, of every task that is run."""
        return {job.title: len(job.ids) for job in self._work()}

    def facts(self) -> dict[str, dict[str, Any]]:
        """Task -> what its result says beside what the model did.

        `contaminated` items, null where unknown; `added`, where the task is none of the suite's.
        """
        told: dict[str, dict[str, Any]] = {name: {"added": True} for name in self.added}
        if self.leaks is not None:
            counts = self.leaks.items
            for task, _ in self.loaded:
                found = None if counts is None else counts[task.name]
                more = {"contaminated": found, "trained_on": self.leaks.sha256}
                told[task.name] = told.get(task.name, {}) | more
        return told

    def check(self) -> None:
        """Refuses what is too long for the base (eval-too-long)."""
        fit.check(self._work(), self.lengths)

    def _work(self) -> list[jobs.Job]:
        return jobs.of(
            self.loaded,
            self.heldout,
            jobs.NoModel(),
            self.lengths.encoder.render,
            max_new_tokens=self.settings.max_new_tokens,
            heldout_limit=self.settings.heldout_limit,
            lengths=self.lengths,
            judge=None if self.judge is None else _unasked(self.judge, self.repeats),
        )


def prepare(
    choices: Choices,
    asked: Asked,
    *,
    heldout: Path | None,
    data_root: Path | None,
    judge: Endpoint | None = None,
    repeats: int = 1,
    probe: bool = False,
    told: Told = lambda korean, english: None,
) -> Prepared:
    """Settles what is asked, and reads and checks all of it.

    Args:
        asked: suite, tasks and options; without a suite and tasks, the suite of the adapter's recipe, or ko-mini.
        heldout: conversations to score and answer as well; None takes the recipe's data.valid when it is there.
        judge, repeats: who judges conversations, and how often each answer is.
        probe: whether the judge is asked one small question first.
        told: is told (Korean, English) when the judge lets one wait.

    Raises:
        KoalpacaError: anything wrong with suite, tasks, options, data, template or tokenizer; a judged task without
            a judge (judge-none), or with one that cannot be reached (judge-*); items that do not fit the base
            (eval-too-long).
    """
    settings = choices.recipe.evaluation if choices.recipe else Evaluation()
    suite, notes = select(asked, settings.suite)
    judged = [task.name for task in suite.tasks if task.file.kind == "judged"]
    if judged and judge is None:
        raise jobs.judge_none(judged[0])
    if judge is not None and not judged:
        raise KoalpacaError(
            "eval-option",
            "no task of this evaluation is judged by a model.",
            where="--judge-url",
            fix="Leave it out, or name a judged task: --suite ko-judged.",
        )
    if data_root is not None and not data_root.is_dir():
        raise KoalpacaError("data-root", "there is no such folder.", where=str(data_root), fix="Check --data-root.")
    if probe and judge is not None:
        with Client(judge, told) as client:
            client.check()
    held = _heldout(choices, heldout)
    if twice := len(held) - len({conversation.id for conversation in held}):
        notes = (*notes, _duplicates(twice, len(held)))
    loaded = jobs.load(suite, data_root)
    counted = lengths.of(choices.base, choices.template)
    found = None if choices.adapter is None else leaks.of(choices.adapter, loaded)
    if found is not None and found.items is None:
        notes = (*notes, _unknown(found))
    named = asked.suite is not None or not asked.tasks
    added = tuple(task.name for task in suite.tasks[len(suite.tasks) - len(asked.tasks) :]) if named else ()
    prepared = Prepared(choices, settings, suite, loaded, held, counted, judge, repeats, found, added, notes)
    prepared.check()
    return prepared


def _unknown(found: Leaks) -> tuple[str, str]:
    places = ", ".join(found.looked)
    if found.changed is not None:
        return (
            f"학습한 파일({found.changed})이 학습한 뒤 바뀌어, 평가 문항이 들어 있었는지는 보지 못했습니다",
            f"the training file ({found.changed}) has changed since: whether it held items is unknown",
        )
    return (
        f"학습한 파일({found.path})이 없어, 평가 문항이 들어 있는지는 보지 못했습니다. 찾아본 곳: {places}",
        f"the training file is not here, so whether it holds items is unknown; looked at {places}",
    )


def _duplicates(twice: int, rows: int) -> tuple[str, str]:
    return (
        f"따로 둔 {rows:,}행 가운데 {twice:,}행이 앞의 것과 같아 한 번만 묻습니다",
        f"{twice:,} of the {rows:,} held-out rows repeat another and are asked once",
    )


def check_out(out: Path) -> None:
    """Refuses a folder that cannot be one, before anything is read.

    Raises:
        KoalpacaError: a file of that name, or in its place on the way there (out-folder).
    """
    for path in (out / "base", out / "adapter", *_upwards(out)):
        if path.exists() and not path.is_dir():
            raise KoalpacaError(
                "out-folder",
                "it is a file, so no results can lie in it.",
                where=str(path),
                fix="Give --out a folder that is not there yet, or one of earlier results.",
            )
    there = next(path for path in _upwards(out) if path.is_dir())
    if not os.access(there, os.W_OK | os.X_OK):
        fix = "Choose another --out, or change its permissions."
        raise KoalpacaError("out-folder", "nothing can be written in it.", where=str(there), fix=fix)


def _upwards(out: Path) -> tuple[Path, ...]:
    absolute = out.absolute()
    return (absolute, *absolute.parents)


def evaluate(
    prepared: Prepared, out: Path, *, progress: Progress, told: Told = lambda korean, english: None
) -> list[Path]:
    """Judges the base into OUT/base and, with an adapter (or a whole model in its place), the tuned one into
    OUT/adapter.

    Args:
        told: is told (Korean, English) when the judge lets a question wait.

    Returns:
        The folders written.

    Raises:
        KoalpacaError: anything wrong with base or adapter.
    """
    choices = prepared.choices
    with _judge(prepared.judge, prepared.repeats, told) as judge:
        lm = open_model(replace(choices, adapter=None, recipe=None) if choices.whole else choices)
        identity: dict[str, Any] = {
            "base": choices.base.path,
            "base_fingerprint": lm.loaded.fingerprint,
            "adapter": None,
            "template": choices.template,
            "template_sha256": record.template_hash(lm.encoder),
            "tokenizer_sha256": record.tokenizer_hash(lm.encoder),
            "quantization": choices.quantization.model_dump(),
            "compute_dtype": str(lm.loaded.compute_dtype).removeprefix("torch."),
        }
        folders = []
        switches = choices.adapter is not None and not choices.whole
        models: list[tuple[str, str | None]] = [("base", None)]
        if choices.adapter is not None:
            models.append(("adapter", record.weights_hash(choices.adapter)))
        for name, adapter in models:
            if name == "adapter" and choices.whole:
                # one after the other: both may not fit
                del lm
                lm = open_model(choices)
            with lm.without_adapter() if switches and name == "base" else nullcontext():
                evaluation.evaluate(
                    prepared.suite,
                    lm,
                    lm.encoder.render,
                    out / name,
                    identity={**identity, "adapter": adapter},
                    loaded=prepared.loaded,
                    heldout=prepared.heldout,
                    max_new_tokens=prepared.settings.max_new_tokens,
                    heldout_limit=prepared.settings.heldout_limit,
                    lengths=prepared.lengths,
                    judge=judge,
                    facts=prepared.facts(),
                    progress=partial(_labelled, progress, name),
                )
            folders.append(out / name)
    return folders


@contextmanager
def _judge(endpoint: Endpoint | None, repeats: int, told: Told) -> Iterator[JudgeOf | None]:
    """Judges by name, behind an endpoint."""
    if endpoint is None:
        yield None
        return
    with Client(endpoint, told) as client:
        yield lambda name: Judge(judges.load(name), client, repeats)


def _unasked(endpoint: Endpoint, repeats: int) -> JudgeOf:
    """Judges that are only named, not asked; their files and the key are looked for (judge-missing, judge-key)."""
    with Client(endpoint) as client:
        return lambda name: Judge(judges.load(name), client, repeats)


def _labelled(progress: Progress, name: str, what: str, done: int, total: int) -> None:
    progress(f"{name}: {what}", done, total)


def _heldout(choices: Choices, heldout: Path | None) -> Sequence[Conversation]:
    if heldout is not None:
        return list(conversations(heldout))
    if choices.recipe is None or choices.recipe.data.valid is None:
        return ()
    path = Path(choices.recipe.data.valid)
    if not path.is_file():
        raise KoalpacaError(
            "heldout-missing",
            "the recipe's validation file is not there, so held-out answers cannot be judged.",
            where=str(path),
            fix="Give it with --heldout FILE, or run from the folder that you trained in.",
        )
    return list(conversations(path))
