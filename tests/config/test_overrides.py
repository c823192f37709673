"""`key=value` on the command line goes through the same check as the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from koalpaca_tune.config import load
from koalpaca_tune.errors import KoalpacaError


def problems(*overrides: str, name: str = "demo") -> list[str]:
    with pytest.raises(KoalpacaError) as caught:
        load.load(name, overrides)
    return [f"{problem.code} | {problem}" for problem in caught.value.problems]


def test_an_override_replaces_the_file() -> None:
    read = load.load("demo", ["training.learning_rate=3.0e-4", "lora.targets=[dense]", "hub.repo=a/b", "seed=7"])
    assert (read.training.learning_rate, read.lora.targets, read.hub.repo, read.seed) == (3e-4, ["dense"], "a/b", 7)


def test_a_value_may_hold_an_equals_sign() -> None:
    assert load.load("demo", ["data.train=a=b.jsonl"]).data.train == "a=b.jsonl"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "quantization.bnb_4bit_use_double_quany=true",
            "config-unknown-key | command line: unknown key 'quantization.bnb_4bit_use_double_quany'. "
            "Did you mean 'quantization.bnb_4bit_use_double_quant'?",
        ),
        (
            "learning_rate=1.0",
            "config-unknown-key | command line: unknown key 'learning_rate'. Did you mean "
            "'training.learning_rate'?",
        ),
        (
            "training.learning_rate=2e-4",
            "config-type | command line: training.learning_rate: '2e-4' is text to YAML, which wants a "
            "dot in a number "
            "with an exponent. Did you mean 2.0e-4?",
        ),
        (
            "training.batch_size=two",
            "config-type | command line: training.batch_size: 'two' is of the wrong type. Input should "
            "be a valid integer.",
        ),
        (
            "hub.private=no",
            "yaml-value | command line: hub.private: YAML reads 'no' as false. Did you mean 'false'? "
            'For the word itself write "no" in quotes.',
        ),
        ("seed", "override | command line: 'seed' is not key=value. Example: seed=1"),
        (
            "seed=",
            "config-type | command line: seed: nothing (null) is of the wrong type. Input should be a "
            "valid integer.",
        ),
        (
            "seed=[",
            "yaml-syntax | command line: seed:1:2: this is not YAML: expected the node content, but "
            "found '<stream end>'.",
        ),
        (
            "lora.targets=[dense, 3]",
            "config-type | command line: lora.targets[1]: 3 is of the wrong type. Input should be a valid string.",
        ),
        (
            "training.optimizer=adam",
            "config-value | command line: training.optimizer: 'adam' is not one of the choices. Did you "
            "mean 'adamw'?",
        ),
    ],
)
def test_a_wrong_override_is_one_message(override: str, message: str) -> None:
    assert problems(override) == [message]


def test_all_wrong_overrides_at_once() -> None:
    found = problems("sede=1", "seed", "training.learning_rate=2e-4", "lora.targets=[no, 2024-01-01]")
    assert [line.split(" | ")[0] for line in found] == [
        "yaml-value",
        "yaml-value",
        "config-unknown-key",
        "override",
        "config-type",
    ]


def test_the_same_key_twice_is_not_settled_in_silence() -> None:
    assert problems("seed=1", "seed=2") == ["override | command line: 'seed' is given twice. Keep one."]


def test_max_steps_takes_the_place_of_epochs_and_back() -> None:
    steps = load.load("demo", ["training.max_steps=4"])
    assert (steps.training.epochs, steps.training.max_steps) == (None, 4)
    assert load.load("demo", ["training.epochs=0.5"]).training.epochs == 0.5
    assert "exactly one of epochs and max_steps" in problems("training.max_steps=4", "training.epochs=1")[0]


def test_full_precision_can_be_asked_for_where_the_file_has_4_bit_settings() -> None:
    assert load.load("polyglot-ko-12.8b", ["quantization.load_in_4bit=false"]).quantization.load_in_4bit is False
    found = problems("quantization.load_in_4bit=false", "quantization.bnb_4bit_quant_type=fp4")
    assert "bnb_4bit_quant_type has no effect" in found[0]


def test_the_plain_engine_can_be_asked_for_where_the_file_sets_up_the_fast_one(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    text = load.find("demo").read_text(encoding="utf-8")
    path.write_text(text + "engine: {kind: fast, micro_tokens: 512, graphs: never}\n", encoding="utf-8")
    engine = load.load(str(path), ["engine.kind=plain"]).engine
    assert (engine.kind, engine.micro_tokens, engine.graphs) == ("plain", 512, "auto")
    assert "graphs has no effect" in problems("engine.kind=plain", "engine.graphs=never", name=str(path))[0]


def test_a_key_of_old_is_told_what_to_write_now() -> None:
    assert problems("training.accumulation=8") == [
        "config-unknown-key | command line: unknown key 'training.accumulation'. "
        "A step is training.batch_size rows; how it is cut is planned (engine.micro_tokens)."
    ]


def test_an_override_clears_what_was_wrong_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(
        load.find("demo").read_text(encoding="utf-8").replace("targets: [query_key_value,", "targets: [no,"),
        encoding="utf-8",
    )
    assert "yaml-value" in problems(name=str(path))[0]
    assert load.load(str(path), ["lora.targets=[dense]"]).lora.targets == ["dense"]


def test_an_unknown_recipe_names_the_nearest() -> None:
    assert problems(name="polyglot-ko-12.8") == [
        "recipe-missing | recipe: there is no such file or shipped recipe: 'polyglot-ko-12.8'. "
        "Did you mean 'polyglot-ko-12.8b'?"
    ]
