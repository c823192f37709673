"""flash-attn-4 (package `flash-attn-4`, extra `flash4`), which is written for Hopper and newer cards.

Its two functions below the autograd function are called, since the engine computes its own backward pass; they are
not public, so the version is bounded and `missing` looks for them.
"""

from __future__ import annotations

import warnings
from functools import cache
from importlib.util import find_spec
from typing import Any

from torch import Tensor

CAPABILITY = (9, 0)


@cache
def missing() -> str | None:
    """Why the package cannot be used, in a few words; None where it can. It is not loaded for the answer."""
    # a parent that is not there raises, where find_spec of a lone name gives None
    if find_spec("flash_attn") is None or find_spec("flash_attn.cute") is None:
        return 'flash-attn-4 is not installed (pip install "koalpaca-tune[flash4]")'
    return None


@cache
def _interface() -> Any:
    # its compiler remarks on an argument of its own, at length
    warnings.filterwarnings("ignore", message="Argument aux_data", category=UserWarning)
    from flash_attn.cute import interface

    return interface


def forward(q: Tensor, k: Tensor, v: Tensor, starts: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    """Causal attention of documents that lie end to end.

    Args:
        q: bfloat16 or float16 [T, heads, D]; rows may stand apart, as in `k` and `v` [T, kv heads, D].
        starts: int32 [documents + 1].
        longest: no document has more.

    Returns:
        [T, heads, D] and the logarithms of the sums, float32 [heads, T].
    """
    out, lse, *_ = _interface()._flash_attn_fwd(
        q,
        k,
        v,
        cu_seqlens_q=starts,
        cu_seqlens_k=starts,
        max_seqlen_q=longest,
        max_seqlen_k=longest,
        causal=True,
        return_lse=True,
    )
    return out, lse


def backward(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, grad: Tensor, lse: Tensor, starts: Tensor, longest: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients at q, k and v, from the gradient at the result."""
    one, two, three, *_ = _interface()._flash_attn_bwd(
        q,
        k,
        v,
        out,
        grad,
        lse,
        causal=True,
        cu_seqlens_q=starts,
        cu_seqlens_k=starts,
        max_seqlen_q=longest,
        max_seqlen_k=longest,
    )
    return one, two, three
