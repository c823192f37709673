"""What a sweep tries next: every combination where they are few, else what TPE draws (Bergstra et al. 2011)."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from koalpaca_tune.config import space as spaces
from koalpaca_tune.config.space import Choices, Dimension
from koalpaca_tune.errors import KoalpacaError

if TYPE_CHECKING:
    import optuna


def check_extra() -> None:
    """Before anything is trained: what chooses the trials is an extra."""
    if importlib.util.find_spec("optuna") is None:
        raise KoalpacaError(
            "extra-missing",
            "a sweep needs optuna, which is not installed.",
            fix='pip install "koalpaca-tune[sweep]"',
        )


def study(space: Sequence[Dimension], trials: int, journal: Path, seed: int) -> optuna.Study:
    """The study in a journal, which goes on where it was stopped.

    Args:
        space: what is tried.
        trials: at most so many; where all combinations are no more, each is tried once.
        journal: Optuna's file.
        seed: of what it draws.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = JournalStorage(JournalFileBackend(str(journal)))
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=5)
    found = optuna.create_study(study_name="sweep", storage=storage, sampler=sampler, load_if_exists=True)
    combinations = spaces.combinations(space)
    if combinations is not None and combinations <= trials:
        keys = [one.key for one in space]
        for values in product(*(one.values for one in space)):
            found.enqueue_trial(dict(zip(keys, values, strict=True)), skip_if_exists=True)
    return found


def suggested(trial: optuna.Trial, one: Dimension) -> Any:
    """A value of one dimension."""
    if isinstance(one, Choices):
        return trial.suggest_categorical(one.key, one.values)
    if one.whole:
        return trial.suggest_int(one.key, int(one.low), int(one.high), log=one.logarithmic)
    return trial.suggest_float(one.key, one.low, one.high, log=one.logarithmic)


def written(space: Sequence[Dimension], values: Mapping[str, Any]) -> dict[str, str]:
    """What Optuna drew, as overrides write it."""
    return {
        one.key: values[one.key] if isinstance(one, Choices) else spaces.written(values[one.key], whole=one.whole)
        for one in space
    }
