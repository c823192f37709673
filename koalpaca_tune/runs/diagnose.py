"""`koalpaca diagnose`: a run folder, finished or not, to what its trail, recipe, record and data say of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.specifiers import SpecifierSet

from koalpaca_tune import jsonl
from koalpaca_tune.config import load as recipes
from koalpaca_tune.config.recipe import Recipe
from koalpaca_tune.data import load as data
from koalpaca_tune.diagnosis import curve, run_facts, texts
from koalpaca_tune.diagnosis.causes import CAUSES
from koalpaca_tune.diagnosis.verdict import Diagnosis, diagnose
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.records import Encoded
from koalpaca_tune.runs import record
from koalpaca_tune.runs.versions import FAULTS, Circumstances
from koalpaca_tune.tokens.encode import Encoder
from koalpaca_tune.tokens.limit import limit

METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class Read:
    """A run as its folder has it.

    Attributes:
        recipe: run.yaml.
        signals: everything that could be measured, see `koalpaca_tune.diagnosis`.
        unread: what could not be looked at, and why, Korean and English.
        faults: versions with a known fault that strikes this run.
    """

    folder: Path
    recipe: Recipe
    signals: dict[str, float]
    unread: tuple[str, ...]
    faults: tuple[str, ...] = ()

    def next_command(self, command: str) -> str:
        """A cause's command for this run."""
        return command.format(run=self.folder, train=self.recipe.data.train, recipe=self.folder / "run.yaml")

    def as_dict(self, found: Diagnosis) -> dict[str, Any]:
        """For --json."""
        fits = [
            {
                "cause": fit.name,
                "strength": fit.strength,
                "evidence": {key: self.signals[key] for key in CAUSES[fit.name].evidence if key in self.signals},
                "next": self.next_command(CAUSES[fit.name].command),
            }
            for fit in found.fits
        ]
        return {
            "run": str(self.folder),
            "verdict": found.verdict,
            "causes": fits,
            "odd": list(found.odd),
            "faults": list(self.faults),
            "unread": list(self.unread),
            "signals": self.signals,
        }


def of(folder: Path) -> tuple[Read, Diagnosis]:
    """Reads a run and judges it.

    Raises:
        KoalpacaError: no run (diagnose-nothing), or a file of it that is broken.
    """
    found = read(folder)
    return found, diagnose(found.signals)


def read(folder: Path) -> Read:
    """The signals of a run. Data that are gone or changed since are left out, and told of.

    Raises:
        KoalpacaError: no run (diagnose-nothing), or a file of it that is broken (diagnose-shape among others).
    """
    if not (folder / "run.yaml").is_file():
        raise KoalpacaError(
            "diagnose-nothing",
            "there is no run here (no run.yaml).",
            where=str(folder),
            fix="Give the folder of a run: runs/NAME.",
        )
    recipe = recipes.load(str(folder / "run.yaml"))
    rows, torn = _rows(folder / METRICS)
    entry = jsonl.read_json(folder / record.NAME) if (folder / record.NAME).is_file() else {}
    with _AsWritten(folder / METRICS):
        signals = curve.signals(rows)
    with _AsWritten(folder / record.NAME):
        signals |= run_facts.signals(recipe.model_dump(), entry)
        facts, unread = _data(recipe, entry)
        faults = _faults(recipe, entry)
    if faults:
        signals["record.bad_versions"] = float(len(faults))
    return Read(folder, recipe, signals | facts, torn + unread, faults)


class _AsWritten:
    """A `with` block over what a run's file says: a value that no run writes there is one clear error."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, AttributeError | LookupError | TypeError | ValueError | ArithmeticError):
            said = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
            raise KoalpacaError(
                "diagnose-shape",
                f"a part of it is not what a run writes there ({said}).",
                where=str(self._path),
                fix="Restore the file from the run's folder.",
            ) from error


def _rows(path: Path) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """The rows, and what is said of a last one that a kill left unfinished."""
    if not path.is_file():
        return [], ()
    lines = list(jsonl.lines(path))
    torn = bool(lines) and not lines[-1][1].endswith("\n")
    whole = lines[:-1] if torn else lines
    rows = [jsonl.parse(text, f"{path}:{number}") for number, text in whole]
    return rows, (f"{path}:{lines[-1][0]}: 쓰다 만 줄 (a line that was not finished)",) if torn else ()


def _faults(recipe: Recipe, entry: Mapping[str, Any]) -> tuple[str, ...]:
    """Versions that the run was made with and that fail such a run, each with the reason."""
    fast = (entry.get("engine") or {}).get("kind") == "fast"
    here = Circumstances(recipe, fast, None)
    versions = entry.get("versions") or {}
    return tuple(
        f"{fault.package} {versions[fault.package]}: {fault.why}"
        for fault in FAULTS
        if fault.state == "bad"
        and versions.get(fault.package, "")[:1].isdigit()
        and SpecifierSet(fault.releases).contains(versions[fault.package], prereleases=True)
        and fault.strikes(here)
    )


def _data(recipe: Recipe, entry: Mapping[str, Any]) -> tuple[dict[str, float], tuple[str, ...]]:
    from koalpaca_tune.models import tokenizer

    train = Path(recipe.data.train)
    unread = _changed(train, entry, "train")
    if unread:
        return {}, (unread,)
    conversations = list(data.conversations(train))
    valid = []
    if recipe.data.valid:
        unread = _changed(Path(recipe.data.valid), entry, "valid")
        valid = [] if unread else list(data.conversations(Path(recipe.data.valid)))
    vocabulary = tokenizer.load(recipe.base.path, recipe.base.revision)
    encoder = Encoder(vocabulary, vocabulary.template(recipe.template))
    encoded = list(encoder.conversations(conversations))
    found = texts.signals(conversations, valid, encoded, vocabulary.stop_ids(encoder.template))
    found |= _beside(recipe, entry, encoded)
    found["data.chance_loss"] = math.log(vocabulary.backend.get_vocab_size())
    return found, (unread,) if unread else ()


def _changed(path: Path, entry: Mapping[str, Any], which: str) -> str:
    if not path.is_file():
        return f"{path}: 파일이 없습니다 (the file is not here)"
    known = ((entry.get("data") or {}).get(which) or {}).get("sha256")
    if known and record.sha256(path) != known:
        return f"{path}: 학습한 뒤 바뀌었습니다 (changed since the run)"
    return ""


def _beside(recipe: Recipe, entry: Mapping[str, Any], encoded: list[Encoded]) -> dict[str, float]:
    """What the run says that it learned, beside what recipe and data give now."""
    _, now = limit(encoded, recipe.data.max_length, recipe.data.too_long, recipe.data.train)
    found = {"data.kept_learned_share": now.learned_tokens / now.tokens}
    then = ((entry.get("data") or {}).get("train") or {}).get("counts")
    if then and then["kept"]:
        found["data.learned_missing"] = (now.learned_tokens - then["learned_tokens"]) / then["kept"]
    return found
