"""A sweep with the embedded base: trials are trained, chosen on one half, judged on the other, not done twice."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from koalpaca_tune import jsonl
from koalpaca_tune.cli.main import cli
from koalpaca_tune.config import load
from koalpaca_tune.config import space as spaces
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.runs import drawing
from koalpaca_tune.runs import swept as pages
from koalpaca_tune.runs.sweep import Asked, _judge, _tried, sweep

pytest.importorskip("optuna", reason="an extra: pip install koalpaca-tune[sweep]")

SUITE = """name: one
version: 1
title: 하나
title_en: one
tasks: [{task: ko-mini-sentiment, items: 4}]
"""


def talk(n: int) -> dict[str, object]:
    return {
        "messages": [{"role": "user", "content": f"{n} 더하기 1은?"}, {"role": "assistant", "content": f"{n + 1}."}]
    }


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    jsonl.write(tmp_path / "train.jsonl", [talk(n) for n in range(24)])
    jsonl.write(tmp_path / "valid.jsonl", [talk(n) for n in range(100, 112)])
    (tmp_path / "one.yaml").write_text(SUITE, encoding="utf-8")
    return [
        f"data.train={tmp_path}/train.jsonl",
        f"data.valid={tmp_path}/valid.jsonl",
        "training.max_steps=2",
        "training.warmup_steps=0",
        "evaluation.heldout_limit=1",
        "evaluation.max_new_tokens=2",
    ]


def asked(words: Sequence[str], folder: Path, trials: int = 9) -> Asked:
    space, fixed = spaces.read(words)
    return Asked("demo", tuple(fixed), tuple(space), trials, 1, str(folder / "one.yaml"), None, folder / "sweep")


class Here:
    """Runs commands in this process, and notes them.

    Attributes:
        stops: a name at which a person presses Ctrl-C.
    """

    def __init__(self, stops: str | None = None) -> None:
        self.stops = stops
        self.done: list[str] = []

    def __call__(self, arguments: Sequence[str], log: Path) -> int:
        if log.stem == self.stops:
            raise KeyboardInterrupt
        result = CliRunner().invoke(cli, list(arguments))
        log.write_text(f"{result.output}\n{result.exception!r}", encoding="utf-8")
        self.done.append(f"{arguments[0]} {log.stem}")
        return result.exit_code


def test_trials_are_trained_judged_and_not_done_twice(words: list[str], tmp_path: Path) -> None:
    # with four tokens nothing is left to learn: that trial fails, is told of, and stops nothing
    tried = asked([*words, "data.max_length=4,240"], tmp_path)
    before, run, after = Here(stops="trial-001"), Here(), Here()
    with pytest.raises(KeyboardInterrupt):
        sweep(tried, lambda name, what: None, before)
    found = sweep(tried, lambda name, what: None, run)
    assert before.done == ["train reference", "train trial-000"]
    assert run.done == ["train trial-001", "eval reference", "eval trial-001"]
    assert sweep(tried, lambda name, what: None, after).trials == found.trials
    assert after.done == []

    by_name = {one.name: one for one in found.trials}
    assert list(by_name)[-1] == "trial-000"
    assert str(by_name["trial-000"].failed).startswith("error [")
    assert by_name["trial-001"].changes == {"data.max_length": "240"}
    losses = [one.loss for one in found.trials if one.loss is not None]
    assert losses == sorted(losses)
    assert len(losses) == 2
    record = jsonl.read_json(tmp_path / "sweep" / "runs" / "trial-001" / "record.json")
    assert record["recipe"]["data"]["max_length"] == 240
    assert record["recipe"]["data"]["valid"].endswith("choose.jsonl")

    # what chose does not judge, and nothing is lost
    choose, judge = (
        {row["id"] for _, row in jsonl.read(tmp_path / "sweep" / "valid" / f"{name}.jsonl")}
        for name in ("choose", "judge")
    )
    assert not choose & judge
    assert len(choose | judge) == 12
    (judged,) = found.judged
    (likelihood,) = [row for row in judged.comparison.rows if row.task == "heldout-nll"]
    assert likelihood.paired.n == len(judge)
    assert all(p >= row.paired.p for p, row in zip(judged.adjusted, judged.comparison.rows, strict=True))

    page = pages.write(found, tmp_path / "sweep").read_text(encoding="utf-8")
    assert "| trial-001 | data.max_length=240 |" in page
    assert "실패 (failed): error [" in page
    assert (tmp_path / "sweep" / "sweep.svg").read_text(encoding="utf-8").startswith("<")

    # by the command, with nothing left to do
    given = [
        "--out",
        str(tmp_path / "sweep"),
        "--suite",
        str(tmp_path / "one.yaml"),
        "--trials",
        "9",
        "--judge",
        "1",
    ]
    shown = CliRunner().invoke(cli, ["sweep", "demo", *words, "data.max_length=4,240", *given])
    assert shown.exit_code == 0
    assert "trial-001" in shown.output
    assert f"보고서 (report): {tmp_path / 'sweep' / 'report.md'}" in shown.output
    other = CliRunner().invoke(cli, ["sweep", "demo", *words, "data.max_length=4,240", *given[:2]])
    assert other.exit_code == 2
    assert "error [sweep-differs]" in other.output

    with pytest.raises(KoalpacaError) as error:
        sweep(asked([*words, "lora.r=2,8"], tmp_path), lambda name, what: None, after)
    assert [problem.code for problem in error.value.problems] == ["sweep-differs"]


class Noted:
    """Leaves the record of a run where its recipe would, and notes what was asked."""

    def __init__(self) -> None:
        self.words: dict[str, list[str]] = {}

    def __call__(self, arguments: Sequence[str], log: Path) -> int:
        self.words[f"{arguments[0]} {log.stem}"] = list(arguments)
        if arguments[0] == "train":
            recipe = load.load(arguments[1], arguments[2:])
            jsonl.write_json(Path(recipe.folder) / recipe.output / "record.json", {"result": {"valid_loss": 1.0}})
        return 0


def test_full_fine_tuning_is_a_trial_as_any_other(words: list[str], tmp_path: Path) -> None:
    tried, run = asked([*words, "quantization=int8,full"], tmp_path), Noted()
    reference = tried.check()
    (tried.out / "runs").mkdir(parents=True)
    trials = _tried(tried, tmp_path / "valid.jsonl", lambda name, what: None, run, 0)
    assert [one.changes for one in trials] == [{"quantization": "int8"}, {"quantization": "full"}]
    assert "quantization.load_in_8bit=true" in run.words["train trial-000"]
    assert {"lora=null", "quantization.load_in_4bit=false"} <= set(run.words["train trial-001"])
    for one in trials:
        _judge(tried, one, reference, tmp_path / "valid.jsonl", run)
    judged = [run.words[f"eval {one.name}"] for one in trials]
    assert [given[given.index("--adapter") + 1].rpartition("/runs/")[2] for given in judged] == [
        "trial-000/adapter",
        "trial-001/model",
    ]
    assert [given[1] for given in judged] == ["embedded", "embedded"]


def test_without_optuna_nothing_is_begun(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    run = Here()
    with pytest.raises(KoalpacaError) as error:
        sweep(asked([*words, "lora.r=2,8"], tmp_path), lambda name, what: None, run)
    assert [problem.code for problem in error.value.problems] == ["extra-missing"]
    assert run.done == []
    assert not (tmp_path / "sweep").exists()


class Quick:
    """Leaves the record of a run whose loss is its rank: only how trials are drawn is looked at."""

    def __init__(self) -> None:
        self.ranks: list[int] = []

    def __call__(self, arguments: Sequence[str], log: Path) -> int:
        values = dict(word.split("=", 1) for word in arguments if "=" in word)
        self.ranks.append(int(values["lora.r"]))
        result = {"valid_loss": self.ranks[-1]}
        jsonl.write_json(Path(values["out"]) / "adapter" / "record.json", {"result": result})
        return 0


@pytest.mark.parametrize(
    ("space", "trials", "most"),
    [("lora.r=2..64", 5, 5), ("lora.r=2,8", 5, 2), ("lora.r=2,4,8", 2, 2), ("lora.r=2..3", 6, 6)],
)
def test_there_are_no_more_trials_than_asked_for_and_no_settings_are_trained_twice(
    words: list[str], tmp_path: Path, space: str, trials: int, most: int
) -> None:
    given, run = asked([*words, space], tmp_path, trials), Quick()
    (given.out / "runs").mkdir(parents=True)
    found = _tried(given, tmp_path / "choose.jsonl", lambda name, what: None, run, 0)
    assert len(run.ranks) == len(set(run.ranks)) == len(found) <= most
    assert len(drawing.study(given.space, given.trials, given.out / "study.log", 0).trials) >= most
    assert [one.changes["lora.r"] for one in found] == [str(rank) for rank in run.ranks]
    again = Quick()
    assert _tried(given, tmp_path / "choose.jsonl", lambda name, what: None, again, 0) == found
    assert again.ranks == []


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (["lora.r=4,none"], "config-type"),
        (["lora.rank=4,8"], "config-unknown-key"),
        (["lora.r=4,8", "data.valid=null"], "sweep-valid"),
        (["quantization=nf4,full", "lora.r=4,8"], "sweep-values"),
        (["quantization=int8,bf16", "quantization.bnb_4bit_quant_type=nf4,fp4"], "sweep-values"),
    ],
)
def test_what_cannot_be_tried_is_said_before_anything_is_trained(
    words: list[str], tmp_path: Path, more: list[str], code: str
) -> None:
    run = Here()
    given = [word for word in words if word.partition("=")[0] not in {one.partition("=")[0] for one in more}]
    with pytest.raises(KoalpacaError) as error:
        sweep(asked([*given, *more], tmp_path), lambda name, what: None, run)
    assert {problem.code for problem in error.value.problems} == {code}
    assert run.done == []
    assert not (tmp_path / "sweep").exists()
