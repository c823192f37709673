from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koalpaca_tune.data.split import Seen, check_share, question_key, record_key
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.records import Conversation, Turn


def pair(question: str, answer: str = "답", context: str | None = None) -> Conversation:
    return Conversation((Turn("user", question, context), Turn("assistant", answer)))


def test_keys_are_stable_over_versions() -> None:
    # a changed key would move records between training and validation of every set prepared so far
    assert f"{question_key(pair('12시 땡!')):016x}" == "5e77605467d05b64"
    assert f"{question_key(pair('12시 땡!', context='점심')):016x}" == "bfde6c64d6d77808"
    assert record_key(pair("12시 땡!", "하루가 또 가네요.")).hex() == "aaf8a6b851bda286f539140f7e06ac7e"


def test_the_question_alone_decides_the_side() -> None:
    system = Conversation((Turn("system", "짧게"), *pair("뭐 해?").turns))
    longer = Conversation((*pair("뭐 해?").turns, Turn("user", "또?"), Turn("assistant", "네")))
    keys = {question_key(made) for made in (pair("뭐 해?"), pair("뭐해?", "다른 답"), system, longer)}
    assert len(keys) == 1
    assert question_key(pair("Hello")) == question_key(pair("hello"))
    assert question_key(pair("가", context="나")) != question_key(pair("가나"))


def test_duplicates_are_records_that_differ_in_space_only() -> None:
    seen = Seen()
    assert seen.add(pair("뭐 해?", "밥  먹어요.")) is not None
    assert seen.add(pair("뭐 해?", "밥 먹어요.")) is None
    assert seen.add(pair("뭐 해?", "놀아요.")) is not None
    assert seen.add(pair("뭐 먹어?", "놀아요.")) is not None
    assert seen.conflicts == (1, 2)
    assert seen.questions == 2


@given(st.lists(st.text("가나다라 ", min_size=1), min_size=2, max_size=60), st.randoms())
def test_neither_order_nor_further_rows_move_a_record(questions: list[str], random: object) -> None:
    def cut_of(order: list[str]) -> tuple[int, str]:
        seen = Seen()
        for question in order:
            seen.add(pair(question))
        return seen.cut(0.5)

    shuffled = sorted(questions, key=lambda question: hash((question, str(random))))
    try:
        cut, moved = cut_of(questions)
    except KoalpacaError:
        return
    assert cut_of(shuffled) == (cut, moved)
    if not moved:
        assert cut_of([*shuffled, "새 질문", "또 새 질문"]) == (cut, "")


def test_a_small_set_has_both_sides() -> None:
    seen = Seen()
    keys = [seen.add(pair(question)) for question in ("하나", "둘", "셋")]
    found = sorted(key for key in keys if key is not None)
    cut, moved = seen.cut(1e-9)
    assert moved == "valid"
    assert [key < cut for key in found] == [True, False, False]
    cut, moved = seen.cut(1 - 1e-9)
    assert moved == "train"
    assert [key < cut for key in found] == [True, True, False]


@pytest.mark.parametrize(
    ("records", "what"),
    [
        ([], "there are 0 usable records."),
        ([pair("하나")], "there is 1 usable record."),
        ([pair("하나", "가"), pair("하나", "나")], "there are 2 usable records, all with one question."),
    ],
)
def test_too_few(records: list[Conversation], what: str) -> None:
    seen = Seen()
    for record in records:
        seen.add(record)
    with pytest.raises(KoalpacaError) as caught:
        seen.cut(0.1)
    assert caught.value.problems[0].code == "split-too-few"
    assert caught.value.problems[0].what == what


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_the_share_leaves_no_side_empty(share: float) -> None:
    with pytest.raises(KoalpacaError) as caught:
        check_share(share)
    assert caught.value.problems[0].code == "split-share"


def test_the_share_is_kept() -> None:
    seen = Seen()
    keys = [seen.add(pair(f"질문 {n}")) for n in range(5000)]
    cut, _ = seen.cut(0.1)
    assert 0.085 < sum(key is not None and key < cut for key in keys) / 5000 < 0.115
