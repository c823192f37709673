from __future__ import annotations

import csv
import json
import os
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from koalpaca_tune import jsonl
from koalpaca_tune.config.preparation import Input, Preparation
from koalpaca_tune.config.quality import Quality
from koalpaca_tune.data import pages
from koalpaca_tune.data.cleaning.clean import clean
from koalpaca_tune.data.cleaning.privacy import mask
from koalpaca_tune.data.prepare import OURS, Progress, prepare
from koalpaca_tune.data.report import Report
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.records import Conversation, Turn

Write = Callable[..., Path]


def run(
    files: Sequence[Path], out: Path, *, overwrite: bool = False, progress: Progress | None = None, **chosen: Any
) -> Report:
    shape, encoding = chosen.pop("shape", None), chosen.pop("encoding", None)
    inputs = [Input(path=str(path), shape=shape, encoding=encoding) for path in files]
    return prepare(Preparation(inputs=inputs, **chosen), out, overwrite=overwrite, progress=progress)


GOOD = "질문,답변,label\n" + "".join(f"질문 {n}번?,답 {n}입니다.,0\n" for n in range(60))


def rows(path: Path) -> list[dict[str, Any]]:
    return [row for _, row in jsonl.read(path)]


def everything(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def test_a_file_becomes_two_sets_and_a_report(write: Write, tmp_path: Path) -> None:
    calls: list[tuple[str, int]] = []
    out = tmp_path / "new" / "out"
    made = run([write("chat.csv", GOOD)], out, progress=lambda stage, count: calls.append((stage, count)))
    assert sorted(everything(out)) == sorted(OURS)
    train, valid = rows(out / "train.jsonl"), rows(out / "valid.jsonl")
    assert (made.rows, made.train, made.valid) == (60, len(train), len(valid))
    assert made.train + made.valid == 60
    assert made.valid > 0
    assert calls == [("read", 60), ("compare", 60), ("write", 60)]
    first = Conversation.from_dict(train[0], "x")
    assert first.source == "chat"
    assert train[0]["id"] == first.id
    for side in (train, valid):
        lines = [int(row["origin"].removeprefix("chat.csv:")) for row in side]
        assert lines == sorted(lines)
    file = made.files[0]
    assert (file.format, file.encoding, file.delimiter, file.shape) == ("csv", "utf-8", "comma", "qa")
    assert (file.columns, file.unused) == (("질문", "답변"), ("label",))
    said = json.loads((out / "report.json").read_text("utf-8"))
    assert (said["train"], said["valid"], said["kept"]) == (made.train, made.valid, 60)
    assert said["preparation"]["valid_share"] == 0.1
    assert said["lengths"]["chat"]["answer"]["count"] == 60
    measured = rows(out / "quality.jsonl")
    assert {row["id"] for row in measured} == {row["id"] for row in train + valid}
    assert {row["signals"]["speech"] for row in measured} == {"하십시오체"}


DAMAGED = (
    '질문,답변\n하나?,하나.\n둘?,\n셋?\n"넷"?,넷.\n다섯?,다섯\ufffd\n하나?,하나.\n하나?,다른 하나.\n'
    + unicodedata.normalize("NFD", "여섯?,여섯.\n")
    + "  일곱?,일곱\u200b.\n,,\n여덟?,여덟.\n"
)
TALKS = [
    {"messages": [{"role": "user", "content": "안녕"}, {"role": "assistant", "content": "네"}]},
    {"messages": [{"role": "user", "content": "안녕"}, {"role": "user", "content": "네"}]},
    {"messages": "글"},
    {"messages": [{"role": "user", "content": "안녕"}, {"role": "assistant", "content": 3}]},
    {"messages": [{"role": "user", "content": "안녕"}, {"role": "assistant", "content": "\ud800"}]},
    {"messages": [{"role": "user", "content": float("nan")}, {"role": "assistant", "content": "네"}]},
]


def test_every_loss_is_counted_and_kept_with_origin_and_reason(write: Write, tmp_path: Path) -> None:
    talks = "\n".join([*(json.dumps(row) for row in TALKS), "깨짐"])
    made = run([write("a.csv", DAMAGED), write("b.jsonl", talks)], tmp_path / "out", valid_share=0.3)
    rejected = rows(tmp_path / "out" / "rejected.jsonl")
    assert [(row["origin"], row["reason"]) for row in rejected] == [
        ("a.csv:3", "row-empty"),
        ("a.csv:4", "row-fields"),
        ("a.csv:5", "row-quotes"),
        ("a.csv:6", "row-encoding"),
        ("a.csv:7", "duplicate-exact"),
        ("a.csv:11", "row-empty"),
        ("b.jsonl:2", "row-turns"),
        ("b.jsonl:3", "row-shape"),
        ("b.jsonl:4", "row-type"),
        ("b.jsonl:5", "row-encoding"),
        ("b.jsonl:6", "row-type"),
        ("b.jsonl:7", "row-json"),
    ]
    assert rejected[0]["row"] == {"질문": "둘?", "답변": ""}
    assert rejected[3]["row"]["답변"] == "다섯\\ufffd"
    assert rejected[9]["row"]["messages"][1]["content"] == "\\ud800"
    assert made.rejected == {
        "row-empty": 2,
        "row-fields": 1,
        "row-quotes": 1,
        "row-json": 1,
        "row-encoding": 2,
        "row-type": 2,
        "row-shape": 1,
        "row-turns": 1,
        "duplicate-exact": 1,
    }
    assert made.cleaned == {"invisible": 1, "nfc": 1, "outer-space": 1}
    assert (made.duplicates, made.conflicting_questions, made.conflicting_records) == (1, 1, 2)
    assert made.rows == made.records == sum(made.rejected.values()) + made.train + made.valid == 18
    assert [(file.rows, sum(file.rejected.values()), file.kept) for file in made.files] == [(11, 6, 5), (7, 6, 1)]


def test_nfd_and_nfc_files_give_the_same_sets(write: Write, tmp_path: Path) -> None:
    run([write("nfc/chat.csv", GOOD)], tmp_path / "c")
    run([write("nfd/chat.csv", unicodedata.normalize("NFD", GOOD), "utf-16")], tmp_path / "d")
    for name in ("train.jsonl", "valid.jsonl"):
        assert (tmp_path / "c" / name).read_bytes() == (tmp_path / "d" / name).read_bytes()


def test_the_same_input_gives_the_same_bytes(write: Write, tmp_path: Path) -> None:
    files = [write("a.csv", DAMAGED), write("b.csv", GOOD)]
    run(files, tmp_path / "one")
    run(files, tmp_path / "two")
    assert everything(tmp_path / "one") == everything(tmp_path / "two")
    assert str(tmp_path).encode() not in b"".join(everything(tmp_path / "one").values())


def test_rows_added_later_move_no_record(write: Write, tmp_path: Path) -> None:
    run([write("a.csv", GOOD)], tmp_path / "one")
    added = "".join(f"새 질문 {n}?,새 답.,1\n" for n in range(40))
    run([write("a.csv", GOOD.replace("label\n", f"label\n{added}"))], tmp_path / "two")
    for name in ("train.jsonl", "valid.jsonl"):
        before = {row["id"] for row in rows(tmp_path / "one" / name)}
        assert before < {row["id"] for row in rows(tmp_path / "two" / name)}


def test_a_question_stands_on_one_side_only(write: Write, tmp_path: Path) -> None:
    lines = "".join(f"질문 {n % 30},답 {n}\n" for n in range(120))
    run([write("a.csv", f"질문,답변\n{lines}")], tmp_path / "out", valid_share=0.5)
    train, valid = (
        {row["messages"][0]["content"] for row in rows(tmp_path / "out" / name)}
        for name in ("train.jsonl", "valid.jsonl")
    )
    assert train
    assert valid
    assert not train & valid


def test_a_tiny_set_still_has_a_validation_record(write: Write, tmp_path: Path) -> None:
    made = run([write("a.csv", "q,a\n하나,1\n둘,2\n")], tmp_path / "out", valid_share=0.001)
    assert (made.train, made.valid, made.moved) == (1, 1, "valid")
    assert "해시가 가장 작은" in (tmp_path / "out" / "report.html").read_text("utf-8")


def test_too_little_says_why_and_leaves_nothing(write: Write, tmp_path: Path) -> None:
    path = write("in/a.csv", "q,a\n하나,1\n둘,\n")
    with pytest.raises(KoalpacaError, match=r"1 row-empty; a\.csv:3 \(row-empty\): the answer is empty") as caught:
        run([path], tmp_path / "out")
    assert caught.value.problems[0].code == "split-too-few"
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_all_bad_files_are_said_at_once(write: Write, tmp_path: Path) -> None:
    files = [write("a.csv", GOOD), write("b.csv", b""), write("c.csv", "물음,대꾸\n가,나\n"), tmp_path / "d.csv"]
    with pytest.raises(KoalpacaError) as caught:
        run(files, tmp_path / "out")
    assert [problem.code for problem in caught.value.problems] == ["file-empty", "shape-unknown", "file-missing"]
    assert not (tmp_path / "out").exists()


def test_an_option_that_is_wrong_is_said_once(write: Write, tmp_path: Path) -> None:
    files = [write("a.csv", GOOD), write("b.csv", GOOD)]
    for options in ({"shape": "qua"}, {"encoding": "utf-9"}):
        with pytest.raises(KoalpacaError) as caught:
            run(files, tmp_path / "out", **options)
        assert len(caught.value.problems) == 1


def test_out_is_never_overwritten_unasked(write: Write, tmp_path: Path) -> None:
    out = tmp_path / "out"
    path = write("a.csv", GOOD)
    write("out/notes.txt", "내 메모")
    with pytest.raises(KoalpacaError) as caught:
        run([path], out)
    assert caught.value.problems[0].code == "out-not-empty"
    run([path], out, overwrite=True)
    assert sorted(everything(out)) == sorted([*OURS, "notes.txt"])
    assert (out / "notes.txt").read_text("utf-8") == "내 메모"


def test_an_error_in_the_middle_leaves_the_old_output(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    run([write("a.csv", GOOD)], out)
    before = everything(out)

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pages, "write", fails)
    with pytest.raises(KoalpacaError, match="No space left") as caught:
        run([write("b.csv", GOOD.replace("입니다", "이에요"))], out, overwrite=True)
    assert caught.value.problems[0].code == "out-folder"
    assert everything(out) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "b.csv", "out"]


