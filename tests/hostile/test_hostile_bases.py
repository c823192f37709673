"""A base from elsewhere: config and tokenizer are read, pickles are not (code: test_hostile_code.py)."""

from __future__ import annotations

import tempfile
from pathlib import Path
from random import Random

import pytest
import targets_models
from breakage import attempt
from hypothesis import given, settings
from hypothesis import strategies as st

from koalpaca_tune import resources
from koalpaca_tune.config.recipe import Base, Quantization
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.models import base


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_any_config_of_a_base_is_taken_or_refused_with_one_error(seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        assert not attempt(lambda: targets_models.base(Random(seed), Path(folder))).failure


def test_a_base_of_pickles_is_refused(tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((resources.EMBEDDED / name).read_bytes())
    ran = tmp_path / "ran"
    # a pickle that opens a file when it is read
    pickle = b"cbuiltins\nopen\n(V" + str(ran).encode() + b"\nVw\ntR."
    (tmp_path / "pytorch_model.bin").write_bytes(pickle)
    with pytest.raises(KoalpacaError) as caught:
        base.load(Base(path=str(tmp_path)), Quantization(load_in_4bit=False))
    assert caught.value.problems[0].code == "base-load"
    assert not ran.exists()
