"""Near duplicates: signatures, groups, and who stands for whom."""

import itertools
import random

import numpy as np
import pytest

from koalpaca_tune.data.overlap import minhash, near, proof
from koalpaca_tune.data.overlap.text import CONTEXT, TURN, normalise

SYLLABLES = [chr(code) for code in range(ord("가"), ord("가") + 3000, 7)]


def grouped(texts: list[str], threshold: float = 0.8) -> list[int]:
    signatures = minhash.sign(texts)
    return near.clusters(signatures, threshold, lambda some: [texts[n] for n in some]).tolist()


def standing(texts: list[str], threshold: float = 0.8) -> list[int]:
    groups = np.array(grouped(texts, threshold))
    return near.repeats(groups, threshold, lambda some: [texts[n] for n in some]).tolist()


def is_near(one: str, other: str, threshold: float = 0.8) -> bool:
    return grouped([one, other], threshold) == [0, 0]


def pairs_of(text: str) -> set[str]:
    padded = f"\n{normalise(text)}\n"
    return {padded[n : n + 2] for n in range(len(padded) - 1)}


def jaccard(one: str, other: str) -> float:
    a, b = pairs_of(one), pairs_of(other)
    return len(a & b) / len(a | b)


def perturbed(rng: random.Random, count: int) -> list[str]:
    texts: list[str] = []
    for _ in range(count):
        if texts and rng.random() < 0.6:
            chars = list(rng.choice(texts))
            for _ in range(rng.randrange(5)):
                chars[rng.randrange(len(chars))] = rng.choice(SYLLABLES)
            texts.append("".join(chars))
        else:
            texts.append("".join(rng.choices(SYLLABLES, k=rng.randrange(12, 60))))
    return texts


def test_a_signature_does_not_depend_on_its_batch() -> None:
    texts = ["", "가", "안녕하세요", "!!!", "오늘 3시에 만나요", "\ud800깨진 글", "𠮷野家 emoji 😊"] * 3
    together = minhash.sign(texts)
    assert together.dtype == np.uint32
    assert together.shape == (len(texts), minhash.WIDTH)
    alone = np.concatenate([minhash.sign([text]) for text in texts])
    assert (together == alone).all()
    assert minhash.sign([]).shape == (0, minhash.WIDTH)


def test_a_signature_is_the_same_on_every_machine() -> None:
    # recorded once: parts prepared on different machines are put together
    assert minhash.sign(["내일 7시에 만나요"])[0, :4].tolist() == [1790921346, 500795330, 1863381213, 4194006915]


def test_slots_agree_as_often_as_sets_do() -> None:
    rng = random.Random(1)
    texts = perturbed(rng, 400)
    values = minhash.slots(minhash.sign(texts))
    errors = [
        (values[a] == values[b]).mean() - jaccard(texts[a], texts[b])
        for a, b in itertools.combinations(range(len(texts)), 2)
        if jaccard(texts[a], texts[b]) > 0.1
    ]
    assert len(errors) > 300
    assert abs(np.mean(errors)) < 0.03
    assert np.sqrt(np.mean(np.square(errors))) < 0.08


def test_jaccard_of_a_batch_is_that_of_sets() -> None:
    rng = random.Random(2)
    texts = [*perturbed(rng, 60), "", "가", "가가가가가가"]
    first, second = (np.array(side) for side in zip(*itertools.product(range(len(texts)), repeat=2), strict=True))
    found = proof.jaccard([normalise(text) for text in texts], first, second)
    assert found == pytest.approx([jaccard(texts[a], texts[b]) for a, b in zip(first, second, strict=True)])


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9])
def test_groups_are_those_of_comparing_all_pairs(threshold: float) -> None:
    texts = perturbed(random.Random(3), 400)
    links = [
        (a, b) for a, b in itertools.combinations(range(len(texts)), 2) if jaccard(texts[a], texts[b]) >= threshold
    ]
    groups = grouped(texts, threshold)
    joined = sum(groups[a] == groups[b] for a, b in links)
    assert len(links) > 50
    # a pair exactly at the threshold is a candidate with 99 %; links through others find more
    assert joined >= 0.97 * len(links)
    assert all(groups[groups[n]] == groups[n] <= n for n in range(len(texts)))


def test_who_is_dropped_is_near_to_who_stays_and_those_who_stay_are_not_near() -> None:
    texts = perturbed(random.Random(4), 500)
    stands = standing(texts)
    dropped = [n for n, first in enumerate(stands) if first != n]
    assert len(dropped) > 50
    assert all(stands[stands[n]] == stands[n] < n and jaccard(texts[n], texts[stands[n]]) >= 0.8 for n in dropped)
    kept = [n for n, first in enumerate(stands) if first == n]
    close = sum(jaccard(texts[a], texts[b]) >= 0.8 for a, b in itertools.combinations(kept, 2))
    assert close <= 2


