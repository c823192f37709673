"""Configuration silently ignored (pains.md): an unknown key, a near-miss type, a wrong choice is one error each."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koalpaca_tune.config import document, load
from koalpaca_tune.config.check import check, keys
from koalpaca_tune.config.recipe import Recipe
from koalpaca_tune.errors import KoalpacaError

SMALL = """\
name: small
base:
  path: embedded
lora:
  targets: [query_key_value]
data:
  train: train.jsonl
training:
  epochs: 1
"""


def recipe(text: str) -> Recipe:
    return check(Recipe, document.parse(text, "r.yaml"))


def problems(text: str) -> list[str]:
    with pytest.raises(KoalpacaError) as caught:
        recipe(text)
    return [f"{problem.code} | {problem}" for problem in caught.value.problems]


def with_keys(**sections: str) -> str:
    """SMALL with lines added to its sections (`training="batch_size: 1"`) or new sections at its end."""
    text = SMALL
    for section, lines in sections.items():
        indented = "".join(f"  {line}\n" for line in lines.splitlines())
        head = f"{section}:\n"
        text = text.replace(head, head + indented) if head in text else f"{text}{head}{indented}"
    return text


def test_defaults_are_the_documented_ones() -> None:
    read = recipe(SMALL)
    assert (read.seed, read.template, read.folder) == (42, "koalpaca", "runs/small")
    assert read.quantization.model_dump() == {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": "auto",
    }
    assert (read.lora.r, read.lora.alpha, read.lora.dropout) == (8, 32, 0.05)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            with_keys(quantization="bnb_4bit_use_double_quany: true"),
            "config-unknown-key | r.yaml:11:3: quantization.bnb_4bit_use_double_quany: unknown key "
            "'bnb_4bit_use_double_quany' (value true). Did you mean 'bnb_4bit_use_double_quant'?",
        ),
        (
            SMALL + "sede: 3\n",
            "config-unknown-key | r.yaml:10:1: sede: unknown key 'sede' (value 3). Did you mean 'seed'?",
        ),
        (
            with_keys(lora="rank: 8"),
            "config-unknown-key | r.yaml:5:3: lora.rank: unknown key 'rank' (value 8). "
            "Known: r, alpha, dropout, targets.",
        ),
        (
            with_keys(base="use_safetensors: true"),
            "config-unknown-key | r.yaml:3:3: base.use_safetensors: unknown key 'use_safetensors' "
            "(value true). "
            "Known: path, revision, trust_remote_code, code_sha256.",
        ),
        (
            with_keys(training="chekpoint_every: 8"),
            "config-unknown-key | r.yaml:9:3: training.chekpoint_every: unknown key 'chekpoint_every' "
            "(value 8). Did you mean 'checkpoint_every'?",
        ),
        (
            with_keys(training="accumulation: 8"),
            "config-unknown-key | r.yaml:9:3: training.accumulation: unknown key 'accumulation' (value 8). "
            "A step is training.batch_size rows; how it is cut is planned (engine.micro_tokens).",
        ),
        (
            with_keys(training="recompute: blocks"),
            "config-unknown-key | r.yaml:9:3: training.recompute: unknown key 'recompute' (value 'blocks'). "
            "Write engine.recompute.",
        ),
        (
            with_keys(data="max_len: {a: 1}"),
            "config-unknown-key | r.yaml:7:3: data.max_len: unknown key 'max_len' (value a mapping). "
            "Did you mean 'max_length'?",
        ),
        (
            with_keys(evaluation="suit: x"),
            "config-unknown-key | r.yaml:11:3: evaluation.suit: unknown key 'suit' (value 'x'). Did you "
            "mean 'suite'?",
        ),
        (
            with_keys(hub="licence: mit"),
            "config-unknown-key | r.yaml:11:3: hub.licence: unknown key 'licence' (value 'mit'). "
            "Did you mean 'license'?",
        ),
    ],
)
def test_an_unknown_key_at_any_depth(text: str, message: str) -> None:
    assert problems(text) == [message]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            with_keys(training="learning_rate: 2e-4"),
            "config-type | r.yaml:9:18: training.learning_rate: '2e-4' is text to YAML, which wants a "
            "dot in a number "
            "with an exponent. Did you mean 2.0e-4?",
        ),
        (
            with_keys(training="learning_rate: 1.5e3"),
            "config-type | r.yaml:9:18: training.learning_rate: '1.5e3' is text to YAML, which wants a "
            "dot in a number "
            "with an exponent. Did you mean 1.5e+3?",
        ),
        (
            with_keys(training="batch_size: 2e1"),
            "config-type | r.yaml:9:15: training.batch_size: '2e1' is text to YAML, which wants a dot in a number "
            "with an exponent. Did you mean 20?",
        ),
        (
            with_keys(training="batch_size: '8'"),
            "config-type | r.yaml:9:15: training.batch_size: '8' is text. Did you mean 8, without quotes?",
        ),
        (
            with_keys(training="weight_decay: nan"),
            "config-type | r.yaml:9:17: training.weight_decay: 'nan' is of the wrong type. "
            "Input should be a valid number.",
        ),
        (
            with_keys(training="weight_decay: 1.0e+999"),
            "config-value | r.yaml:9:17: training.weight_decay: inf is not allowed. Input should be a "
            "finite number.",
        ),
        (
            with_keys(hub="private: no"),
            "yaml-value | r.yaml:11:12: hub.private: YAML reads 'no' as false. Did you mean 'false'? "
            'For the word itself write "no" in quotes.',
        ),
        (
            with_keys(hub="private: 'no'"),
            "config-type | r.yaml:11:12: hub.private: 'no' is of the wrong type. Input should be a valid boolean.",
        ),
        (
            with_keys(data="packing: 1"),
            "config-type | r.yaml:7:12: data.packing: 1 is of the wrong type. Input should be a valid boolean.",
        ),
        (
            SMALL + "seed: true\n",
            "config-type | r.yaml:10:7: seed: true is of the wrong type. Input should be a valid integer.",
        ),
        (
            SMALL + "seed: 1.0\n",
            "config-type | r.yaml:10:7: seed: 1.0 is of the wrong type. Input should be a valid integer.",
        ),
        (
            SMALL + "seed:\n",
            "config-type | r.yaml:10:6: seed: nothing (null) is of the wrong type. Input should be a "
            "valid integer.",
        ),
        (
            SMALL + "seed: -1\n",
            "config-value | r.yaml:10:7: seed: -1 is not allowed. Input should be greater than or equal to 0.",
        ),
        (
            with_keys(lora="dropout: 1.0"),
            "config-value | r.yaml:5:12: lora.dropout: 1.0 is not allowed. Input should be less than 1.",
        ),
        (
            SMALL.replace("[query_key_value]", "query_key_value"),
            "config-type | r.yaml:5:12: lora.targets: 'query_key_value' is of the wrong type. "
            "Input should be a valid list.",
        ),
        (
            SMALL.replace("[query_key_value]", "[a, 3]"),
            "config-type | r.yaml:5:16: lora.targets[1]: 3 is of the wrong type. Input should be a valid string.",
        ),
        (
            SMALL.replace("[query_key_value]", "[]"),
            "config-value | r.yaml:5:12: lora.targets: a list is not allowed. "
            "List should have at least 1 item after validation, not 0.",
        ),
        (
            SMALL + "quantization: nf4\n",
            "config-type | r.yaml:10:15: quantization: 'nf4' is of the wrong type. Write keys and values under it.",
        ),
        (
            with_keys(quantization="bnb_4bit_quant_type: nf5"),
            "config-value | r.yaml:11:24: quantization.bnb_4bit_quant_type: 'nf5' is not one of the choices. "
            "Did you mean 'nf4'?",
        ),
        (
            with_keys(quantization="bnb_4bit_compute_dtype: bf16"),
            "config-value | r.yaml:11:27: quantization.bnb_4bit_compute_dtype: 'bf16' is not one of the choices. "
            "Did you mean 'bfloat16'?",
        ),
        (
            with_keys(quantization="load_in_4bit: false\nbnb_4bit_quant_type: fp4"),
            "config-value | r.yaml:11:3: quantization: with load_in_4bit: false, bnb_4bit_quant_type has "
            "no effect. "
            "Remove it, or load in 4 bits.",
        ),
        (
            with_keys(engine="kind: plain\ngraphs: auto"),
            "config-value | r.yaml:11:3: engine: with kind: plain, graphs has no effect. "
            "Remove it, or use the fast engine.",
        ),
        (
            with_keys(engine="kind: plain\nrecompute: offload"),
            "config-value | r.yaml:11:3: engine: with kind: plain, recompute cannot be offload. "
            "Set it to auto, none or blocks.",
        ),
        (
            with_keys(engine="memory_budget: 0.0"),
            "config-value | r.yaml:11:18: engine.memory_budget: 0.0 is not allowed. "
            "Input should be greater than 0.",
        ),
        (
            with_keys(training="max_steps: 3"),
            "config-value | r.yaml:9:3: training: exactly one of epochs and max_steps says how long to train. "
            "Set one of them.",
        ),
        (
            SMALL.replace("epochs: 1", "batch_size: 1"),
            "config-value | r.yaml:9:3: training: exactly one of epochs and max_steps says how long to train. "
            "Set one of them.",
        ),
        (
            SMALL.replace("  path: embedded", "  revision: x"),
            "config-missing-key | r.yaml:3:3: base.path: 'path' is missing. Add it.",
        ),
        (SMALL.replace("name: small\n", ""), "config-missing-key | r.yaml:1:1: name: 'name' is missing. Add it."),
        (
            SMALL.replace("name: small", "name: ../up"),
            "config-value | r.yaml:1:7: name: '../up' is not allowed. "
            "String should match pattern '^[A-Za-z0-9][A-Za-z0-9._-]*$'.",
        ),
        ("", "config-type | r.yaml: the file holds nothing (null), not keys and values."),
        ("# only a comment\n", "config-type | r.yaml: the file holds nothing (null), not keys and values."),
        ("- name: a\n", "config-type | r.yaml: the file holds a list, not keys and values."),
        ("recipe", "config-type | r.yaml: the file holds 'recipe', not keys and values."),
    ],
)
def test_one_wrong_value_is_one_message_at_its_place(text: str, message: str) -> None:
    assert problems(text) == [message]


def test_all_problems_of_a_file_at_once_in_line_order() -> None:
    text = """\
