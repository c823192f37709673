"""`koalpaca sweep`: which settings learn better, chosen on one half of the validation data and judged on the other.

Every run is a `koalpaca train` of its own, so that none inherits another's memory, and every judgement a `koalpaca
eval`. What is there already is not done again: the same command goes on where it was stopped.

    OUT/sweep.json      what is asked, and in the end every run and comparison
        valid/          choose.jsonl and judge.jsonl, the two halves
        runs/NAME/      reference (the recipe as it is), trial-000, ...; NAME.log beside it
        judged/NAME/    the reference and the best trials
        compared/NAME/  the trial against the reference, paired
        study.log       Optuna's journal
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from koalpaca_tune import jsonl
from koalpaca_tune.comparison import report as reports
from koalpaca_tune.comparison import stats
from koalpaca_tune.comparison.compare import Comparison, compare
from koalpaca_tune.comparison.power import ALPHA
from koalpaca_tune.comparison.verdict import Verdict, verdict_of
from koalpaca_tune.config import load
from koalpaca_tune.config import space as spaces
from koalpaca_tune.config.recipe import Recipe
from koalpaca_tune.config.space import Dimension
from koalpaca_tune.data.load import conversations
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.runs import drawing

if TYPE_CHECKING:
    import optuna

REFERENCE = "reference"
Run = Callable[[Sequence[str], Path], int]
"""(arguments of `koalpaca`, where its output goes) -> exit status."""
Tell = Callable[[str, str], None]
"""(name of a run, what is done with it) -> None."""


@dataclass(frozen=True)
class Asked:
    """What a sweep is.

    Attributes:
        recipe: file or shipped name.
        fixed: overrides of every run.
        space: what is tried.
        trials: most runs beside the reference.
        judged: how many of the best are judged.
        suite, data_root: as `koalpaca eval` takes them; None: the recipe's.
        out: the folder.
    """

    recipe: str
    fixed: tuple[str, ...]
    space: tuple[Dimension, ...]
    trials: int
    judged: int
    suite: str | None
    data_root: Path | None
    out: Path

    def check(self) -> Recipe:
        """The reference's recipe; every value that can be tried has been through the recipe's own check.

        Raises:
            KoalpacaError: anything wrong with it, no Optuna (extra-missing), no validation data (sweep-valid),
                another sweep in the folder (sweep-differs).
        """
        drawing.check_extra()
        reference = load.load(self.recipe, self.fixed)
        taken = {text.partition("=")[0] for text in self.fixed} & {one.key for one in self.space}
        for one in self.space:
            for value in one.values:
                load.load(self.recipe, [*self.fixed, *spaces.overrides(one.key, value)])
        self._check_pairs()
        if taken:
            raise KoalpacaError(
                "sweep-values",
                f"'{min(taken)}' is both tried and fixed.",
                where="command line",
                fix="Keep one of the two.",
            )
        if reference.data.valid is None:
            raise KoalpacaError(
                "sweep-valid",
                "a sweep chooses by the validation loss, and there is no validation data.",
                where="data.valid",
                fix="Name a file: data.valid=prepared/valid.jsonl",
            )
        mark = self.out / "sweep.json"
        if mark.exists() and jsonl.read_json(mark).get("asked") != self.as_dict(reference):
            raise KoalpacaError(
                "sweep-differs",
                "the folder holds another sweep.",
                where=str(mark),
                fix="Give the same words as before, or another --out.",
            )
        if not mark.exists() and self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir())):
            raise KoalpacaError(
                "run-exists", "the folder is not empty.", where=str(self.out), fix="Choose another --out."
            )
        return reference

    def _check_pairs(self) -> None:
        """A name that stands for several keys may leave another dimension without any effect.

        Raises:
            KoalpacaError: two values that do not go together (sweep-values).
        """
        named = [one for one in self.space if one.key in spaces.NAMED]
        for one, other in product(named, self.space):
            for value in one.values if one is not other else ():
                both = [*spaces.overrides(one.key, value), *spaces.overrides(other.key, other.values[0])]
                try:
                    load.load(self.recipe, [*self.fixed, *both])
                except KoalpacaError as error:
                    raise KoalpacaError(
                        "sweep-values",
                        f"'{one.key}={value}' and '{other.key}' do not go together: {error.problems[0].what}",
                        where="command line",
                        fix="Try them in two sweeps.",
                    ) from error

    def as_dict(self, reference: Recipe) -> dict[str, Any]:
        """What makes two sweeps the same. More trials, or more judged, go on with a sweep."""
        return {
            "recipe": reference.model_dump(mode="json"),
            "space": [
                {"key": one.key, "values": list(one.values), "kind": type(one).__name__} for one in self.space
            ],
            "suite": self.suite,
        }


@dataclass(frozen=True)
class Trial:
    """A run that ended.

    Attributes:
        name: of its folder.
        changes: key -> value, as overrides write it; none for the reference.
        result: of record.json; None where the run failed.
        failed: the last line that it said, where it failed.
    """

    name: str
    changes: Mapping[str, str]
    result: Mapping[str, Any] | None
    failed: str | None = None

    @property
    def loss(self) -> float | None:
        """Mean loss on the half that chooses, in nats per token."""
        return None if self.result is None else self.result["valid_loss"]


@dataclass(frozen=True)
class Judged:
    """A trial beside the reference, on the half that judges and on the suite.

    Attributes:
        trial: which one.
        comparison: paired, of the two adapters.
        adjusted: p of each of its rows, adjusted (Holm) over all rows of all judged trials.
    """

    trial: Trial
    comparison: Comparison
    adjusted: tuple[float, ...]

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Of each row, by the adjusted p."""
        rows = zip(self.comparison.rows, self.adjusted, strict=True)
        return tuple(verdict_of(row.gain[0], p, ALPHA) for row, p in rows)


