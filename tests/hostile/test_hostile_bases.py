"""A base from elsewhere: its config and tokenizer are read, its code is not."""

from __future__ import annotations

import json
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


@pytest.mark.parametrize("model_type", ["gpt_neox", "no-such-type"])
def test_code_beside_a_base_is_not_run(tmp_path: Path, model_type: str) -> None:
    config = json.loads((resources.EMBEDDED / "config.json").read_text(encoding="utf-8"))
    names = ("AutoConfig", "AutoModelForCausalLM", "AutoTokenizer")
    config |= {"model_type": model_type, "auto_map": {name: "evil.Evil" for name in names}}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    ran = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass Evil: pass\n", encoding="utf-8")
    with pytest.raises(KoalpacaError) as caught:
        base.load(Base(path=str(tmp_path)), Quantization(load_in_4bit=False))
    assert caught.value.problems[0].code == "base-load"
    assert not ran.exists()


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
