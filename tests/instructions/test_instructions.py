"""Each instruction against answers written for it; strict and loose; mistakes in the data."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from golden_instructions import GOLDEN

from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.instructions import follow, text
from koalpaca_tune.instructions.registry import LETTERS

CASES = [(id, *case) for id, cases in GOLDEN.items() for case in cases]


@pytest.mark.parametrize(("id", "arguments", "answer", "expected"), CASES)
def test_golden(id: str, arguments: dict[str, Any], answer: str, expected: bool) -> None:
    assert follow.check(id, arguments, answer) is expected


def test_every_instruction_has_six_examples_of_both_kinds() -> None:
    assert set(GOLDEN) == set(follow.IDS)
    for id, cases in GOLDEN.items():
        right = sum(expected for *_, expected in cases)
        assert len(cases) >= 6, id
        assert min(right, len(cases) - right) >= 3, id


def test_the_ids_are_those_of_ifeval_ko() -> None:
    assert len(follow.IDS) == 21
    assert {id.partition(":")[0] for id in follow.IDS} == {
        *("keywords", "language", "length_constraints", "detectable_content", "detectable_format"),
        *("combination", "startend", "punctuation"),
    }
    # with the four that count Latin letters, the 25 of Zhou et al.
    assert len({*follow.IDS, *LETTERS}) == 25


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_composed_and_decomposed_hangul_are_the_same(form: Any) -> None:
    for id, cases in GOLDEN.items():
        for arguments, answer, expected in cases:
            other = json.loads(unicodedata.normalize(form, json.dumps(arguments, ensure_ascii=False)))
            assert follow.check(id, other, unicodedata.normalize(form, answer)) is expected, (id, answer)


def test_an_empty_answer_follows_nothing() -> None:
    for id, cases in GOLDEN.items():
        for arguments, *_ in cases:
            assert not follow.check(id, arguments, " \n ")


def test_loosened_is_the_eight_published_variants() -> None:
    assert follow.loosened("하나 *가*\n둘\r\n셋*") == (
        *("하나 *가*\n둘\n셋*", "둘\n셋*", "하나 *가*\n둘", "둘"),
        *("하나 가\n둘\n셋", "둘\n셋", "하나 가\n둘", "둘"),
    )
    assert follow.loosened("한 줄") == ("한 줄", "", "", "", "한 줄", "", "", "")


@pytest.mark.parametrize(
    ("id", "arguments", "answer"),
    [
        ("detectable_format:json_format", {}, '다음은 요청하신 JSON입니다.\n{"이름": "민지"}'),
        ("startend:quotation", {}, '"오늘은 쉬겠습니다."\n더 필요한 것이 있으면 말씀하세요.'),
        (
            "language:response_language",
            {"language": "en"},
            "네, 영어로 답합니다.\nIt is a very fine day today.\n끝.",
        ),
        ("startend:end_checker", {"end_phrase": "이상입니다."}, "비가 옵니다. **이상입니다.**"),
    ],
)
def test_followed_loosely_only(id: str, arguments: dict[str, Any], answer: str) -> None:
    assert follow.followed([id], [arguments], answer) == follow.Followed((False,), (True,))


def test_strictly_followed_is_loosely_followed() -> None:
    for id, cases in GOLDEN.items():
        for arguments, answer, expected in cases:
            done = follow.followed([id], [arguments], answer)
            assert done.strict == (expected,)
            assert done.loose[0] or not expected


def test_scores_of_one_question_and_of_a_task() -> None:
    ids = ["punctuation:no_comma", "detectable_format:title", "keywords:existence"]
    arguments: list[dict[str, Any]] = [{}, {}, {"keywords": ["봄"]}]
    half = follow.followed(ids, arguments, "<<봄>>\n봄, 여름")
    assert half == follow.Followed((False, True, True), (True, True, True))
    assert half.scores() == {
        "prompt_strict": 0.0,
        "prompt_loose": 1.0,
        "instruction_strict": pytest.approx(2 / 3),
        "instruction_loose": 1.0,
    }
    one = follow.Followed((True,), (True,))
    # three of four instructions, not the mean of 2/3 and 1
    assert follow.totals([half, one]) == {
        "prompt_strict": 0.5,
        "prompt_loose": 1.0,
        "instruction_strict": 0.75,
        "instruction_loose": 1.0,
    }
    assert tuple(half.scores()) == follow.METRICS


def test_null_arguments_are_absent_and_whole_floats_are_numbers() -> None:
    row = {"num_words": 2.0, "relation": "at least", "keyword": None, "language": None}
    follow.read(["length_constraints:number_words"], [row], "data.jsonl:1")
    assert follow.check("length_constraints:number_words", row, "하나 둘")


@pytest.mark.parametrize(
    ("id", "arguments", "code", "said"),
    [
        ("keywords:existance", {"keywords": ["봄"]}, "instruction-id", "Did you mean 'keywords:existence'?"),
        ("change_case:english_capital", {}, "instruction-id", "It counts letters of the Latin alphabet"),
        ("keywords:existence", {}, "instruction-argument", "'keywords' of 'keywords:existence' is missing."),
        ("keywords:existence", {"keywords": []}, "instruction-argument", "is []"),
        ("keywords:existence", {"keywords": "봄"}, "instruction-argument", "a list of texts"),
        ("keywords:existence", {"keywords": ["봄", " "]}, "instruction-argument", "not empty"),
        ("startend:end_checker", {"end_phrase": ""}, "instruction-argument", "a text that is not empty"),
        ("length_constraints:number_words", {"num_words": 3}, "instruction-argument", "'at least' or 'less than'"),
        (
            *("length_constraints:number_words", {"num_words": 3, "relation": "around"}),
            *("instruction-argument", "is 'around'"),
        ),
        ("detectable_format:number_bullet_lists", {"num_bullets": 2.5}, "instruction-argument", "a whole number"),
        ("detectable_format:number_bullet_lists", {"num_bullets": True}, "instruction-argument", "is True"),
        ("detectable_format:number_bullet_lists", {"num_bullets": -1}, "instruction-argument", "is -1"),
        ("language:response_language", {"language": "xx"}, "instruction-argument", "is 'xx'"),
        ("punctuation:no_comma", {"keywords": ["봄"]}, "instruction-argument", "takes no 'keywords'"),
    ],
)
def test_a_mistake_in_the_data_names_its_line(id: str, arguments: dict[str, Any], code: str, said: str) -> None:
    with pytest.raises(KoalpacaError) as caught:
        follow.read(["punctuation:no_comma", id], [{}, arguments], "ifeval.jsonl:7")
    (problem,) = caught.value.problems
    assert (problem.code, problem.where) == (code, "ifeval.jsonl:7")
    assert said in str(problem)
    with pytest.raises(KoalpacaError):
        follow.check(id, arguments, "아무 말")


@pytest.mark.parametrize("arguments", [[], [{}, {}]])
def test_ids_and_arguments_must_be_equally_many(arguments: list[dict[str, Any]]) -> None:
    with pytest.raises(KoalpacaError, match=r"1 instructions and \d sets of arguments"):
        follow.read(["punctuation:no_comma"], arguments, "ifeval.jsonl:1")


def test_a_question_without_instructions_is_a_mistake() -> None:
    with pytest.raises(KoalpacaError, match="0 instructions"):
        follow.read([], [], "ifeval.jsonl:1")


@pytest.mark.parametrize("sign", [" ", "\n", "*", "[", "<<", "```", '"', "p.s.", "섹션 ", "가", "a", "1."])
def test_a_loop_is_read_in_reasonable_time(sign: str) -> None:
    # quadratic patterns would take minutes here
    looped = "```" + sign * 20_000
    for id, cases in GOLDEN.items():
        follow.check(id, cases[0][0], looped)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("안녕하세요 저는 학생입니다 반갑습니다", 3),
        ("밥 먹었어요?네, 먹었어요.", 2),
        ("와... 정말?! 네!!", 3),
        ("하지 마. 가.", 2),
        ("…\n---\n😀", 0),
        ("좋아요! 😀 또 봐요. 👍🏽❤️", 2),
        ("> 인용한 문장이다.\n- 목록 하나\n- 목록 둘", 3),
        ("1. It rained.\n2. We stayed.", 2),
        ("今日は天気がいい。散歩に行く。", 2),
    ],
)
def test_sentences(said: str, expected: int) -> None:
    assert text.sentences(said) == expected


def test_every_line_of_the_test_items_reads() -> None:
    path = Path(__file__).parents[1] / "evaluation" / "data" / "ifeval-ko.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    used = set()
    for n, row in enumerate(rows, 1):
        follow.read(row["instruction_id_list"], row["kwargs"], f"{path}:{n}")
        used |= set(row["instruction_id_list"])
        # what a question asks for by name must be in the question
        for given in row["kwargs"]:
            for wanted in (given.get("keywords") or []) + (given.get("forbidden_words") or []):
                assert wanted in row["prompt"]
    assert len({row["key"] for row in rows}) == len(rows) >= 12
    assert used == set(follow.IDS)
