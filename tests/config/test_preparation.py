from __future__ import annotations

from pathlib import Path

import pytest

from koalpaca_tune.config import load
from koalpaca_tune.config.check import keys
from koalpaca_tune.config.preparation import Preparation
from koalpaca_tune.errors import KoalpacaError


def write(folder: Path, text: str) -> Path:
    path = folder / "preparation.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_what_is_printed_to_start_from_reads_back_to_the_defaults(tmp_path: Path) -> None:
    text = load.explained(Preparation())
    assert load.preparation(write(tmp_path, text)) == Preparation()
    for key, about in keys(Preparation).items():
        assert f"{key.rsplit('.', 1)[-1]}:" in text
        assert f"# {about}" in text


def test_what_is_recorded_reads_back_to_the_same(tmp_path: Path) -> None:
    given = load.preparation(
        write(
            tmp_path, "inputs: [{path: a.csv, weight: 2.0, columns: {question: 물음}}]\nclean: [nfc]\nmask: []\n"
        ),
        ["duplicates.drop=exact", "speech.keep=[해요체]", "quality.max_particle_errors=0"],
    )
    assert given.inputs[0].columns == {"question": "물음"}
    assert (given.clean, given.mask, given.duplicates.drop) == (["nfc"], [], "exact")
    assert load.preparation(write(tmp_path, load.dump(given))) == given


@pytest.mark.parametrize(
    ("text", "overrides", "said"),
    [
        ("qualty: {max_echo: 1}", [], "Did you mean 'quality'?"),
        ("quality:\n  max_echos: 1.0", [], "preparation.yaml:2:3"),
        ("clean: [nfc, laugther]", [], "laughter"),
        ("inputs: [{path: a.csv, wieght: 2}]", [], "weight"),
        ("", ["quality.max_ecko=1"], "quality.max_echo"),
        ("valid_share: 1.0", [], "valid_share"),
        ("inputs: [{path: a.csv, cap: 0}]", [], "cap"),
        ("on_error: halt", [], "stop"),
    ],
)
def test_a_choice_that_would_have_no_effect_is_an_error(
    tmp_path: Path, text: str, overrides: list[str], said: str
) -> None:
    with pytest.raises(KoalpacaError) as caught:
        load.preparation(write(tmp_path, text or "{}"), overrides)
    assert said in str(caught.value)
