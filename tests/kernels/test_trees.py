"""Attention of branches: every way of computing it against each sequence alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from koalpaca_tune.kernels import plain, trees

CPU = torch.device("cpu")
HEADS, KV_HEADS, WIDTH = 4, 2, 8


def made(shapes: list[tuple[int, int]], *, own: bool, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """q, k, v and the rows of keys for sequences of (queries, further keys)."""
    generator = torch.Generator().manual_seed(seed)
    queries, keys = sum(q for q, _ in shapes), sum(q + more for q, more in shapes)
    q = torch.randn(queries + 3, HEADS, WIDTH, generator=generator)
    k, v = (torch.randn(keys + 5, KV_HEADS, WIDTH, generator=generator) for _ in range(2))
    rows = torch.arange(5, keys + 5) if own else torch.randint(keys + 5, (keys,), generator=generator)
    return q, k, v, rows


def attended(name: str, shapes: list[tuple[int, int]], *, own: bool) -> torch.Tensor:
    q, k, v, rows = made(shapes, own=own)
    layout = trees.layout(
        3, [q for q, _ in shapes], [q + more for q, more in shapes], rows, CPU, own=own, dense=True
    )
    out = torch.full_like(q, 7.0)
    trees.BACKENDS[name](q, k, v, layout, out, plain.take)
    assert bool((out[:3] == 7.0).all())
    return out[3:]


def by_hand(shapes: list[tuple[int, int]], *, own: bool) -> torch.Tensor:
    """Softmax over the keys up to each query's own, which is the last but as many as queries follow."""
    q, k, v, rows = made(shapes, own=own)
    found, begin_q, begin_k = [], 3, 0
    for queries, more in shapes:
        here = rows[begin_k : begin_k + queries + more]
        for n in range(queries):
            seen = here[: more + n + 1]
            for head in range(HEADS):
                keys, values = k[seen, head // 2], v[seen, head // 2]
                found.append(((keys @ q[begin_q + n, head]) / WIDTH**0.5).softmax(0) @ values)
        begin_q, begin_k = begin_q + queries, begin_k + queries + more
    return torch.stack(found).view(-1, HEADS, WIDTH)


SHAPES = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 9)), min_size=1, max_size=9)


@given(SHAPES, st.booleans())
def test_padded_batches_and_each_alone_equal_a_plain_softmax(shapes: list[tuple[int, int]], own: bool) -> None:
    expected = by_hand(shapes, own=own)
    for name in ("alone", "dense"):
        torch.testing.assert_close(attended(name, shapes, own=own), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("own", [False, True])
def test_sequences_too_long_for_a_batch(own: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = [(5, 0), (5, 0), (3, 4), (3, 4), (1, 6), (1, 6)]
    together = attended("dense", shapes, own=own)
    monkeypatch.setattr(trees, "PAIRS", 1)
    torch.testing.assert_close(attended("dense", shapes, own=own), together, atol=1e-5, rtol=1e-5)


def test_documents_are_branches_without_ancestors() -> None:
    shapes = [(4, 0), (7, 0), (4, 0)]
    torch.testing.assert_close(attended("dense", shapes, own=True), by_hand(shapes, own=True), atol=1e-5, rtol=1e-5)
    assert trees.choose(CPU, torch.float32, 64) == "dense"
