"""`koalpaca diagnose` on a run folder: what it reads, what it says, what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from koalpaca_tune import jsonl
from koalpaca_tune.cli.main import cli
from koalpaca_tune.config import load as recipes
from koalpaca_tune.records import Conversation
from koalpaca_tune.runs import diagnose as runs
from koalpaca_tune.runs import record

WAVE = (0.0, 0.2, -0.1, 0.1, -0.2)


def rows(count: int, learned_share: float, **fields: Any) -> list[dict[str, Any]]:
    return [
        {
            "step": n + 1,
            "epoch": n / count,
            "loss": 4.0 - n / count + WAVE[n % 5],
            "learning_rate": 2e-4,
            "grad_norm": 5.0,
            "tokens": 200 + 10 * (n * 7 % 5),
            "learned_tokens": round(learned_share * (200 + 10 * (n * 7 % 5))),
            "adapter_zero": 0.0,
            **fields,
        }
        for n in range(count)
    ]


@pytest.fixture
def run(tmp_path: Path, conversations: Sequence[Conversation]) -> Callable[..., Path]:
    """(rows, record=changes, recipe=overrides, train=rows) -> a run folder over the embedded base."""

    def make(
        trail: Sequence[dict[str, Any]],
        *,
        recipe: Sequence[str] = (),
        train: Sequence[Conversation] | None = None,
        **changes: Any,
    ) -> Path:
        data = tmp_path / "train.jsonl"
        jsonl.write(data, (one.as_dict() for one in (conversations if train is None else train)))
        folder = tmp_path / "run"
        folder.mkdir()
        words = (f"data.train={data}", "data.valid=null", f"out={folder}", *recipe)
        jsonl.replace(folder / "run.yaml", [recipes.dump(recipes.load("demo", words))])
        jsonl.write(folder / "metrics.jsonl", trail)
        entry = {"finished": "now", "data": {"train": {"sha256": record.sha256(data)}}, "versions": {}, **changes}
        jsonl.write_json(folder / record.NAME, entry)
        return folder

    return make


def said(folder: Path) -> dict[str, Any]:
    done = CliRunner().invoke(cli, ["diagnose", str(folder), "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def share(folder: Path) -> float:
    return runs.read(folder).signals["data.kept_learned_share"]


def test_a_healthy_run(run: Callable[..., Path]) -> None:
    folder = run(rows(30, 0.3))
    trail = rows(30, share(folder))
    jsonl.write(folder / "metrics.jsonl", trail)
    assert said(folder)["verdict"] == "healthy"


def test_trl_1183_a_mask_that_learns_everything_is_named_with_evidence_and_the_next_command(
    run: Callable[..., Path],
) -> None:
    folder = run(rows(30, 0.99))
    found = said(folder)
    assert found["verdict"] == "mask-everything"
    assert found["causes"][0]["evidence"]["curve.learned_share"] == pytest.approx(0.99, abs=0.01)
    assert found["causes"][0]["next"].startswith(f"koalpaca data look {folder.parent}/train.jsonl")


def test_the_words_are_korean_first(run: Callable[..., Path]) -> None:
    folder = run(rows(30, 0.99))
    done = CliRunner().invoke(cli, ["diagnose", str(folder)], catch_exceptions=False)
    assert done.stdout.startswith("진단 (diagnosis): 질문까지 학습 (mask: everything is learned)\n")
    assert "근거 (evidence)" in done.stdout
    assert f"다음 (next): koalpaca data look {folder.parent}/train.jsonl" in done.stdout.replace("\n", " ")


def test_a_wrong_quantisation_is_read_from_the_record(run: Callable[..., Path]) -> None:
    proof = {"linears_4bit": 0, "linears_other": 28, "compute_dtype": None}
    assert said(run(rows(30, 0.3), proof=proof))["verdict"] == "quantization-not-applied"


def test_alpaca_lora_170_a_float16_run_that_ended_without_a_number(run: Callable[..., Path]) -> None:
    folder = run(
        rows(4, 0.3),
        recipe=["quantization.bnb_4bit_compute_dtype=float16"],
        ended={"code": "loss-not-finite", "step": 5},
        finished=None,
    )
    assert said(folder)["verdict"] == "float16-overflow"


def test_alpaca_lora_391_a_version_known_to_be_bad_is_named(run: Callable[..., Path]) -> None:
    trail = rows(30, 0.3)
    for row in trail[12:]:
        row["loss"] += 5
    folder = run(
        trail, recipe=["training.optimizer=paged_adamw_8bit"], versions={"bitsandbytes": "0.37.2", "peft": "0.18"}
    )
    found = said(folder)
    assert found["verdict"] == "library-fault"
    assert [line.split(":")[0] for line in found["faults"]] == ["bitsandbytes 0.37.2"]


def test_repeated_data_are_read_from_the_file(
    run: Callable[..., Path], conversations: Sequence[Conversation]
) -> None:
    assert said(run(rows(30, 0.3), train=[*conversations[:2]] * 20))["verdict"] == "repeated-data"


def test_data_that_changed_since_are_not_believed(run: Callable[..., Path]) -> None:
    folder = run(rows(30, 0.3))
    with (folder.parent / "train.jsonl").open("a", encoding="utf-8") as file:
        file.write("\n")
    found = said(folder)
    assert found["unread"] == [f"{folder.parent}/train.jsonl: 학습한 뒤 바뀌었습니다 (changed since the run)"]
    assert not [key for key in found["signals"] if key.startswith("data.")]


def test_a_run_without_rows_is_too_short(run: Callable[..., Path]) -> None:
    assert said(run([]))["verdict"] == "too-short"


def test_a_folder_that_is_no_run_is_refused_in_one_line(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["diagnose", str(tmp_path / "nothing")])
    assert done.exit_code == 2
    assert done.stderr.splitlines()[0].startswith("error [diagnose-nothing]: ")


def test_a_broken_line_of_metrics_is_one_clear_error(run: Callable[..., Path]) -> None:
    folder = run(rows(5, 0.3))
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 6, "lo\n')
    done = CliRunner().invoke(cli, ["diagnose", str(folder)])
    assert done.exit_code == 2
    assert "metrics.jsonl:6" in done.stderr


def test_a_line_that_a_kill_left_unfinished_is_left_out_and_told(run: Callable[..., Path]) -> None:
    folder = run(rows(5, 0.3))
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 6, "lo')
    found = said(folder)
    assert found["signals"]["curve.rows"] == 5
    assert found["unread"] == [f"{folder}/metrics.jsonl:6: 쓰다 만 줄 (a line that was not finished)"]