def test_out_and_input_must_make_sense(write: Write, tmp_path: Path) -> None:
    path = write("a.csv", GOOD)
    run([path], tmp_path / "out")
    for files, out, code in [
        ([], tmp_path / "x", "prepare-files"),
        ([path, tmp_path / "." / "a.csv"], tmp_path / "x", "prepare-files"),
        ([tmp_path / "out" / "train.jsonl"], tmp_path / "out", "prepare-files"),
        ([path], path, "out-folder"),
        ([path], path / "below", "out-folder"),
    ]:
        with pytest.raises(KoalpacaError) as caught:
            run(files, out, overwrite=True)
        assert caught.value.problems[0].code == code


def test_files_of_one_name_are_told_apart(write: Write, tmp_path: Path) -> None:
    files = [write("x/a.csv", "q,a\n하나,1\n"), write("y/a.csv", "q,a\n둘,2\n"), write("b.csv", "q,a\n셋,3\n")]
    made = run(files, tmp_path / "out")
    assert [file.name for file in made.files] == ["x/a.csv", "y/a.csv", "b.csv"]
    said = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    assert said["lengths"]["a"]["answer"]["count"] == 2
    both = [tmp_path / unicodedata.normalize(form, "질문.csv") for form in ("NFC", "NFD")]
    for n, path in enumerate(both):
        path.write_text(f"q,a\n{n},가\n", encoding="utf-8")
    assert run(both, tmp_path / "two").rows == 2