def test_a_chain_is_one_group_but_its_ends_both_stay() -> None:
    chars = SYLLABLES[:60]
    steps = ["".join(SYLLABLES[100 : 100 + n] + chars[n:]) for n in (0, 5, 10, 15)]
    assert jaccard(steps[0], steps[3]) < 0.8 <= jaccard(steps[0], steps[1])
    assert grouped(steps) == [0, 0, 0, 0]
    assert standing(steps) == [0, 0, 2, 2]


def test_the_order_of_records_does_not_change_the_groups() -> None:
    texts = perturbed(random.Random(5), 300)
    order = random.Random(6).sample(range(len(texts)), len(texts))
    groups, shuffled = grouped(texts), grouped([texts[n] for n in order])
    same = {
        (order[a], order[b]) for a, b in itertools.combinations(range(len(texts)), 2) if shuffled[a] == shuffled[b]
    }
    assert {(min(pair), max(pair)) for pair in same} == {
        (a, b) for a, b in itertools.combinations(range(len(texts)), 2) if groups[a] == groups[b]
    }


LONG = "어제 저녁에 친구와 함께 한강 공원에서 자전거를 탔는데 바람이 아주 시원하고 좋았다"


@pytest.mark.parametrize(
    "changed",
    [
        LONG.replace(" ", ""),
        LONG + "!!! ㅎㅎ",
        LONG.replace("자전거를", "자전거"),
        LONG.replace("바람이", "바람은"),
        LONG.replace("시원하고", "시원허고"),
    ],
)
def test_small_changes_are_near(changed: str) -> None:
    assert is_near(LONG, changed)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("사과 3개와 배 5개를 사서 모두 나누어 먹었습니다", "사과 3개와 배 6개를 사서 모두 나누어 먹었습니다"),
        ("2019년 3월 1일에 열린 행사에 대해 알려 주세요", "2019년 3월 2일에 열린 행사에 대해 알려 주세요"),
        ("이 제품은 정말 마음에 들어서 계속 쓰고 싶어요", "이 제품은 정말 마음에 안 들어서 계속 쓰고 싶어요"),
        ("배송이 빠르고 포장도 꼼꼼해서 아주 만족합니다", "배송이 빠르고 포장도 꼼꼼해서 아주 불만족합니다"),
        (f"{LONG}{TURN}예", f"{LONG}{TURN}아니오"),
        (f"누가 탔나?{CONTEXT}{LONG}{TURN}나", f"바람은 어땠나?{CONTEXT}{LONG}{TURN}나"),
        (f"{LONG}. 위 글의 감정을 고르세요: 굿{TURN}긍정", f"{LONG}. 위 글의 감정을 고르세요: 짱{TURN}긍정"),
    ],
)
def test_differences_that_matter_are_not_near(one: str, other: str) -> None:
    assert jaccard(one, other) > 0.6
    assert not is_near(one, other, 0.6)


def test_one_more_negation_in_a_long_text_is_a_small_change() -> None:
    rng = random.Random(7)
    long = "".join(rng.choices([char for char in SYLLABLES if char not in "안않못없불"], k=400))
    assert is_near(long, long[:200] + "없" + long[200:])


def test_a_million_alike_but_for_a_number_are_not_compared() -> None:
    texts = [f"{LONG} 주문 번호 {n}" for n in range(3000)]
    signatures = minhash.sign(texts)

    def refuse(some: np.ndarray) -> list[str]:
        raise AssertionError(f"{len(some)} texts were fetched")

    assert near.clusters(signatures, 0.8, refuse).tolist() == list(range(3000))


@pytest.mark.parametrize("words", [1, 2])
def test_boilerplate_costs_grow_with_the_records_not_with_their_square(words: int) -> None:
    def fetched(count: int) -> int:
        rng = random.Random(8)
        made = []
        for _ in range(count):
            own = LONG.split(" ")
            for at in rng.sample(range(len(own)), words):
                own[at] = "".join(rng.choices(SYLLABLES, k=3))
            made.append(" ".join(own))
        asked = 0

        def texts(some: np.ndarray) -> list[str]:
            nonlocal asked
            asked += len(some)
            assert len(some) <= 5000
            return [made[n] for n in some]

        near.clusters(minhash.sign(made), 0.8, texts)
        assert asked > count
        return asked

    assert fetched(3000) < 6 * fetched(750)


def test_nothing_and_one() -> None:
    assert grouped(["하나"]) == [0]
    assert near.clusters(minhash.sign([]), 0.8, lambda some: []).tolist() == []
    assert near.repeats(np.empty(0, np.int64), 0.8, lambda some: []).tolist() == []
