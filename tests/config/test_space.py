"""What a sweep tries, read from a command line."""

from __future__ import annotations

import pytest
import yaml

from koalpaca_tune.config import load
from koalpaca_tune.config.space import QUANTISATIONS, Choices, Range, combinations, overrides, read, written
from koalpaca_tune.errors import KoalpacaError


def test_commas_are_values_dots_a_range_and_one_value_is_for_all() -> None:
    space, fixed = read(
        ["lora.r=4,8, 16", "training.learning_rate=1e-4..1e-3", "lora.targets=[a,b],[a]", "seed=7", "out=x/../y"]
    )
    assert space == [
        Choices("lora.r", ("4", "8", "16")),
        Range("training.learning_rate", 1e-4, 1e-3, whole=False),
        Choices("lora.targets", ("[a,b]", "[a]")),
    ]
    assert fixed == ["seed=7", "out=x/../y"]
    assert combinations(space) is None
    assert combinations([space[0], space[2]]) == 6


def test_a_wide_range_is_searched_in_its_logarithm_and_ends_are_whole_where_they_are_written_so() -> None:
    (rank, rate), _ = read(["lora.r=2..64", "lora.dropout=0.0..0.2"])
    assert isinstance(rank, Range)
    assert isinstance(rate, Range)
    assert (rank.whole, rank.logarithmic, rank.values) == (True, True, ("2", "64"))
    assert (rate.whole, rate.logarithmic) == (False, False)


@pytest.mark.parametrize("number", [1e-5, 3.3333333e-4, 0.25, 12345.678])
def test_numbers_are_written_as_yaml_reads_them(number: float) -> None:
    assert yaml.safe_load(written(number, whole=False)) == pytest.approx(number, rel=1e-4)


@pytest.mark.parametrize(
    ("texts", "code"),
    [
        (["seed=1"], "sweep-nothing"),
        (["lora.r=4,4"], "sweep-values"),
        (["lora.r=4,"], "sweep-values"),
        (["lora.r=4,8", "lora.r=2..9"], "sweep-values"),
        (["lora.r=8..4"], "sweep-range"),
        (["lora.r=4..many"], "sweep-range"),
    ],
)
def test_what_makes_no_sense_is_one_error(texts: list[str], code: str) -> None:
    with pytest.raises(KoalpacaError) as error:
        read(texts)
    assert [problem.code for problem in error.value.problems] == [code]


def test_a_quantisation_is_several_keys_under_one_name() -> None:
    space, fixed = read(["quantization=nf4,full", "seed=7"])
    assert space == [Choices("quantization", ("nf4", "full"))]
    assert fixed == ["seed=7"]
    assert overrides("seed", "7") == ("seed=7",)
    _, fixed = read(["quantization=int8", "lora.r=2,4"])
    assert fixed == ["quantization.load_in_8bit=true"]
    with pytest.raises(KoalpacaError, match="Did you mean 'int8'") as error:
        read(["quantization=nf4,int9"])
    assert error.value.problems[0].code == "sweep-values"


@pytest.mark.parametrize("start", QUANTISATIONS)
def test_every_quantisation_is_set_whatever_stood_there(start: str) -> None:
    """Also over the recipe's own keys, whose bnb_4bit_* mean nothing in 8 bits."""
    seen = {}
    for name in QUANTISATIONS:
        recipe = load.load("demo", overrides("quantization", name))
        seen[name] = (recipe.quantization, recipe.full)
    assert len(set(map(str, seen.values()))) == len(QUANTISATIONS)
    quantization, full = seen[start]
    assert full is (start == "full")
    assert quantization.load_in_8bit is (start == "int8")
    assert quantization.load_in_4bit is (start in ("nf4", "nf4+double", "fp4"))
    if quantization.load_in_4bit:
        assert quantization.bnb_4bit_quant_type == start[:3]
        assert quantization.bnb_4bit_use_double_quant is start.endswith("double")


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["lora=null", "lora.r=4"], "'lora.r' and 'lora' cannot both be given"),
        (["lora.r=4", "lora=null"], "'lora' and 'lora.r' cannot both be given"),
        (["quantization.load_in_8bit=true", "quantization.load_in_4bit=true"], "exclude each other"),
    ],
)
def test_overrides_that_contradict_each_other_are_refused(texts: list[str], said: str) -> None:
    with pytest.raises(KoalpacaError, match=said):
        load.load("demo", texts)
