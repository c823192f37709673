"""Checkpoints that a disk damaged or refused: found, told, kept; the newest whole one is gone on from."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from koalpaca_tune.config.recipe import Recipe
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.runs.train import Ready, make_ready
from koalpaca_tune.training import checkpoint, durable, position
from koalpaca_tune.training.steps import Step

Make = Callable[..., Recipe]
Prepare = Callable[..., Ready]
# notices: a busy machine is told of as slow
CLOCK = ("seconds", "data_seconds", "tokens_per_second", "host_memory_gib", "notices")


@pytest.fixture(scope="module")
def whole(
    make_recipe: Make, encoded: Callable[[Recipe], Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Recipe, Path]:
    """A run of six steps, with its two newest checkpoints and the best."""
    training = {"max_steps": 6, "checkpoint_every": 2, "eval_every": 1, "learning_rate": 0.02}
    recipe = make_recipe(kind="fast", training=training, data={"valid": "valid.jsonl"}, lora={"dropout": 0.2})
    folder = tmp_path_factory.mktemp("whole") / "run"
    make_ready(recipe, encoded(recipe)).trainer.run(folder)
    return recipe, folder


def trail(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in CLOCK} for line in lines]


def adapter(folder: Path) -> bytes:
    return (folder / "adapter/adapter_model.safetensors").read_bytes()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_a_checkpoint_is_whole_and_sha256sum_agrees(whole: tuple[Recipe, Path]) -> None:
    last = whole[1] / "checkpoints/step-0000006"
    assert checkpoint.fault(last) == ""
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=last, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert done.stdout.count(": OK") == len(checkpoint.FILES) == 5
    assert sorted(path.name for path in last.iterdir()) == sorted([*checkpoint.FILES, "SHA256SUMS"])


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
def test_any_flipped_bit_and_any_cut_is_found(
    whole: tuple[Recipe, Path], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    last = whole[1] / "checkpoints/step-0000006"
    name = data.draw(st.sampled_from([*checkpoint.FILES, checkpoint.SUMS]))
    content = bytearray((last / name).read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        del content[place:]
    else:
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    copy = tmp_path_factory.mktemp("flip") / "step-0000006"
    shutil.copytree(last, copy)
    (copy / name).write_bytes(content)
    told = checkpoint.fault(copy)
    assert told
    assert name in told or name == checkpoint.SUMS
    shutil.rmtree(copy)


@pytest.mark.parametrize("name", ["state.safetensors", "metrics.jsonl", "SHA256SUMS"])
def test_the_newest_whole_checkpoint_is_used_and_the_damaged_one_is_kept_and_told_of(
    whole: tuple[Recipe, Path], ready: Prepare, tmp_path: Path, name: str
) -> None:
    recipe, expected = whole
    folder = tmp_path / "run"
    shutil.copytree(expected, folder)
    shutil.rmtree(folder / "adapter")
    file = folder / "checkpoints/step-0000006" / name
    file.write_bytes(file.read_bytes()[:-3])
    (folder / "metrics.jsonl").write_text('{"step": 1, "lo', encoding="utf-8")
    told: list[str] = []
    events: list[tuple[str, dict[str, Any]]] = []
    ready(recipe).trainer.run(
        folder,
        resume=True,
        progress=lambda done, total, row: told.extend(row.get("told", [])),
        event=lambda kind, what: events.append((kind, what)),
    )
    assert "(step-0000006 is damaged; kept as damaged-step-0000006, and step-" in told[0]
    assert events[0][0] == "resumed"
    assert events[0][1]["damaged"] == ["step-0000006"]
    assert (folder / "checkpoints/damaged-step-0000006" / name).is_file()
    assert trail(folder) == trail(expected)
    assert adapter(folder) == adapter(expected)
    assert checkpoint.fault(folder / "checkpoints/step-0000006") == ""


def test_the_checkpoint_of_the_lowest_validation_loss_is_kept(
    make_recipe: Make, ready: Prepare, tmp_path: Path
) -> None:
    """The rate is far too high, so that validation gets worse; the best stays, also after a resume."""
    training = {
        "max_steps": 10,
        "checkpoint_every": 4,
        "eval_every": 1,
        "keep_checkpoints": 1,
        "learning_rate": 0.1,
        "warmup_steps": 3,
    }
    recipe = make_recipe(kind="fast", training=training, data={"valid": "valid.jsonl"})

    class Pulled(BaseException):
        pass

    def pull(done: int, total: int, row: dict[str, Any]) -> None:
        if done == 9:
            raise Pulled

    ready(recipe).trainer.run(tmp_path / "whole")
    with pytest.raises(Pulled):
        ready(recipe).trainer.run(tmp_path / "part", progress=pull)
    ready(recipe).trainer.run(tmp_path / "part", resume=True)
    losses = {row["step"]: row["valid_loss"] for row in trail(tmp_path / "whole")}
    best = min(losses, key=lambda step: losses[step])
    assert best < 10, "else this test shows nothing"
    for name in ("whole", "part"):
        assert names(tmp_path / name) == [checkpoint.name_of(best), "step-0000010"]
        state = json.loads((tmp_path / name / "checkpoints/step-0000010/state.json").read_text(encoding="utf-8"))
        assert state["best"] == {"step": best, "valid_loss": losses[best]}
    assert trail(tmp_path / "part") == trail(tmp_path / "whole")


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """No file may grow beyond `room` bytes: a write ends half way with an error, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_ends_the_run_in_one_line_and_it_goes_on_when_there_is_room(
    whole: tuple[Recipe, Path], ready: Prepare, tmp_path: Path
) -> None:
    recipe, expected = whole
    made = ready(recipe)
    limits: list[Any] = []

    def fill(done: int, total: int, row: dict[str, Any]) -> None:
        if done == 4:
            limits.append(full_disk(8192))
            limits[0].__enter__()

    try:
        with pytest.raises(KoalpacaError) as caught:
            made.trainer.run(tmp_path, progress=fill)
    finally:
        limits[0].__exit__(None, None, None)
    said = str(caught.value)
    assert caught.value.problems[0].code == "run-write"
    assert said.startswith(f"{tmp_path}/checkpoints/step-0000004: it cannot be written (")
    assert said.endswith("go on with --resume. step-0000003 is there.")
    assert "\n" not in said
    assert not list((tmp_path / "checkpoints").glob(".*")), "what was half written takes no room"
    ready(recipe).trainer.run(tmp_path, resume=True)
    assert trail(tmp_path) == trail(expected)
    assert adapter(tmp_path) == adapter(expected)


