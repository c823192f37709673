"""Trouble during a run: told, stopped or rolled back, as the recipe's `watch` says. And signals."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from koalpaca_tune.config.recipe import Recipe
from koalpaca_tune.diagnosis.watch import SIGNS, Notice
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.runs.train import Ready
from koalpaca_tune.training import guard
from koalpaca_tune.training.guard import Guard, Rollback
from koalpaca_tune.training.signals import Interrupted

Make = Callable[..., Recipe]
Prepare = Callable[..., Ready]
TRAINING = {"max_steps": 14, "checkpoint_every": 2, "learning_rate": 0.005, "schedule": "constant", "batch_size": 8}
ALONE: dict[str, Any] = {"ignore": ["dead-adapter", "loss-rising", "loss-spike"]}
"""A gradient of zero is noticed in its own line, and nothing else is."""


class Trouble:
    """After so many steps, once each, the adapter is multiplied: by 0 no gradient comes, by NaN no number."""

    def __init__(self, ready: Ready, at: tuple[int, ...], factor: float) -> None:
        self.ready, self.at, self.factor = ready, list(at), factor
        self.told: list[str] = []
        self.steps: list[int] = []

    def __call__(self, done: int, total: int, row: dict[str, Any]) -> None:
        self.told += row.get("told", [])
        self.steps.append(done)
        if done in self.at:
            self.at.remove(done)
            with torch.no_grad():
                for name, parameter in self.ready.trainer.model.named_parameters():
                    if ".lora_" in name:
                        parameter.mul_(self.factor)


def lines(folder: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]


def told_to_stop(ready: Ready, folder: Path, trouble: Trouble, **more: Any) -> str:
    with pytest.raises(KoalpacaError) as caught:
        ready.trainer.run(folder, progress=trouble, **more)
    (problem,) = caught.value.problems
    assert problem.code == "run-stopped"
    return str(problem)


def test_warn_says_so_and_goes_on(make_recipe: Make, ready: Prepare, tmp_path: Path) -> None:
    made = ready(make_recipe(kind="fast", training=TRAINING, watch=ALONE))
    trouble = Trouble(made, (9,), 0.0)
    made.trainer.run(tmp_path, progress=trouble)
    rows = lines(tmp_path)
    assert [row["step"] for row in rows] == list(range(1, 15))
    assert rows[9]["notices"] == ["gradient-norm"]
    assert all("notices" not in row for row in rows[:9])
    assert any(line.startswith("단계 10: ") and "the gradient norm is 0" in line for line in trouble.told)
    assert all("told" not in row for row in rows)


def test_stop_leaves_a_checkpoint_and_resume_goes_on_from_it(
    make_recipe: Make, ready: Prepare, tmp_path: Path
) -> None:
    recipe = make_recipe(
        kind="fast", training={**TRAINING, "keep_checkpoints": 1}, watch={**ALONE, "policy": "stop"}
    )
    made = ready(recipe)
    said = told_to_stop(made, tmp_path, Trouble(made, (9,), 0.0))
    assert said.startswith(f"{tmp_path}: stopped at step 10: ")
    assert not (tmp_path / "adapter").exists()
    kept = [int(name.name[5:]) for name in sorted((tmp_path / "checkpoints").iterdir())]
    assert kept[-1] == 10
    assert kept[0] <= max(2, 10 - guard.LATE), "one to go back to is kept as well"
    assert len(kept) <= 3
    again = ready(recipe)
    metrics = again.trainer.run(tmp_path, resume=True)
    assert [row["step"] for row in metrics.rows] == list(range(1, 15))
    assert (tmp_path / "adapter").is_dir()


@pytest.mark.parametrize("kind", ["plain", "fast"])
@pytest.mark.parametrize("factor", [0.0, float("nan")], ids=["gradient", "not finite"])
def test_rollback_goes_back_and_lowers_the_rate(
    make_recipe: Make, ready: Prepare, tmp_path: Path, kind: str, factor: float
) -> None:
    recipe = make_recipe(
        kind=kind,
        training=TRAINING,
        lora={"dropout": 0.2},
        watch={**ALONE, "policy": "rollback", "rollback_factor": 0.25},
    )
    made = ready(recipe)
    trouble = Trouble(made, (9,), factor)
    events: list[tuple[str, dict[str, Any]]] = []
    made.trainer.run(tmp_path, progress=trouble, event=lambda *event: events.append(event))
    rows = lines(tmp_path)
    name = "gradient-norm" if factor == 0.0 else "not-finite"
    ((kind_of_event, rollback),) = events
    assert (kind_of_event, rollback["at"], rollback["step"], rollback["scale"]) == ("rollback", 10, 8, 0.25)
    assert name in rollback["notices"]
    assert rows[8] == {"step": 8, "rollback": {key: value for key, value in rollback.items() if key != "step"}}
    del rows[8]
    assert [row["step"] for row in rows] == list(range(1, 15))
    assert [row["learning_rate"] for row in rows] == pytest.approx([0.005] * 8 + [0.00125] * 6)
    gone = lines(tmp_path, "abandoned.jsonl")
    assert [row["step"] for row in gone] == ([9, 10] if factor == 0.0 else [9])
    # dropout is drawn again as it was, and from the same adapter: the step taken twice begins with the same loss
    assert gone[0]["loss"] == rows[8]["loss"]
    assert all(row["loss"] < rows[0]["loss"] - 0.1 for row in rows[8:])
    assert any("(rolled back from step 10 to 8; the rate is 0.25 of the recipe's)" in line for line in trouble.told)

    # the whole of it is what a run from that checkpoint with a quarter of the rate does
    other = ready(make_recipe(kind=kind, training={**TRAINING, "max_steps": 8}, lora={"dropout": 0.2}))
    other.trainer.run(tmp_path / "other")
    slow = make_recipe(kind=kind, training={**TRAINING, "learning_rate": 0.00125}, lora={"dropout": 0.2})
    ready(slow).trainer.run(tmp_path / "other", resume=True, allow=True)
    matrices = "adapter/adapter_model.safetensors"
    assert (tmp_path / matrices).read_bytes() == (tmp_path / "other" / matrices).read_bytes()


def test_a_rollback_survives_resume_and_their_number_is_limited(
    make_recipe: Make, ready: Prepare, tmp_path: Path
) -> None:
    recipe = make_recipe(kind="fast", training=TRAINING, watch={**ALONE, "policy": "rollback", "rollbacks": 1})
    events: list[dict[str, Any]] = []

    class Pulled(BaseException):
        pass

    made = ready(recipe)
    trouble = Trouble(made, (9,), 0.0)

    def pull(done: int, total: int, row: dict[str, Any]) -> None:
        trouble(done, total, row)
        if len(events) == 1 and done == 9:
            raise Pulled

    with pytest.raises(Pulled):
        made.trainer.run(tmp_path, progress=pull, event=lambda kind, what: events.append(what))
    known = [Rollback.from_dict(events[0])]
    again = ready(recipe)
    said = told_to_stop(again, tmp_path, Trouble(again, (12,), 0.0), resume=True, rollbacks=known)
    assert f"{tmp_path}: stopped at step 13 after 1 rollbacks: " in said
    rows = lines(tmp_path)
    assert [row["step"] for row in rows if "rollback" in row] == [8]
    assert rows[9]["learning_rate"] == pytest.approx(0.0025)


def test_a_checkpoint_that_a_rollback_took_back_is_not_gone_on_from(
    make_recipe: Make, ready: Prepare, tmp_path: Path
) -> None:
    """Killed after the rollback was written down, and before later checkpoints were removed."""
    training = {**TRAINING, "max_steps": 10, "keep_checkpoints": 9}
    recipe = make_recipe(kind="fast", training=training, watch={"policy": "rollback"})
    ready(recipe).trainer.run(tmp_path)
    told: list[str] = []
    metrics = ready(recipe).trainer.run(
        tmp_path,
        resume=True,
        rollbacks=[Rollback(1, 9, 4, 0.5, ("loss-spike",), {})],
        progress=lambda done, total, row: told.extend(row.get("told", [])),
    )
    assert told == ["단계 4의 체크포인트에서 이어 합니다 (resumed at step 4)"]
    rates = [row["learning_rate"] for row in metrics.rows if "loss" in row]
    assert rates == pytest.approx([0.005] * 4 + [0.0025] * 6)


ROWS = [{"step": step, "loss": 1.0} for step in (5, 10, 15, 20, 25)]
LATE = [{"step": step, "loss": 1.0} for step in range(1, 31)]
RISE = SIGNS["loss-rising"].rows


@pytest.mark.parametrize(
    ("rows", "names", "step"),
    [
        (ROWS, ("loss-spike",), 20),
        (ROWS, ("throughput", "gradient-norm"), 20),
        # a rise is known after some lines
        (LATE, ("loss-rising",), 30 - RISE),
        (LATE[:RISE], ("loss-rising",), 0),
        # the step has no line
        (ROWS, ("not-finite",), 25),
        ([], ("not-finite",), 0),
        ([*ROWS[:3], {"step": 20, "loss": 9.0, "notices": ["loss-spike"]}, ROWS[4]], ("loss-spike",), 15),
        ([*ROWS[:4], {"step": 22, "valid_loss": 1.0}, ROWS[4]], ("loss-spike",), 20),
    ],
)
def test_the_step_up_to_which_all_was_well(rows: list[Any], names: tuple[Any, ...], step: int) -> None:
    assert guard.good(rows, [Notice(name, 26, "", {}) for name in names]) == step


def test_the_rate_after_rollbacks() -> None:
    rollbacks = [Rollback(1, 60, 50, 0.5, (), {}), Rollback(2, 70, 40, 0.25, (), {})]
    assert [guard.scale(rollbacks, step) for step in (0, 39, 40, 50, 99)] == [1.0, 1.0, 0.25, 0.25, 0.25]
    assert [guard.scale(rollbacks[:1], step) for step in (49, 50)] == [1.0, 0.5]
    # checkpoints written before the second rollback, beyond what it went back to
    assert [guard.abandoned(rollbacks, step, known) for step, known in ((40, 0), (50, 0), (50, 1), (50, 2))] == [
        *(False, True, True, False)
    ]


DECISIONS = [
    ("warn", ["rollback"], 0, "go"),
    ("stop", ["warn"], 0, "go"),
    ("stop", ["warn", "stop"], 0, "stop"),
    ("stop", ["rollback"], 0, "stop"),
    ("rollback", ["rollback"], 1, "rollback"),
    ("rollback", ["rollback"], 2, "stop"),
    ("rollback", ["warn"], 0, "go"),
    # a lower rate does not mend an adapter that gets no gradient
    ("rollback", ["rollback", "stop"], 0, "stop"),
]


@pytest.mark.parametrize(("policy", "remedies", "rollbacks", "decision"), DECISIONS)
def test_what_follows_from_notices(
    make_recipe: Make, policy: str, remedies: list[str], rollbacks: int, decision: str
) -> None:
    settings = make_recipe(watch={"policy": policy, "rollbacks": 2}).watch
    assert Guard(settings, 10).decide(remedies, rollbacks) == decision


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_run_between_two_steps_and_it_resumes(
    make_recipe: Make, ready: Prepare, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    recipe = make_recipe(kind="fast", training={**TRAINING, "log_every": 4}, lora={"dropout": 0.2})
    before = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)]

    def send(done: int, total: int, row: dict[str, Any]) -> None:
        if done == 5:
            os.kill(os.getpid(), number)

    with pytest.raises(Interrupted) as caught:
        ready(recipe).trainer.run(tmp_path / "part", progress=send)
    assert caught.value.code == status
    assert caught.value.line.startswith(f"{number.name}: 단계 5의 체크포인트를 남겼습니다.")
    assert "\n" not in caught.value.line
    assert "--resume" in caught.value.line
    assert (tmp_path / "part/checkpoints/step-0000005").is_dir()
    assert [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)] == before
    ready(recipe).trainer.run(tmp_path / "part", resume=True)
    ready(recipe).trainer.run(tmp_path / "whole")
    matrices = "adapter/adapter_model.safetensors"
    assert (tmp_path / "part" / matrices).read_bytes() == (tmp_path / "whole" / matrices).read_bytes()
    assert [row["loss"] for row in lines(tmp_path / "part")] == [row["loss"] for row in lines(tmp_path / "whole")]


def test_a_second_signal_ends_the_run_at_once(make_recipe: Make, ready: Prepare, tmp_path: Path) -> None:
    def send(done: int, total: int, row: dict[str, Any]) -> None:
        if done == 5:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        ready(make_recipe(kind="fast", training=TRAINING)).trainer.run(tmp_path, progress=send)
    assert not (tmp_path / "checkpoints/step-0000005").exists()


def test_a_signal_in_the_last_step_lets_the_run_finish(make_recipe: Make, ready: Prepare, tmp_path: Path) -> None:
    def send(done: int, total: int, row: dict[str, Any]) -> None:
        if done == total:
            os.kill(os.getpid(), signal.SIGTERM)

    ready(make_recipe(kind="fast")).trainer.run(tmp_path, progress=send)
    assert (tmp_path / "adapter/adapter_model.safetensors").is_file()