def test_a_file_name_may_be_anything(tmp_path: Path) -> None:
    # unpacked from a zip of a Korean Windows, and copied from a Mac
    names = [b"\xc1\xfa\xb9\xae.csv", unicodedata.normalize("NFD", "질문.csv").encode()]
    files = [tmp_path / os.fsdecode(name) for name in names]
    for n, path in enumerate(files):
        path.write_text(f"q,a\n{n},가\n", encoding="utf-8")
    made = run(files, tmp_path / "out")
    assert [file.name for file in made.files] == ["\\xc1\\xfa\\xb9\\xae.csv", "질문.csv"]
    files[0].write_bytes(b"")
    with pytest.raises(KoalpacaError) as caught:
        run(files, tmp_path / "two")
    assert str(caught.value).isprintable()


def test_a_deeply_nested_row_is_rejected_like_any_other(write: Write, tmp_path: Path) -> None:
    deep = '{"q": ' + "[" * 600 + "]" * 600 + ', "a": "가"}'
    made = run([write("a.jsonl", f'{{"q": "가", "a": "나"}}\n{deep}\n{{"q": "다", "a": "나"}}')], tmp_path / "out")
    assert made.rejected == {"row-type": 1}


def test_prepared_sets_can_be_prepared_again(write: Write, tmp_path: Path) -> None:
    run([write("a.csv", GOOD)], tmp_path / "one")
    again = run([tmp_path / "one" / "train.jsonl", tmp_path / "one" / "valid.jsonl"], tmp_path / "two")
    assert again.cleaned == {}
    for name in ("train.jsonl", "valid.jsonl"):
        before, after = rows(tmp_path / "one" / name), rows(tmp_path / "two" / name)
        # origins and sources stay those of the first file
        assert sorted(before, key=str) == sorted(after, key=str)
    assert [(source["name"], source["records"]) for source in again.sources] == [("a", 60)]


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufffd"), min_size=1, max_size=40)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4))
@pytest.mark.parametrize("name", ["any.csv", "any.jsonl", "any.json"])
def test_any_text_comes_back_cleaned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, pairs: list[tuple[str, str]]
) -> None:
    # the page is tested elsewhere, and its plots take the time of all the rest
    monkeypatch.setattr(pages, "_plots", lambda *_: {"reasons": [], "quality": [], "lengths": []})
    pairs = [*pairs, ("하나", "1"), ("둘", "2")]
    path = tmp_path / name
    objects = [{"question": question, "answer": answer} for question, answer in pairs]
    if name.endswith("csv"):
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerows([("question", "answer"), *pairs])
    elif name.endswith("jsonl"):
        jsonl.write(path, objects)
    else:
        path.write_text(json.dumps(objects), encoding="utf-8")
    expected: dict[str, list[dict[str, Any]]] = {}
    for question, answer in pairs:
        try:
            talk = Conversation((Turn("user", question), Turn("assistant", answer)))
            made = mask(clean(talk).conversation).conversation
        except KoalpacaError:
            continue
        expected.setdefault(made.id, made.as_dict()["messages"])
    out = tmp_path / "out"
    unlimited = Quality(drop_empty=False, max_garbled=None, max_repetition=None, max_echo=None)
    made_report = run([path], out, overwrite=True, quality=unlimited)
    found = {row["id"]: row["messages"] for side in ("train", "valid") for row in rows(out / f"{side}.jsonl")}
    assert found.items() <= expected.items()
    # records that differ in inner space only are duplicates
    assert len(found) == made_report.train + made_report.valid
    assert made_report.rows == len(pairs)
    spaceless = {json.dumps(messages).replace(" ", "") for messages in expected.values()}
    assert len(found) >= len({"".join(text.split()) for text in spaceless}) - made_report.duplicates