def test_a_folder_loses_its_name_before_its_files(tmp_path: Path) -> None:
    (tmp_path / "step-1").mkdir()
    (tmp_path / "step-1/file").touch()
    (tmp_path / ".step-1.tmp").mkdir()
    durable.remove(tmp_path / "step-1")
    assert list(tmp_path.iterdir()) == []


def test_files_of_a_finished_adapter_are_replaced_one_by_one(tmp_path: Path) -> None:
    for name, text in (("made", "new"), ("final", "old")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_text(text, encoding="utf-8")
    (tmp_path / "final/record.json").touch()
    durable.place(tmp_path / "made", tmp_path / "final")
    assert (tmp_path / "final/weights").read_text(encoding="utf-8") == "new"
    assert (tmp_path / "final/record.json").is_file()
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("rows", "step"),
    [(0, 0), (1, 0), (3, 0), (4, 1), (7, 1), (8, 2), (9, 2), (10, 3), (99, 3)],
)
def test_where_a_plan_goes_on_after_so_many_rows(rows: int, step: int) -> None:
    """Steps of 4, 4 and 2 rows. Between two steps the earlier one is taken, so that no row is left out."""
    plan = [Step(((0,),) * n, 0.0) for n in (4, 4, 2)]
    assert position.step_at(plan, rows) == step


def test_the_digest_of_an_order_tells_rows_apart() -> None:
    plans = [((1, 2), (3,)), ((1,), (2, 3)), ((1, 2, 3),), ((2, 1), (3,))]
    assert len({position.digest([Step(rows, 0.0)]) for rows in plans}) == 4
    assert position.digest([Step(plans[0], 0.0)]) == position.digest([Step(plans[0], 0.5)])
