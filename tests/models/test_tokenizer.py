"""A folder with no more than a tokenizer can be loaded; one whose EOS nobody knows says what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from koalpaca_tune import resources
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.models import tokenizer

EOS = "<|endoftext|>"


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A folder with tokenizer.json alone."""
    shutil.copy(resources.EMBEDDED / "tokenizer.json", tmp_path)
    return tmp_path


def test_a_bare_tokenizer_with_its_special_tokens_is_the_same_tokenizer(bare: Path) -> None:
    (bare / "special_tokens_map.json").write_text(json.dumps({"eos_token": EOS}), encoding="utf-8")
    loaded, whole = tokenizer.load(str(bare)), tokenizer.load("embedded")
    assert (loaded.eos, loaded.bos) == (EOS, None)
    assert loaded.pad_id == loaded.id(EOS), "no PAD is named: padding is masked by position"
    text = "### 질문: 수도는?\n\n### 답변: 서울입니다."
    assert loaded.backend.encode(text).ids == whole.backend.encode(text).ids


def test_a_bare_tokenizer_without_eos_says_where_to_name_it_and_what_there_is(bare: Path) -> None:
    with pytest.raises(KoalpacaError) as caught:
        tokenizer.load(str(bare))
    (problem,) = caught.value.problems
    assert problem.code == "tokenizer-kind"
    assert "special_tokens_map.json" in problem.fix
    assert EOS in problem.fix


def test_a_folder_without_config_and_tokenizer_is_no_base(tmp_path: Path) -> None:
    with pytest.raises(KoalpacaError, match=r"no config\.json") as caught:
        tokenizer.load(str(tmp_path))
    assert caught.value.problems[0].code == "base-missing"
