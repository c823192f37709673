"""Trees of token ids: every request can be read off them, and what is shared stands in them once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from koalpaca_tune.inference.prefixes import Budget, Lot, lots
from koalpaca_tune.records import NOT_LEARNED, Encoded

WIDE = Budget(10**6, 10**9)


def request(ids: Sequence[int], learned: Sequence[int]) -> Encoded:
    return Encoded(tuple(ids), tuple(one if n in learned else NOT_LEARNED for n, one in enumerate(ids)))


def read_off(lot: Lot) -> dict[int, list[tuple[tuple[int, ...], int]]]:
    """For each request the (ids that are seen, token that is predicted), by the layouts of all blocks."""
    seen: dict[int, tuple[int, ...]] = {}
    for part in (lot.roots, lot.branches):
        q = k = 0
        for queries, keys in zip(part.query_lengths, part.key_lengths, strict=True):
            rows = part.keys[k : k + keys]
            assert (lot.positions[rows] == np.arange(keys)).all()
            for n, row in enumerate(part.queries[q : q + queries]):
                seen[int(row)] = tuple(lot.ids[rows[: keys - queries + n + 1]])
            q, k = q + queries, k + keys
    assert sorted(seen) == list(range(lot.tokens))
    # the last block: the same rows see the same
    at = 0
    for part in (lot.last_roots, lot.last_branches):
        q = k = 0
        for queries, keys in zip(part.query_lengths, part.key_lengths, strict=True):
            rows = part.keys[k : k + keys]
            for n, row in enumerate(part.queries[q : q + queries]):
                assert lot.wanted[at] == row
                assert seen[int(row)] == tuple(lot.ids[rows[: keys - queries + n + 1]])
                at += 1
            q, k = q + queries, k + keys
    assert at == len(lot.wanted)
    found: dict[int, list[tuple[tuple[int, ...], int]]] = {}
    for row, target, of in zip(lot.rows, lot.targets, lot.of, strict=True):
        found.setdefault(lot.requests[of], []).append((seen[int(lot.wanted[row])], int(target)))
    return found


def expected(one: Encoded) -> list[tuple[tuple[int, ...], int]]:
    return [(one.ids[:n], one.ids[n]) for n in range(1, len(one.ids)) if one.labels[n] != NOT_LEARNED]


@st.composite
def requests(draw: st.DrawFn) -> list[Encoded]:
    """Few letters, so that beginnings are shared; a shared beginning of some length in front of most."""
    front = draw(st.lists(st.integers(0, 2), max_size=40))
    made = []
    for _ in range(draw(st.integers(1, 12))):
        begin = front[: draw(st.integers(0, len(front)))]
        ids = begin + draw(st.lists(st.integers(0, 2), min_size=2, max_size=12))
        learned = draw(st.sets(st.integers(1, len(ids) - 1), min_size=1, max_size=4))
        made.append(request(ids, sorted(learned)))
    return made


@given(requests(), st.integers(1, 120), st.integers(1, 400), st.integers(1, 13))
def test_every_request_is_in_the_trees_as_it_is(
    encoded: list[Encoded], tokens: int, keys: int, window: int
) -> None:
    found: dict[int, list[tuple[tuple[int, ...], int]]] = {}
    for lot in lots(iter(encoded), Budget(tokens, keys), window):
        assert len(lot.requests) == 1 or (lot.tokens <= tokens and lot.keys <= keys)
        assert not found.keys() & set(lot.requests)
        found |= read_off(lot)
    assert found == {n: expected(one) for n, one in enumerate(encoded)}


def test_requests_are_read_while_lots_are_computed() -> None:
    """A window at a time, and what is left of one joins the next."""
    asked = 0

    def some() -> Iterator[Encoded]:
        nonlocal asked
        for n in range(20):
            asked += 1
            yield request([n, 50, 51, 52], [3])

    found = lots(some(), Budget(9, 10**9), 4)
    first = next(found)
    assert (first.requests, asked) == ((0, 1, 2), 4)
    assert [next(found).requests, asked] == [(3, 4, 5), 8]
    assert [lot.requests for lot in found] == [(6, 7, 8), (9, 10, 11), (12, 13, 14), (15, 16, 17), (18, 19)]


def test_a_prompt_is_computed_once_and_a_last_token_never() -> None:
    prompt = list(range(100, 150))
    answers = ([1], [2], [3, 4, 5], [3, 4, 6, 7])
    asked = [request(prompt + answer, range(50, 50 + len(answer))) for answer in answers]
    (lot,) = lots(asked, WIDE)
    # the prompt; 3 4, of which the last is common; 6. Single tokens, and the last of each answer, predict nothing
    assert lot.tokens == 50 + 2 + 1
    # rows whose next token is scored: the prompt's last, 3, 4, 6
    assert len(lot.wanted) == 4


def test_examples_in_front_of_several_questions_are_computed_once() -> None:
    shots = list(range(300))
    asked = [request(shots + [400 + n] * 20 + [answer], [320]) for n in range(5) for answer in (1, 2)]
    (lot,) = lots(asked, WIDE)
    assert lot.tokens == 300 + 5 * 20


def test_a_word_in_common_is_not_worth_gathering() -> None:
    asked = [request([7, *([n] * 100), 1], [101]) for n in (8, 9)]
    (lot,) = lots(asked, WIDE)
    assert lot.tokens == 2 * 101
    assert lot.keys == 0


def test_choices_of_an_item_stay_together_where_a_lot_ends() -> None:
    prompts = [[n] * 20 for n in range(10)]
    asked = [request([*prompt, a, a], [20, 21]) for prompt in prompts for a in (100, 101, 102)]
    made = list(lots(asked, Budget(70, 10**6)))
    # prompts of 20 and three branches of one token: 23 tokens an item, three items a lot
    assert [len(lot.requests) for lot in made] == [9, 9, 9, 3]
    assert [lot.tokens for lot in made] == [69, 69, 69, 23]


def test_the_same_request_twice_is_computed_once() -> None:
    one = request([5, 6, 7, 8], [2, 3])
    (lot,) = lots([one, one], WIDE)
    assert lot.tokens == 3
    assert read_off(lot) == {0: expected(one), 1: expected(one)}
