"""Evaluation items in training text."""

import pickle
import random

import pytest

from koalpaca_tune.data.overlap.contamination import Protected
from koalpaca_tune.data.overlap.text import CONTEXT, TURN

PASSAGE = (
    "금띠나비는 봄에 알에서 깨어나 여름 내내 애벌레로 지낸다. 가을에 번데기가 되어 그대로 겨울을 나고, "
    "이듬해 봄이 되면 어른벌레가 되어 날아오른다."
)
QUESTION = "금띠나비는 어떤 모습으로 추운 겨울을 나는가?"
REVIEW = "배우들 연기가 어색해서 끝까지 보기가 힘들었던 영화"
PREMISE = "어제 새로 산 바지의 허리가 너무 컸다."
TASKS = {
    "reading": [("r1", [PASSAGE, QUESTION])],
    "review": [("n1", [REVIEW]), ("n2", ["재밌었어요"]), ("n3", ["최고의 영화"]), ("n4", ["굿"])],
    "cause": [("c1", [PREMISE, "왜냐하면"]), ("c2", ["영화를 보고 눈물을 흘렸다.", "그래서"])],
}


@pytest.fixture(scope="module")
def protected() -> Protected:
    return Protected.of(TASKS)


def found(protected: Protected, text: str) -> list[tuple[str, str, str]]:
    return [(leak.task, leak.item, leak.part) for leak in protected.hits([text])[0]]


@pytest.mark.parametrize(
    "text",
    [
        REVIEW,
        REVIEW.replace(" ", ""),
        f"다음 리뷰를 분류하세요.\n리뷰: {REVIEW}\n감정:{TURN}부정",
        REVIEW.replace("연기가", "연기는"),
        REVIEW.replace("끝까지", "끝꺼지") + "!!!",
        f"아주 긴 다른 이야기 속에 {REVIEW}라고 쓴 사람이 있었다",
        f"질문{CONTEXT}{REVIEW}{TURN}답",
        f"영화 어땠어?{TURN}{REVIEW}",
    ],
)
def test_a_long_text_is_found_anywhere_and_with_small_changes(protected: Protected, text: str) -> None:
    assert found(protected, text) == [("review", "n1", "whole")]


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("재밌었어요", ["n2"]),
        (f"영화 어땠어?{TURN}재밌었어요!!", ["n2"]),
        ("생각보다 재밌었어요", []),
        ("재밌었어", []),
        (f"감정을 고르세요.\n리뷰: 최고의 영화\n감정:{TURN}긍정", []),
        ("최고의 영화", ["n3"]),
        ("굿", []),
    ],
)
def test_a_short_text_is_found_only_as_a_whole_turn(protected: Protected, text: str, items: list[str]) -> None:
    assert [item for _, item, _ in found(protected, text)] == items


def test_a_short_text_of_some_length_is_found_as_a_line() -> None:
    protected = Protected.of({"cause": [("c", ["불이 활활 타오른다."])]})
    assert protected.hits(["원인을 고르세요.\n문장: 불이 활활 타오른다.\n"])[0]
    assert not protected.hits(["벽난로에서 불이 활활 타오른다.\n"])[0]


@pytest.mark.parametrize(
    ("text", "hit"),
    [
        ("다음에 이어질 일을 고르세요.\n문장: 영화를 보고 눈물을 흘렷다\n", True),
        (f"영화는 보고 눈물을 흘렸다{TURN}왜?", True),
        ("영화를 보고 눈물을 안 흘렸다.", False),
        ("어제는 친구와 늦은 밤에 영화를 보고 웃다가 눈물을 조금 흘렸다.", False),
        ("영화를 보고 밥을 먹었다.", False),
    ],
)
def test_a_short_text_is_found_with_a_small_change_when_it_stands_alone(
    protected: Protected, text: str, hit: bool
) -> None:
    assert [item for _, item, _ in found(protected, text)] == (["c2"] if hit else [])


def test_what_is_too_short_to_tell_is_counted(protected: Protected) -> None:
    assert protected.items == {"reading": 1, "review": 3, "cause": 2}
    assert protected.unprotected == {"review": 1}


def test_passage_and_question_are_told_apart(protected: Protected) -> None:
    assert found(protected, f"{QUESTION}{CONTEXT}{PASSAGE}{TURN}번데기") == [("reading", "r1", "whole")]
    assert found(protected, f"다음을 요약해 줘: {PASSAGE}") == [("reading", "r1", "context")]
    assert found(protected, f"{QUESTION}{TURN}번데기입니다.") == [("reading", "r1", "question")]


def test_one_of_two_sentences_is_some() -> None:
    protected = Protected.of(
        {"wic": [("w", ["철에 따라 다르게 피는 온갖 꽃", "철쭉꽃이 사월 하순에 철을 맞았다", "철"])]}
    )
    assert [leak.part for leak in protected.hits(["사월 하순에 철쭉꽃이 사월 하순에 철을 맞았다."])[0]] == ["some"]


def test_half_a_passage_is_not_enough_and_most_of_it_is(protected: Protected) -> None:
    assert not found(protected, PASSAGE[: len(PASSAGE) * 4 // 10])
    [leak] = protected.hits([PASSAGE[: len(PASSAGE) * 8 // 10]])[0]
    assert 0.6 <= leak.overlap < 0.9


def test_linking_words_that_all_items_share_identify_nothing(protected: Protected) -> None:
    assert found(protected, f"왜 그랬어?{TURN}왜냐하면") == []
    assert found(protected, f"원인을 고르세요.\n{PREMISE} 왜냐하면") == [("cause", "c1", "whole")]


def test_the_frame_that_all_items_share_identifies_nothing() -> None:
    rng = random.Random(1)
    frame = "다음 두 문장에서 밑줄 친 낱말이 같은 뜻으로 쓰였는지 판단하여 예 또는 아니오로 답하시오"
    words = ["".join(chr(rng.randrange(0xAC00, 0xD000)) for _ in range(9)) for _ in range(120)]
    items = [(str(n), [f"{words[2 * n]} {words[2 * n + 1]} {frame}"]) for n in range(60)]
    protected = Protected.of({"frame": items})
    assert not protected.hits([f"하늘이 푸르다. 바다가 깊다. {frame}"])[0]
    assert [leak.item for leak in protected.hits([f"{words[6]} {words[7]} {frame}"])[0]] == ["3"]


def test_items_of_several_tasks_come_in_their_order() -> None:
    protected = Protected.of({"b": [("1", [REVIEW])], "a": [("1", [REVIEW]), ("2", [REVIEW + " 정말"])]})
    assert [(leak.task, leak.item) for leak in protected.hits([REVIEW])[0]] == [("b", "1"), ("a", "1"), ("a", "2")]


def test_batches_and_other_processes_find_the_same(protected: Protected) -> None:
    texts = [REVIEW, "아무 상관 없는 글", "", PASSAGE, "재밌었어요", "가"] * 5
    together = protected.hits(texts)
    assert together == [protected.hits([text])[0] for text in texts]
    assert pickle.loads(pickle.dumps(protected)).hits(texts) == together  # noqa: S301


def test_no_items_and_no_texts() -> None:
    assert Protected.of({}).hits([REVIEW]) == [()]
    assert Protected.of({"empty": []}).hits([REVIEW, ""]) == [(), ()]
    assert Protected.of(TASKS).hits([]) == []