name: small
sede: 1
base: {path: embedded, revison: main}
lora:
  targets: [no, 3]
  r: 0
data:
  train: 2024-01-01
  train: b.jsonl
training:
  epochs: 2e0
  batch_size: '4'
"""
    assert [line.split(": ")[0] + " " + line.split(": ")[1] for line in problems(text)] == [
        "config-unknown-key | r.yaml:2:1 sede",
        "config-unknown-key | r.yaml:3:24 base.revison",
        "yaml-value | r.yaml:5:13 lora.targets[0]",
        "config-type | r.yaml:5:17 lora.targets[1]",
        "config-value | r.yaml:6:6 lora.r",
        "yaml-value | r.yaml:8:10 data.train",
        "yaml-duplicate-key | r.yaml:9:3 data.train",
        "config-type | r.yaml:11:11 training.epochs",
        "config-type | r.yaml:12:15 training.batch_size",
    ]


def test_every_key_has_a_sentence_and_every_sentence_ends() -> None:
    described = keys(Recipe)
    assert "quantization.bnb_4bit_use_double_quant" in described
    assert "training.learning_rate" in described
    assert [key for key, sentence in described.items() if not sentence.endswith(".")] == []


def test_a_recipe_cannot_be_changed_after_the_check() -> None:
    read = recipe(SMALL)
    with pytest.raises(ValueError, match="frozen"):
        read.training.learning_rate = 1.0  # type: ignore[misc]


# PyYAML writes U+0085 so that it reads it back as a newline; no path holds one
words = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)
positive = st.integers(1, 10**6)
rates = st.floats(1e-12, 0.1)
QUANTIZATIONS = st.one_of(
    st.fixed_dictionaries(
        {},
        optional={
            "load_in_4bit": st.just(True),
            "bnb_4bit_quant_type": st.sampled_from(["nf4", "fp4"]),
            "bnb_4bit_use_double_quant": st.booleans(),
            "bnb_4bit_compute_dtype": st.sampled_from(["auto", "bfloat16", "float16", "float32"]),
        },
    ),
    st.just({"load_in_4bit": False}),
    st.fixed_dictionaries(
        {"load_in_8bit": st.just(True)},
        optional={"load_in_4bit": st.just(False), "llm_int8_threshold": st.floats(0.0, 1e3)},
    ),
)
ENGINES = st.one_of(
    st.fixed_dictionaries(
        {},
        optional={
            "kind": st.sampled_from(["auto", "fast"]),
            "memory_budget": st.none() | st.floats(0.5, 200.0),
            "micro_tokens": st.none() | positive,
            "recompute": st.sampled_from(["auto", "none", "wide", "blocks", "offload"]),
            "cached_blocks": st.none() | st.integers(0, 100),
            "attention": st.sampled_from(["auto", "flash4", "cudnn", "flash", "efficient", "documents"]),
            "kernels": st.sampled_from(["auto", "triton", "torch"]),
            "fold_lora": st.booleans(),
            "graphs": st.sampled_from(["auto", "always", "never"]),
        },
    ),
    st.fixed_dictionaries(
        {"kind": st.just("plain")},
        optional={
            "micro_tokens": st.none() | positive,
            "recompute": st.sampled_from(["auto", "none", "blocks"]),
        },
    ),
)
LENGTHS = st.one_of(
    st.fixed_dictionaries({"epochs": st.floats(0.01, 1e6)}), st.fixed_dictionaries({"max_steps": positive})
)
RECIPES = st.fixed_dictionaries(
    {
        "name": st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,20}\Z"),
        "base": st.fixed_dictionaries({"path": words}, optional={"revision": st.none() | words}),
        "lora": st.fixed_dictionaries(
            {"targets": st.lists(words, min_size=1, max_size=4)},
            optional={"r": positive, "alpha": positive, "dropout": st.floats(0.0, 0.99)},
        ),
        "data": st.fixed_dictionaries(
            {"train": words},
            optional={
                "valid": st.none() | words,
                "max_length": positive,
                "too_long": st.sampled_from(["drop", "cut"]),
                "packing": st.booleans(),
            },
        ),
        "training": st.builds(
            lambda a, b: {**a, **b},
            LENGTHS,
            st.fixed_dictionaries(
                {},
                optional={
                    "learning_rate": rates,
                    "weight_decay": st.floats(0.0, 1e3),
                    "max_grad_norm": st.floats(1e-9, 1e300),
                    "schedule": st.sampled_from(["cosine", "linear", "constant"]),
                    "eval_every": st.none() | positive,
                },
            ),
        ),
    },
    optional={
        "seed": st.integers(0, 2**32 - 1),
        "out": st.none() | words,
        "template": words,
        "quantization": QUANTIZATIONS,
        "engine": ENGINES,
        "hub": st.fixed_dictionaries({}, optional={"license": st.none() | words, "data_licenses": st.lists(words)}),
    },
)


@given(RECIPES)
def test_the_resolved_recipe_reads_back_as_itself(values: dict[str, object]) -> None:
    written = Recipe.model_validate(values)
    read = check(Recipe, document.parse(load.dump(written), "run.yaml"))
    assert read == written
    assert load.dump(read) == load.dump(written)
    assert Recipe.model_validate(written.model_dump()) == written