@dataclass(frozen=True)
class Swept:
    """All runs, best first, the reference among them; and those that were judged."""

    trials: tuple[Trial, ...]
    judged: tuple[Judged, ...]


def alone(arguments: Sequence[str], log: Path) -> int:
    """Runs `koalpaca` in a process of its own."""
    with log.open("w", encoding="utf-8") as file:
        command = [sys.executable, "-m", "koalpaca_tune.cli.main", *arguments]
        return subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode


def sweep(asked: Asked, tell: Tell, run: Run = alone) -> Swept:
    """Trains, chooses, judges.

    Raises:
        KoalpacaError: anything wrong with what is asked; the reference, or every trial, failed (sweep-failed).
    """
    reference = asked.check()
    for name in ("runs", "judged", "valid"):
        (asked.out / name).mkdir(parents=True, exist_ok=True)
    jsonl.write_json(asked.out / "sweep.json", {"asked": asked.as_dict(reference)})
    assert reference.data.valid is not None
    choose, judge = _halves(Path(reference.data.valid), asked.out / "valid")
    tell(REFERENCE, "train")
    first = _train(asked, REFERENCE, {}, choose, run)
    if first.failed:
        raise _failed(asked.out / "runs" / f"{REFERENCE}.log", first.failed)
    trials = [first, *_tried(asked, choose, tell, run, reference.seed)]
    ranked = sorted(trials, key=lambda one: (one.loss is None, one.loss))
    best = [one for one in ranked if one.loss is not None and one.name != REFERENCE][: asked.judged]
    if not best:
        raise _failed(asked.out / "runs", "every trial failed")
    for one in (first, *best):
        tell(one.name, "eval")
        _judge(asked, one, reference, judge, run)
    comparisons = [
        compare(asked.out / "judged" / REFERENCE / "adapter", asked.out / "judged" / one.name / "adapter")
        for one in best
    ]
    adjusted = iter(stats.holm([row.paired.p for one in comparisons for row in one.rows]))
    judged = []
    for trial, comparison in zip(best, comparisons, strict=True):
        reports.write(comparison, asked.out / "compared" / trial.name)
        judged.append(Judged(trial, comparison, tuple(next(adjusted) for _ in comparison.rows)))
    return Swept(tuple(ranked), tuple(judged))


def _halves(valid: Path, folder: Path) -> tuple[Path, Path]:
    """The validation data in two halves, by the hash of a question: the same question is in one of them.

    A loss that was chosen for being the lowest is lower than it will be elsewhere; what judges must not choose.
    """
    halves: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for one in conversations(valid):
        question = next((turn.content for turn in one.turns if turn.role == "user"), one.id)
        halves[hashlib.sha256(question.encode()).digest()[0] & 1].append(one.as_dict())
    if not all(halves):
        raise KoalpacaError(
            "sweep-valid",
            f"the validation data is too small to be halved ({sum(map(len, halves))} examples).",
            where=str(valid),
            fix="Give more: one half chooses, the other judges.",
        )
    paths = folder / "choose.jsonl", folder / "judge.jsonl"
    for path, rows in zip(paths, halves, strict=True):
        jsonl.write(path, rows)
    return paths


