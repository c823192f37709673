"""Two small models and their evaluations."""

from __future__ import annotations

from pathlib import Path

import pytest
from bigram import Bigram
from bigram_runs import ANSWERS, PROSE, run

from koalpaca_tune.evaluation.run import Result


@pytest.fixture
def before_model() -> Bigram:
    return Bigram(PROSE)


@pytest.fixture
def after_model() -> Bigram:
    return Bigram(PROSE + [" " + answer for answer in ANSWERS] * 5)


@pytest.fixture
def before(tmp_path: Path, before_model: Bigram) -> Result:
    return run(tmp_path / "before", before_model)


@pytest.fixture
def after(tmp_path: Path, after_model: Bigram) -> Result:
    return run(tmp_path / "after", after_model, adapter="abcd")
