"""The run folder: never written over, complete, and resumed only by the recipe, data and base that began it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from koalpaca_tune import jsonl
from koalpaca_tune.config import load
from koalpaca_tune.config.recipe import Recipe
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.runs import record
from koalpaca_tune.runs import train as runs

Make = Callable[..., Recipe]
Go = Callable[..., dict[str, Any]]


class Pulled(BaseException):
    """The plug."""


def refused(action: Callable[[], object]) -> list[str]:
    with pytest.raises(KoalpacaError) as caught:
        action()
    return [f"{problem.code} | {problem}" for problem in caught.value.problems]


def test_a_folder_with_anything_in_it_is_not_written_to(on_files: Make, tmp_path: Path) -> None:
    recipe = on_files()
    folder = tmp_path / "run"
    assert runs.check_folder(recipe, resume=False) == folder
    assert not folder.exists(), "looking must not make it"
    folder.mkdir()
    assert runs.check_folder(recipe, resume=False) == folder
    (folder / "notes.txt").write_text("내 것", encoding="utf-8")
    said = (
        f"run-exists | {folder}: the run folder is not empty. Go on with --resume, or choose another: out=runs/NEW."
    )
    assert refused(lambda: runs.check_folder(recipe, resume=False)) == [said]
    (folder / "notes.txt").unlink()
    folder.rmdir()
    folder.write_text("", encoding="utf-8")
    assert refused(lambda: runs.check_folder(recipe, resume=False)) == [said]


def test_resuming_where_nothing_was_begun(on_files: Make, tmp_path: Path) -> None:
    assert refused(lambda: runs.check_folder(on_files(), resume=True)) == [
        f"resume-nothing | {tmp_path / 'run'}: there is no run here to go on with. Run without --resume."
    ]


@pytest.mark.parametrize(
    ("changes", "key", "old", "new"),
    [
        ({"training": {"learning_rate": 0.02}}, "training.learning_rate", "0.01", "0.02"),
        ({"training": {"max_steps": 3}}, "training.max_steps", "2", "3"),
        ({"lora": {"targets": ["dense"]}}, "lora.targets", "['query_key_value']", "['dense']"),
        ({"seed": 7}, "seed", "42", "7"),
        ({"template": "kullm-v2"}, "template", "'koalpaca'", "'kullm-v2'"),
        ({"quantization": {"load_in_4bit": False}}, "quantization.load_in_4bit", "True", "False"),
        (
            {"quantization": {"bnb_4bit_use_double_quant": False}},
            "quantization.bnb_4bit_use_double_quant",
            "True",
            "False",
        ),
    ],
)
def test_another_recipe_does_not_resume_and_the_key_is_named(
    on_files: Make, tmp_path: Path, changes: dict[str, Any], key: str, old: str, new: str
) -> None:
    stored = tmp_path / "run/run.yaml"
    jsonl.replace(stored, [load.dump(on_files())])
    assert runs.check_folder(on_files(), resume=True) == tmp_path / "run"
    said = refused(lambda: runs.check_folder(on_files(**changes), resume=True))
    accept = "" if key == "lora.targets" else f"; or accept it: --allow {key}"
    assert said[0] == (
        f"resume-differs | {stored}: {key}: the run was started with {old}, the recipe now says {new}. "
        f"Resume with the same recipe, or start a new run: out=runs/NEW{accept}."
    )


def test_all_differing_keys_at_once(on_files: Make, tmp_path: Path) -> None:
    jsonl.replace(tmp_path / "run/run.yaml", [load.dump(on_files())])
    said = refused(
        lambda: runs.check_folder(on_files(seed=7, training={"max_steps": 3, "batch_size": 1}), resume=True)
    )
    assert [line.split(": ")[1] for line in said] == ["seed", "training.max_steps", "training.batch_size"]


@pytest.mark.parametrize("family", ["gpt_neox", "llama"])
@pytest.mark.parametrize("four_bit", [True, False], ids=["4bit", "full"])
def test_a_run_records_what_it_was_made_of(
    on_files: Make, carry_out: Go, tmp_path: Path, family: str, four_bit: bool
) -> None:
    recipe = on_files(family, quantization={"load_in_4bit": four_bit})
    entry = carry_out(recipe)
    folder = tmp_path / "run"
    assert sorted(path.name for path in folder.iterdir()) == [
        "adapter",
        "checkpoints",
        "metrics.jsonl",
        "record.json",
        "report",
        "run.yaml",
    ]
    assert load.load(str(folder / "run.yaml")) == recipe
    stored = jsonl.read_json(folder / "record.json")
    assert stored == json.loads(json.dumps(entry))
    assert jsonl.read_json(folder / "adapter/record.json") == stored
    assert set(stored) == {
        *("name", "recipe", "versions", "machine", "git", "started", "finished", "base", "proof", "template"),
        *("tokenizer", "data", "trainable", "engine", "result", "world_size", "resumed", "rollbacks"),
    }
    train = stored["data"]["train"]
    assert train["sha256"] == hashlib.sha256((tmp_path / "train.jsonl").read_bytes()).hexdigest()
    assert (train["counts"]["examples"], train["counts"]["kept"]) == (9, 9)
    assert stored["data"]["valid"]["counts"]["kept"] == 3
    assert stored["base"]["model_type"] == family
    assert stored["base"]["path"] == recipe.base.path
    assert (stored["proof"]["linears_4bit"] > 0) is four_bit
    assert stored["proof"]["quant_type"] == ("nf4" if four_bit else None)
    assert set(stored["trainable"]) == set(recipe.lora.targets)
    assert stored["versions"]["peft"] != "not installed"
    assert stored["started"] <= stored["finished"]
    result = stored["result"]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert (result["steps"], result["loss"], result["valid_loss"]) == (
        2,
        lines[-1]["loss"],
        lines[-1]["valid_loss"],
    )
    assert result["tokens"] == sum(line["tokens"] for line in lines)
    read, again = record.of_adapter(folder / "adapter")
    assert (read, again) == (stored, recipe)


def test_the_hashes_tell_templates_and_tokenizers_apart(on_files: Make, tiny_bases: dict[str, str]) -> None:
    encoders = {
        (family, template): runs.read_examples(on_files(family, template=template)).encoder
        for family in ("gpt_neox", "llama")
        for template in ("koalpaca", "kullm-v2", "llama2")
    }
    for family in ("gpt_neox", "llama"):
        assert len({record.template_hash(e) for (f, _), e in encoders.items() if f == family}) == 3
    assert len({record.tokenizer_hash(encoder) for encoder in encoders.values()}) == 2


def begun(on_files: Make, carry_out: Go) -> Recipe:
    """A run of three steps, interrupted after its first checkpoint."""
    recipe = on_files(training={"max_steps": 3, "checkpoint_every": 1})

    def progress(done: int, total: int, row: dict[str, Any]) -> None:
        if done == 2:
            raise Pulled

    with pytest.raises(Pulled):
        carry_out(recipe, progress=progress)
    return recipe


def test_an_interrupted_run_says_so_and_resumes(on_files: Make, carry_out: Go, tmp_path: Path) -> None:
    recipe = begun(on_files, carry_out)
    stored = jsonl.read_json(tmp_path / "run/record.json")
    assert (stored["finished"], stored["result"]) == (None, None)
    assert not (tmp_path / "run/adapter").exists()
    resumed = carry_out(recipe, resume=True)
    assert resumed["result"]["steps"] == 3
    other = on_files(out=str(tmp_path / "other"), training={"max_steps": 3, "checkpoint_every": 1})
    whole = carry_out(other)
    name = "adapter/adapter_model.safetensors"
    assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()
    assert resumed["result"]["loss"] == whole["result"]["loss"]


@pytest.mark.parametrize("part", ["train", "valid"])
def test_a_run_is_not_resumed_on_other_data(on_files: Make, carry_out: Go, tmp_path: Path, part: str) -> None:
    recipe = begun(on_files, carry_out)
    file = tmp_path / f"{part}.jsonl"
    file.write_text(file.read_text(encoding="utf-8").replace("입니다", "이에요"), encoding="utf-8")
    (said,) = refused(lambda: carry_out(recipe, resume=True))
    assert said.startswith(f"resume-differs | {tmp_path / 'run'}: data.{part}: its content changed since")


def test_a_run_is_not_resumed_on_another_base(
    on_files: Make, carry_out: Go, tmp_path: Path, tiny_bases: dict[str, str]
) -> None:
    recipe = begun(on_files, carry_out)
    file = Path(recipe.base.path) / "model.safetensors"
    before = file.read_bytes()
    weights = load_file(file)
    name = sorted(weights)[0]
    try:
        save_file({**weights, name: weights[name] + 1e-3}, file, metadata={"format": "pt"})
        (said,) = refused(lambda: carry_out(recipe, resume=True))
    finally:
        file.write_bytes(before)
    assert said.startswith(f"resume-differs | {tmp_path / 'run'}: base: its content changed since")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "adapter-missing | {folder}: there is no record.json in the folder."),
        ("{", "json-file | {folder}/record.json: it is not JSON"),
        ("{}", "adapter-missing | {folder}/record.json: its record.json holds no recipe that can be read."),
        ('{"recipe": {"name": 1}}', "adapter-missing | {folder}/record.json: its record.json holds no recipe"),
    ],
)
def test_a_folder_that_is_no_adapter_of_ours(tmp_path: Path, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / "record.json").write_text(text, encoding="utf-8")
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            (tmp_path / name).touch()
    (found,) = refused(lambda: record.of_adapter(tmp_path))
    assert found.startswith(said.format(folder=tmp_path))


def test_a_broken_row_is_named_by_file_and_line(on_files: Make, carry_out: Go, tmp_path: Path) -> None:
    recipe = on_files()
    with (tmp_path / "train.jsonl").open("a", encoding="utf-8") as file:
        file.write("{broken\n")
    (said,) = refused(lambda: carry_out(recipe))
    assert f"{tmp_path / 'train.jsonl'}:10: " in said
    assert not (tmp_path / "run").exists()


def test_nothing_is_left_for_a_row_too_short(on_files: Make, carry_out: Go, tmp_path: Path) -> None:
    recipe = on_files(data={"max_length": 4})
    (said,) = refused(lambda: carry_out(recipe))
    assert said.startswith(
        f"data-nothing-left | {tmp_path / 'train.jsonl'}: of 9 examples, 9 are longer than 4 tokens"
    )
    assert not (tmp_path / "run").exists()


def test_the_first_loss_is_that_of_the_first_line(on_files: Make, carry_out: Go, tmp_path: Path) -> None:
    recipe = on_files()
    ready = runs.make_ready(recipe, runs.read_examples(recipe))
    first = runs.first_loss(ready)
    assert not (tmp_path / "run").exists()
    carry_out(recipe)
    line = (tmp_path / "run/metrics.jsonl").read_text(encoding="utf-8").splitlines()[0]
    assert json.loads(line)["loss"] == pytest.approx(first, rel=1e-6)


def test_rows_longer_than_the_base_knows_are_refused(on_files: Make, carry_out: Go, tmp_path: Path) -> None:
    recipe = on_files(data={"max_length": 100_000})
    (said,) = refused(lambda: carry_out(recipe))
    assert said.startswith("length-beyond-base | data.max_length: 100000 tokens are more than the ")
    assert not (tmp_path / "run").exists()