def _tried(asked: Asked, choose: Path, tell: Tell, run: Run, seed: int) -> list[Trial]:
    """Every trial of the study, those of an earlier call among them."""
    study = drawing.study(asked.space, asked.trials, asked.out / "study.log", seed)
    from optuna.trial import TrialState

    while True:
        # what waits has no values yet, nor has one that was broken off while they were drawn
        begun = [one for one in study.trials if len(one.params) == len(asked.space)]
        broken_off = next((one for one in begun if one.state == TrialState.RUNNING), None)
        if broken_off is not None:
            number, changes = broken_off.number, broken_off.params
        elif len(begun) < _most(asked):
            trial = study.ask()
            number, changes = trial.number, {one.key: drawing.suggested(trial, one) for one in asked.space}
        else:
            first = _first(asked, begun)
            return [_ended(asked, _name(number), dict(changes)) for changes, number in first.items()]
        written = drawing.written(asked.space, changes)
        # whole numbers are soon drawn again: the same settings are not trained twice
        same = _first(asked, begun).get(tuple(written.items()), number)
        if same == number:
            tell(_name(number), "train")
        done = _train(asked, _name(same), written, choose, run)
        study.tell(number, done.loss, state=TrialState.FAIL if done.loss is None else None)


def _first(asked: Asked, begun: Sequence[optuna.trial.FrozenTrial]) -> dict[tuple[tuple[str, str], ...], int]:
    """Settings -> the number of the first trial that had them."""
    found: dict[tuple[tuple[str, str], ...], int] = {}
    for one in begun:
        found.setdefault(tuple(drawing.written(asked.space, one.params).items()), one.number)
    return found


def _most(asked: Asked) -> int:
    """How many trials there will be."""
    combinations = spaces.combinations(asked.space)
    return asked.trials if combinations is None else min(asked.trials, combinations)


def _name(number: int) -> str:
    return f"trial-{number:03d}"


def _train(asked: Asked, name: str, changes: Mapping[str, str], choose: Path, run: Run) -> Trial:
    """Trains, or goes on, or finds it trained."""
    folder = asked.out / "runs" / name
    found = _ended(asked, name, changes)
    if found.result is not None:
        return found
    overrides = [
        *(text for text in asked.fixed if text.partition("=")[0] not in ("out", "data.valid")),
        *(text for key, value in changes.items() for text in spaces.overrides(key, value)),
        f"data.valid={choose}",
        f"out={folder}",
    ]
    again = ["--resume"] if any((folder / "checkpoints").glob("step-*")) else []
    if not again and folder.exists():
        # it was stopped before its first checkpoint: nothing is lost
        shutil.rmtree(folder)
    run(["train", asked.recipe, *overrides, *again], asked.out / "runs" / f"{name}.log")
    return _ended(asked, name, changes)


def _ended(asked: Asked, name: str, changes: Mapping[str, str]) -> Trial:
    """How a run ended, by its folder."""
    made = _made(asked, name)
    if made is not None:
        return Trial(name, changes, jsonl.read_json(made / "record.json")["result"])
    log = asked.out / "runs" / f"{name}.log"
    said = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    errors = [line for line in said if line.startswith("error")] or said[-1:]
    return Trial(name, changes, None, errors[0].strip() if errors else "it did not begin")


def _made(asked: Asked, name: str) -> Path | None:
    """The adapter of a run that ended, or its model."""
    run = asked.out / "runs" / name
    return next((run / made for made in ("adapter", "model") if (run / made / "record.json").is_file()), None)


def _judge(asked: Asked, one: Trial, reference: Recipe, heldout: Path, run: Run) -> None:
    out = asked.out / "judged" / one.name
    if (out / "adapter" / "result.json").is_file():
        return
    made = _made(asked, one.name)
    assert made is not None, "it has a loss"
    arguments = [
        "eval",
        reference.base.path,
        "--adapter",
        str(made),
        "--heldout",
        str(heldout),
        "--out",
        str(out),
    ]
    arguments += ["--suite", asked.suite] if asked.suite else []
    arguments += ["--data-root", str(asked.data_root)] if asked.data_root else []
    log = asked.out / "judged" / f"{one.name}.log"
    if run(arguments, log) != 0:
        said = log.read_text(encoding="utf-8", errors="replace").splitlines()
        raise _failed(log, next((line for line in said if line.startswith("error")), "it stopped"))


def _failed(where: Path, said: str) -> KoalpacaError:
    return KoalpacaError(
        "sweep-failed",
        f"{said.strip()}",
        where=str(where),
        fix="Read the log, mend it, and give the same words again.",
    )
