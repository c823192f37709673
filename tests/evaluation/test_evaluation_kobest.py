"""KoBEST readers on tiny files with the quirks of the published ones, and the prompts as published."""

from __future__ import annotations

from pathlib import Path

import pytest
from bigram import Bigram, render

from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.evaluation import jobs, requests
from koalpaca_tune.suites import items, rows, tasks

FILES = {
    "BoolQ": (
        'ID\tText\tQuestion\tAnswer\r\n1\t물은 투명하다.\t물은 검은가?\tFALSE\r\n2\t"그"는 갔다.\t갔나?\tTrue\r\n'
    ),
    "COPA": (
        "ID\tsentence\tquestion\t1\t2\tAnswer\r\n"
        "1\t비가 왔다.\t결과 \t땅이 젖었다.\t땅이 말랐다.\t1\r\n"
        "2\t땅이 젖었다.\t원인\t해가 떴다.\t비가 왔다.\t2\r\n"
    ),
    "WiC": (
        "ID\tTarget\tSENTENCE1\tDictionary 1\tLink 1\tSENTENCE2\tDictionary 2\tLink2\tANSWER\r\n"
        "1\t철\t[철]에 따라 피는 꽃.\t1\tx\t꽃이 [철]을 맞았다.\t1\tx\tTRUE\r\n"
        "2\t배\t[배]를 먹다.\t1\tx\t[배]를 타다.\t2\tx\tFalse\r\n"
    ),
    "HellaSwag": (
        "context\tchoice1\tchoice2\tchoice3\tchoice4\tlabel\n"
        '불을 켠다.\t어둡다.\t"그는 ""밝다""고 한다."\t잔다.\t간다.\t1\n'
        "문을 연다.\t들어간다.\t닫힌다.\t잔다.\t먹는다.\t0\n"
    ),
    "SentiNeg": (
        "ID\tLabel_origin\tText_origin\tLabel\tText\tCategory_neg\r\n"
        "3394\t0\t맘에 안 들음\t1\t맘에 듦\t1\r\n12\t1\t좋아요\t0\t안 좋아요\t2\r\n"
    ),
}
PUBLISHED = {
    "BoolQ": [
        ("물은 투명하다. 질문: 물은 검은가? 답변:|  아니오", "  예", 0),
        ("그는 갔다. 질문: 갔나? 답변:|  아니오", "  예", 1),
    ],
    "COPA": [
        ("비가 왔다.  그래서| 땅이 젖었다.", " 땅이 말랐다.", 0),
        ("땅이 젖었다.  왜냐하면| 해가 떴다.", " 비가 왔다.", 1),
    ],
    "WiC": [
        (
            "문장1: [철]에 따라 피는 꽃. 문장2: 꽃이 [철]을 맞았다. 두 문장에서 철가 같은 뜻으로 쓰였나?| 아니오",
            " 예",
            1,
        ),
        ("문장1: [배]를 먹다. 문장2: [배]를 타다. 두 문장에서 배가 같은 뜻으로 쓰였나?| 아니오", " 예", 0),
    ],
    "HellaSwag": [("문장: 불을 켠다.| 어둡다.", " 간다.", 1), ("문장: 문을 연다.| 들어간다.", " 먹는다.", 0)],
    "SentiNeg": [("문장: 맘에 듦 긍부정:| 부정", " 긍정", 1), ("문장: 안 좋아요 긍부정:| 부정", " 긍정", 0)],
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        folder = tmp_path / "kobest" / name
        folder.mkdir(parents=True)
        (folder / "test.tsv").write_bytes(text.encode())
    return tmp_path


def task_of(name: str) -> tasks.Task:
    return next(task for task in tasks.load_suite("kobest").tasks if task.name == f"kobest-{name.lower()}")


@pytest.mark.parametrize("name", FILES)
def test_prompts_as_published(root: Path, name: str) -> None:
    task = task_of(name)
    found = []
    for item in items.load(task, root).items:
        first, *_, last = requests.of_choices(task.asked, item, render)
        ((start, _),) = first.spans
        found.append((first.text[:start] + "|" + first.text[start:], last.text[last.spans[0][0] :], item.answer))
    assert found == PUBLISHED[name]


def test_characters_are_those_that_lm_eval_divides_by(root: Path) -> None:
    """All of a choice but the space in front of it, which belongs to the answer in a completion."""
    path = root / "kobest" / "COPA" / "test.tsv"
    path.write_bytes(
        "ID\tsentence\tquestion\t1\t2\tAnswer\r\n1\t비가 왔다.\t결과\t젖었다. \t말랐다.\t1\r\n".encode()
    )
    task = task_of("COPA")
    job = jobs.choice(task, items.load(task, root), Bigram(["땅이 젖었다."]), render)
    (line,) = job.lines([0])
    assert line["characters"] == [5, 4]


def test_columns_go_by_name(root: Path) -> None:
    path = root / "kobest" / "SentiNeg" / "test.tsv"
    path.write_bytes("ID\tText\tLabel\r\n1\t좋아요\t1\r\n".encode())
    (item,) = items.load(task_of("SentiNeg"), root).items
    assert (item.id, item.prompt, item.answer) == ("1", "문장: 좋아요 긍부정:", 1)


@pytest.mark.parametrize(
    ("cell", "read"),
    [
        ('"그는 ""밝다""고 한다."', '그는 "밝다"고 한다.'),
        ('"그"는 갔다.', "그는 갔다."),
        ('그는 "밝다"고 한다.', '그는 "밝다"고 한다.'),
        ('"그는 갔다.', "그는 갔다."),
        ("그는 갔다.", "그는 갔다."),
        ("", ""),
    ],
)
def test_quotes_are_read_as_csv_and_pandas_read_them(cell: str, read: str) -> None:
    assert rows.unquoted(cell) == read


@pytest.mark.parametrize(
    ("name", "old", "new", "code", "line"),
    [
        ("BoolQ", "FALSE", "아니오", "item-answer", 2),
        ("BoolQ", "\tAnswer", "\tanswer", "item-columns", 2),
        ("COPA", "원인", "이유", "item-value", 3),
        ("COPA", "\t1\r\n2", "\t0\r\n2", "item-answer", 2),
        ("HellaSwag", "\t1\n", "\t4\n", "item-answer", 2),
        ("SentiNeg", "\t1\r\n12", "\r\n12", "item-cells", 2),
    ],
)
def test_errors_say_file_and_line(root: Path, name: str, old: str, new: str, code: str, line: int) -> None:
    path = root / "kobest" / name / "test.tsv"
    assert old in FILES[name]
    path.write_bytes(FILES[name].replace(old, new, 1).encode())
    with pytest.raises(KoalpacaError) as caught:
        items.load(task_of(name), root)
    assert caught.value.problems[0].code == code
    assert caught.value.problems[0].where == f"{path}:{line}"


def test_without_data_and_hub_one_line_says_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(KoalpacaError, match=r"--data-root \(kobest/WiC/test.tsv\), or reach the Hub") as caught:
        items.load(task_of("WiC"), None)
    assert "hf:skt/kobest_v1" in str(caught.value)
