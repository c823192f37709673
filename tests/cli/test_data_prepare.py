"""Each option of `koalpaca data prepare` takes effect, and one that would not is an error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from koalpaca_tune import jsonl
from koalpaca_tune.cli.main import cli

ROWS = "".join(f"{n}번 창구는 어디예요?,{n}층 왼쪽이에요.\n" for n in range(12))


def prepare(*words: str) -> Result:
    return CliRunner().invoke(cli, ["data", "prepare", *words])


def report(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "report.json").read_text("utf-8"))
    return found


@pytest.fixture
def odd(tmp_path: Path) -> str:
    """A file whose column names say nothing."""
    path = tmp_path / "odd.csv"
    path.write_text("가,나\n" + ROWS, encoding="cp949")
    return str(path)


@pytest.fixture
def plain(tmp_path: Path) -> str:
    path = tmp_path / "plain.csv"
    path.write_text("instruction,output\n" + ROWS, encoding="utf-8")
    return str(path)


def test_column_says_what_a_column_means(odd: str, tmp_path: Path) -> None:
    refused = prepare(odd, "--out", str(tmp_path / "out"))
    assert (refused.exit_code, "shape-unknown" in refused.stderr) == (2, True)
    done = prepare(odd, "--column", "question=가", "--column", "answer=나", "--out", str(tmp_path / "out"))
    assert done.exit_code == 0, done.output
    assert report(tmp_path / "out")["files"][0]["columns"] == ["가", "나"]


def test_encoding_and_shape_are_held_to(odd: str, plain: str, tmp_path: Path) -> None:
    refused = prepare(odd, "--encoding", "utf-8", "--out", str(tmp_path / "a"))
    assert (refused.exit_code, "file-encoding" in refused.stderr) == (2, True)
    refused = prepare(plain, "--shape", "messages", "--out", str(tmp_path / "b"))
    assert (refused.exit_code, "shape-unknown" in refused.stderr) == (2, True)
    assert prepare(plain, "--shape", "koalpaca", "--encoding", "utf-8", "--out", str(tmp_path / "c")).exit_code == 0
    assert report(tmp_path / "c")["files"][0]["shape"] == "koalpaca"


def test_licence_reaches_the_report(plain: str, tmp_path: Path) -> None:
    assert prepare(plain, "--licence", "CC-BY-4.0", "--out", str(tmp_path / "out")).exit_code == 0
    assert report(tmp_path / "out")["sources"][0]["licence"] == "CC-BY-4.0"
    assert prepare(plain, "--out", str(tmp_path / "none")).exit_code == 0
    assert report(tmp_path / "none")["sources"][0]["licence"] == "unknown"


def test_preparation_is_read_and_set_changes_it(plain: str, tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text(f"inputs: [{{path: '{plain}', cap: 5}}]\nclean: [nfc]\n", encoding="utf-8")
    assert prepare("--preparation", str(file), "--out", str(tmp_path / "one")).exit_code == 0
    assert (report(tmp_path / "one")["kept"], report(tmp_path / "one")["preparation"]["clean"]) == (5, ["nfc"])
    done = prepare(
        "--preparation", str(file), "--set", "clean=[]", "--valid-share", "0.5", "--out", str(tmp_path / "two")
    )
    assert done.exit_code == 0
    said = report(tmp_path / "two")["preparation"]
    assert (said["clean"], said["valid_share"]) == ([], 0.5)
    refused = prepare(plain, "--set", "qualty.max_echo=1", "--out", str(tmp_path / "three"))
    assert (refused.exit_code, "config-unknown-key" in refused.stderr) == (2, True)


def test_overwrite_alone_replaces(plain: str, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    assert prepare(plain, "--out", out).exit_code == 0
    refused = prepare(plain, "--out", out)
    assert (refused.exit_code, "out-not-empty" in refused.stderr) == (2, True)
    assert prepare(plain, "--set", "duplicates.drop=none", "--out", out, "--overwrite").exit_code == 0
    assert report(tmp_path / "out")["preparation"]["duplicates"]["drop"] == "none"


def test_data_root_brings_in_sets_and_items_to_protect(tmp_path: Path) -> None:
    # a described set of the same shape, and KoBEST items of which one is a training review
    nsmc, kobest = tmp_path / "root/nsmc", tmp_path / "root/kobest/SentiNeg"
    nsmc.mkdir(parents=True)
    kobest.mkdir(parents=True)
    reviews = [
        "주인공의 연기가 참 좋아서 두 번이나 보았습니다",
        "줄거리가 뻔해서 중간에 잠들 뻔했네요 시간이 아까워요",
        "바닷가 장면의 색감과 음악이 오래 기억에 남는 영화였습니다",
        "아이들과 함께 웃으며 보기에 딱 알맞은 만화예요",
        "무서운 장면이 많다고 해서 기대했는데 싱거웠어요",
    ]
    lines = "".join(f"{n}\t{review}\t{n % 2}\n" for n, review in enumerate(reviews))
    (nsmc / "train.tsv").write_text("id\tdocument\tlabel\n" + lines, encoding="utf-8")
    (kobest / "test.tsv").write_text(f"Text\tLabel\n{reviews[2]}\t1\n", encoding="utf-8")
    out = tmp_path / "out"
    done = prepare("source:nsmc", "--data-root", str(tmp_path / "root"), "--out", str(out))
    assert done.exit_code == 0, done.output
    assert report(out)["leaks"] == {"kobest-sentineg": 1}
    (lost,) = [row for _, row in jsonl.read(out / "rejected.jsonl") if row["reason"] == "contaminated"]
    assert reviews[2] in json.dumps(lost, ensure_ascii=False)
    assert prepare("source:nsmc", "--out", str(tmp_path / "none")).exit_code == 2


def test_workers_is_checked_and_options_for_files_need_one(plain: str, tmp_path: Path) -> None:
    # that several give the same bytes is tested in tests/data/test_cluster.py
    assert prepare(plain, "--workers", "0", "--out", str(tmp_path / "a")).exit_code == 2
    assert prepare(plain, "--workers", "2", "--out", str(tmp_path / "b")).exit_code == 0
    refused = prepare("--samples", "--shape", "qa", "--out", str(tmp_path / "c"))
    assert (refused.exit_code, "--shape" in refused.stderr) == (2, True)
