"""Attention within documents: against a masked softmax in float64, document by document."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from koalpaca_tune.kernels import attention, flash4


def documents(*lengths: int) -> attention.Documents:
    starts = torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32)
    return attention.Documents(lengths, starts, max(lengths))


def masked(q: Tensor, k: Tensor, v: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """Softmax over every earlier token of the same document."""
    share = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(share, 1), v.repeat_interleave(share, 1)
    which = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    at = torch.arange(len(q))
    seen = (which[:, None] == which) & (at[:, None] >= at)
    scores = torch.einsum("qhd,khd->hqk", q, k) / math.sqrt(q.shape[-1])
    return torch.einsum("hqk,khd->qhd", scores.masked_fill(~seen, -math.inf).softmax(-1), v)


@pytest.mark.parametrize("lengths", [(7,), (4, 4, 4), (1, 9, 2, 5)])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_documents_one_at_a_time_are_the_masked_softmax(lengths: tuple[int, ...], kv_heads: int) -> None:
    torch.manual_seed(0)
    rows = torch.randn(sum(lengths), 4 + 2 * kv_heads, 8, dtype=torch.float64)
    q, k, v = rows.split([4, kv_heads, kv_heads], 1)
    grad = torch.randn(sum(lengths), 4, 8, dtype=torch.float64)
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    wanted = masked(*leaves, lengths)
    backend = attention.BACKENDS["documents"]
    saved = backend.forward(q, k, v, documents(*lengths))
    assert torch.allclose(saved.out, wanted, rtol=1e-9, atol=1e-12)
    for found, expected in zip(
        backend.backward(saved, grad), torch.autograd.grad(wanted, leaves, grad), strict=True
    ):
        assert torch.allclose(found, expected, rtol=1e-8, atol=1e-10)


def test_the_backend_follows_device_and_lengths() -> None:
    assert attention.choose(documents(4, 4), torch.device("cpu"), torch.float32, 64) == "documents"
    assert documents(4, 4).equal
    assert not documents(4, 5).equal
    assert not attention.Documents((), torch.zeros(2, dtype=torch.int32), 8).equal, "unknown to the host"


def test_flash4_is_named_and_says_what_it_lacks() -> None:
    assert "flash4" in attention.BACKENDS
    assert attention.obstacle("flash4", torch.device("cpu"), torch.bfloat16, 128) == "it needs a CUDA card"
    missing = flash4.missing()
    assert missing is None or "koalpaca-tune[flash4]" in missing
