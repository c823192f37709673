"""What may differ when a run is resumed: nothing, but what --allow names; and folders that are not to be had."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from koalpaca_tune import jsonl
from koalpaca_tune.config import load
from koalpaca_tune.config.recipe import Recipe
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.runs import train as runs

Make = Callable[..., Recipe]
TRAINING = {"max_steps": 4, "checkpoint_every": 1, "batch_size": 2}


class Pulled(BaseException):
    """The plug."""


def refused(action: Callable[[], object]) -> list[str]:
    with pytest.raises(KoalpacaError) as caught:
        action()
    return [f"{problem.code} | {problem}" for problem in caught.value.problems]


def go(recipe: Recipe, *, resume: bool = False, allow: tuple[str, ...] = (), pull_at: int = 0) -> dict[str, Any]:
    """What `koalpaca train` does, without the printing."""

    def progress(done: int, total: int, row: dict[str, Any]) -> None:
        if done == pull_at:
            raise Pulled

    folder = runs.check_folder(recipe, resume, allow)
    ready = runs.make_ready(recipe, runs.read_examples(recipe))
    return runs.run(ready, folder, resume=resume, allow=allow, progress=progress if pull_at else None)


def begun(on_files: Make, **sections: Any) -> Recipe:
    recipe = on_files(**{"training": TRAINING, "data": {"packing": False}, **sections})
    with pytest.raises(Pulled):
        go(recipe, pull_at=3)
    return recipe


def rows(folder: Path) -> list[dict[str, Any]]:
    return [row for _, row in jsonl.read(folder / "metrics.jsonl")]


def test_an_allowed_difference_is_taken_and_written_down(on_files: Make, tmp_path: Path) -> None:
    begun(on_files)
    slower = on_files(training={**TRAINING, "learning_rate": 0.005}, data={"packing": False})
    entry = go(slower, resume=True, allow=("training.learning_rate",))
    assert [row["learning_rate"] for row in rows(tmp_path / "run")][-1] < 0.005
    assert load.load(str(tmp_path / "run/run.yaml")) == slower
    (resumed,) = jsonl.read_json(tmp_path / "run/record.json")["resumed"]
    assert resumed["step"] == 2
    assert resumed["accepted"] == {"training.learning_rate": [0.01, 0.005]}
    assert entry["recipe"]["training"]["learning_rate"] == 0.005
    # what was accepted once is the run's recipe now
    assert runs.check_folder(slower, resume=True) == tmp_path / "run"


def test_only_what_is_named_is_allowed(on_files: Make, tmp_path: Path) -> None:
    begun(on_files)
    other = on_files(training={**TRAINING, "learning_rate": 0.005}, seed=7, data={"packing": False})
    (said,) = refused(lambda: runs.check_folder(other, True, ("training.learning_rate",)))
    assert said.startswith(f"resume-differs | {tmp_path}/run/run.yaml: seed: ")
    assert said.endswith("or accept it: --allow seed.")
    assert runs.check_folder(other, True, ("training", "seed")) == tmp_path / "run"


def test_another_batch_size_goes_on_with_the_rows_that_come_next(on_files: Make, tmp_path: Path) -> None:
    """Two steps of two rows are done; steps of four rows go on with the row that comes next, numbered 3, 4, ..."""
    begun(on_files, training={**TRAINING, "max_steps": None, "epochs": 1.0})
    larger = on_files(
        training={**TRAINING, "max_steps": None, "epochs": 1.0, "batch_size": 4}, data={"packing": False}
    )
    ready = runs.make_ready(larger, runs.read_examples(larger))
    folder = runs.check_folder(larger, True, ("training.batch_size",))
    runs.run(ready, folder, resume=True, allow=("training.batch_size",))
    whole = ready.trainer.steps
    assert [len(step.rows) for step in whole] == [4, 4, 1]
    assert (ready.trainer.shift, ready.trainer.total) == (1, 4)
    learned = [sum(ready.trainer.train[i].learned for row in step.rows for i in row) for step in whole]
    assert [row["step"] for row in rows(folder)] == [1, 2, 3, 4]
    assert [row["learned_tokens"] for row in rows(folder)][2:] == learned[1:]


def test_data_that_changed_is_taken_where_it_is_allowed(on_files: Make, tmp_path: Path) -> None:
    recipe = begun(on_files)
    file = tmp_path / "train.jsonl"
    file.write_text(file.read_text(encoding="utf-8").replace("입니다", "이에요"), encoding="utf-8")
    (said,) = refused(lambda: go(recipe, resume=True))
    assert said.startswith(f"resume-differs | {tmp_path / 'run'}: data.train: its content changed since")
    go(recipe, resume=True, allow=("data.train",))
    (resumed,) = jsonl.read_json(tmp_path / "run/record.json")["resumed"]
    assert list(resumed["accepted"]) == ["data.train"]
    go(recipe, resume=True)


def test_the_number_of_processes_is_recorded_and_checked(on_files: Make, tmp_path: Path) -> None:
    recipe = begun(on_files)
    record = jsonl.read_json(tmp_path / "run/record.json")
    assert record["world_size"] == 1
    jsonl.write_json(tmp_path / "run/record.json", {**record, "world_size": 2})
    assert refused(lambda: go(recipe, resume=True)) == [
        f"resume-differs | {tmp_path}/run: world_size: the run was started with 2 processes, there are 1 now. "
        "Put it back as it was, or start a new run: out=runs/NEW; or accept it: --allow world_size."
    ]
    assert go(recipe, resume=True, allow=("world_size",))["result"]["steps"] == 4


def test_another_order_of_the_same_data_is_refused(on_files: Make, tmp_path: Path) -> None:
    """Another version of numpy may shuffle differently: the recipe is the same, what is learned next is not."""
    recipe = begun(on_files)
    ready = runs.make_ready(recipe, runs.read_examples(recipe))
    ready.trainer.steps.reverse()
    (said,) = refused(lambda: runs.run(ready, tmp_path / "run", resume=True))
    assert said.startswith(f"resume-differs | {tmp_path}/run/checkpoints/step-0000002: order: ")


ALLOW = [
    (("sede",), True, "allow-unknown | --allow: there is no key 'sede'. Did you mean 'seed'?"),
    (("seed",), False, "allow-refused | --allow: it has an effect with --resume only. Remove it."),
    (
        ("lora.r",),
        True,
        "allow-refused | --allow: lora.r gives the checkpoint its shape and cannot be changed. "
        "Start a new run: out=runs/NEW.",
    ),
]


@pytest.mark.parametrize(("allow", "resume", "said"), ALLOW)
def test_an_allow_that_cannot_be_had(on_files: Make, allow: tuple[str, ...], resume: bool, said: str) -> None:
    assert refused(lambda: runs.check_folder(on_files(), resume, allow)) == [said]


def test_a_section_that_is_allowed_does_not_change_the_shape(on_files: Make, tmp_path: Path) -> None:
    jsonl.replace(tmp_path / "run/run.yaml", [load.dump(on_files())])
    (said,) = refused(lambda: runs.check_folder(on_files(lora={"r": 16}), True, ("lora",)))
    assert "lora.r: the run was started with 4, the recipe now says 16." in said
    assert "--allow" not in said


def test_a_folder_in_which_a_run_was_killed_at_once_is_taken(on_files: Make, tmp_path: Path) -> None:
    """record.json comes before run.yaml: without the second there was no run."""
    recipe = on_files()
    jsonl.write_json(tmp_path / "run/record.json", {"name": "small"})
    (tmp_path / "run/.run.yaml.123.tmp").touch()
    assert refused(lambda: runs.check_folder(recipe, resume=True))[0].startswith("resume-nothing | ")
    go(recipe)
    assert not list((tmp_path / "run").glob(".*"))


def test_a_folder_that_another_process_is_training_in(on_files: Make, tmp_path: Path) -> None:
    recipe = begun(on_files)
    handle = os.open(tmp_path / "run", os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        said = f"run-busy | {tmp_path}/run: another process is training in this folder. "
        assert refused(lambda: runs.check_folder(recipe, resume=True))[0].startswith(said)
    finally:
        os.close(handle)
    assert runs.check_folder(recipe, resume=True) == tmp_path / "run"


def test_a_folder_that_cannot_be_written_to(on_files: Make, tmp_path: Path) -> None:
    """Said before anything is loaded."""
    (tmp_path / "file").touch()
    (said,) = refused(lambda: runs.check_folder(on_files(out=str(tmp_path / "file/run")), resume=False))
    assert said.startswith(f"run-write | {tmp_path}/file/run: it cannot be written (")
    top = tmp_path / "locked"
    top.mkdir()
    top.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        # root may write anywhere: for a moment somebody else
        os.seteuid(65534)
    try:
        (said,) = refused(lambda: runs.check_folder(on_files(out=str(top / "run")), resume=False))
    finally:
        os.seteuid(user)
    assert said.startswith(f"run-write | {top}/run: it cannot be written (")
    assert "\n" not in said
