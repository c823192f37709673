"""Causal attention within documents that lie end to end, forward and backward, by several backends.

`documents` is the reference: each document alone. The others never see a mask either: where all documents
are equally long they are rows of a dense batch; else their boundaries are given to a kernel that knows them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from koalpaca_tune.kernels import flash4

aten = torch.ops.aten


@dataclass(frozen=True)
class Documents:
    """Where documents begin and end in a stream of T tokens.

    Attributes:
        lengths: tokens of each; empty where only the device knows (a captured graph is used for many).
        starts: int32 [documents + 1] on the device, from 0 to T.
        longest: no document is longer.
    """

    lengths: tuple[int, ...]
    starts: Tensor
    longest: int

    @property
    def equal(self) -> bool:
        """Whether they form a dense batch."""
        return bool(self.lengths) and min(self.lengths) == max(self.lengths)


@dataclass(frozen=True)
class Saved:
    """What the backward pass reads: q, k, v, the result, and what the backend wants to see again."""

    q: Tensor
    k: Tensor
    v: Tensor
    out: Tensor
    documents: Documents
    rest: tuple[Any, ...]


Gradients = tuple[Tensor, Tensor, Tensor]


def _batched(x: Tensor, documents: Documents) -> Tensor:
    """[T, heads, D] as a view [documents, heads, length, D]."""
    return x.view(len(documents.lengths), documents.longest, *x.shape[1:]).transpose(1, 2)


def _flat(x: Tensor) -> Tensor:
    """[documents, heads, length, D] as [T, heads, D]."""
    return x.transpose(1, 2).flatten(0, 1)


def _cudnn(q: Tensor, k: Tensor, v: Tensor, documents: Documents) -> Saved:
    rows = [_batched(x, documents) for x in (q, k, v)]
    out, lse, starts_q, starts_k, longest_q, longest_k, seed, offset, _ = aten._scaled_dot_product_cudnn_attention(
        *rows, None, True, 0.0, True, False
    )
    return Saved(q, k, v, _flat(out), documents, (out, lse, starts_q, starts_k, longest_q, longest_k, seed, offset))


def _cudnn_backward(saved: Saved, grad: Tensor) -> Gradients:
    out, lse, starts_q, starts_k, longest_q, longest_k, seed, offset = saved.rest
    rows = [_batched(x, saved.documents) for x in (grad, saved.q, saved.k, saved.v)]
    back = aten._scaled_dot_product_cudnn_attention_backward(
        *rows, out, lse, seed, offset, None, starts_q, starts_k, longest_q, longest_k, 0.0, True
    )
    q, k, v = (_flat(x) for x in back)
    return q, k, v


def _flash(q: Tensor, k: Tensor, v: Tensor, documents: Documents) -> Saved:
    starts, longest = documents.starts, documents.longest
    out, lse, random, unused, _ = aten._flash_attention_forward(
        q, k, v, starts, starts, longest, longest, 0.0, True, False
    )
    return Saved(q, k, v, out, documents, (lse, random, unused))


def _flash_backward(saved: Saved, grad: Tensor) -> Gradients:
    lse, random, unused = saved.rest
    starts, longest = saved.documents.starts, saved.documents.longest
    q, k, v = aten._flash_attention_backward(
        grad, saved.q, saved.k, saved.v, saved.out, lse, starts, starts, longest, longest, 0.0, True, random, unused
    )
    return q, k, v


def _flash4(q: Tensor, k: Tensor, v: Tensor, documents: Documents) -> Saved:
    starts, longest = documents.starts, documents.longest
    out, lse = flash4.forward(q, k, v, starts, longest)
    return Saved(q, k, v, out, documents, (lse,))


def _flash4_backward(saved: Saved, grad: Tensor) -> Gradients:
    (lse,) = saved.rest
    starts, longest = saved.documents.starts, saved.documents.longest
    return flash4.backward(saved.q, saved.k, saved.v, saved.out, grad, lse, starts, longest)


CAUSAL = 1
"""custom_mask_type of the memory-efficient kernel: each token sees itself and those before it."""


def shared(x: Tensor, heads: int) -> Tensor:
    """Key or value heads repeated for the query heads that share them (grouped-query attention)."""
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], dim=1)


def _summed(x: Tensor, heads: int) -> Tensor:
    """The gradient of `shared`."""
    return x if x.shape[1] == heads else x.view(len(x), heads, -1, x.shape[2]).sum(2)


def _efficient(q: Tensor, k: Tensor, v: Tensor, documents: Documents) -> Saved:
    starts, longest = documents.starts, documents.longest
    rows = [q[None], shared(k, q.shape[1])[None], shared(v, q.shape[1])[None]]
    out, lse, seed, offset, *_ = aten._efficient_attention_forward(
        *rows, None, starts, starts, longest, longest, 0.0, CAUSAL, True
    )
    return Saved(q, k, v, out[0], documents, (lse, seed, offset))


def _efficient_backward(saved: Saved, grad: Tensor) -> Gradients:
    lse, seed, offset = saved.rest
    heads, kv_heads = saved.q.shape[1], saved.k.shape[1]
    starts, longest = saved.documents.starts, saved.documents.longest
    rows = [saved.q[None], shared(saved.k, heads)[None], shared(saved.v, heads)[None]]
    q, k, v, _ = aten._efficient_attention_backward(
        grad[None], *rows, None, saved.out[None], starts, starts, longest, longest, lse, 0.0, seed, offset, CAUSAL,
        False,
    )  # fmt: skip
    return q[0], _summed(k[0], kv_heads), _summed(v[0], kv_heads)


def _documents(q: Tensor, k: Tensor, v: Tensor, documents: Documents) -> Saved:
    parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    grouped = q.shape[1] != k.shape[1]
    at = 0
    for length in documents.lengths:
        one_q, one_k, one_v = (_leaf(x[at : at + length]) for x in (q, k, v))
        with torch.enable_grad():
            one = functional.scaled_dot_product_attention(one_q, one_k, one_v, is_causal=True, enable_gqa=grouped)
        out[at : at + length] = one.detach()[0].transpose(0, 1)
        parts.append((one, one_q, one_k, one_v))
        at += length
    return Saved(q, k, v, out, documents, tuple(parts))


def _leaf(x: Tensor) -> Tensor:
    """A document's rows [length, heads, D] as [1, heads, length, D], for autograd to begin at."""
    return x.transpose(0, 1)[None].detach().requires_grad_()


def _documents_backward(saved: Saved, grad: Tensor) -> Gradients:
    back = [torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (saved.q, saved.k, saved.v)]
    at = 0
    for (one, *rows), length in zip(saved.rest, saved.documents.lengths, strict=True):
        here = grad[at : at + length].transpose(0, 1)[None]
        for whole, part in zip(back, torch.autograd.grad(one, rows, here, retain_graph=True), strict=True):
            whole[at : at + length] = part[0].transpose(0, 1)
        at += length
    return back[0], back[1], back[2]


@dataclass(frozen=True)
class Backend:
    """forward(q [T, heads, D], k and v [T, kv heads, D], documents); backward(saved, gradient at the result)."""

    forward: Callable[[Tensor, Tensor, Tensor, Documents], Saved]
    backward: Callable[[Saved, Tensor], Gradients]


BACKENDS: dict[str, Backend] = {
    "cudnn": Backend(_cudnn, _cudnn_backward),
    "flash": Backend(_flash, _flash_backward),
    "flash4": Backend(_flash4, _flash4_backward),
    "efficient": Backend(_efficient, _efficient_backward),
    "documents": Backend(_documents, _documents_backward),
}


NO_WIDE_BACKWARD = ((8, 6), (8, 7), (8, 9), (12, 0))
"""Compute capabilities whose flash kernel has no backward pass for heads beyond 192."""


def obstacle(name: str, device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
    """Why a backend cannot be used, in a few words; None where it can (cudnn: for equal documents)."""
    if name == "documents":
        return None
    if device.type != "cuda":
        return "it needs a CUDA card"
    if name == "efficient":
        return None
    if dtype not in (torch.bfloat16, torch.float16):
        return "it has no float32"
    capability = torch.cuda.get_device_capability(device)
    if capability < (8, 0):
        return f"the card's compute capability is {capability[0]}.{capability[1]}, it needs 8.0"
    if name == "flash4":
        if capability < flash4.CAPABILITY:
            return "it needs Hopper or newer"
        return flash4.missing()
    if name == "flash" and head_dim > 192 and capability in NO_WIDE_BACKWARD:
        return f"on this card it has no backward pass for heads of {head_dim}"
    return None


def choose(documents: Documents, device: torch.device, dtype: torch.dtype, head_dim: int) -> str:
    """The fastest backend that can do it.

    Measured on an H200 for 16,384 tokens, forward and backward, in ms (bench/results/attention-h200-*): Llama-3-8B
    (32 heads of 128) in 8 documents of 2,048 flash 3.8, cuDNN 2.3, flash4 2.2; in documents of Korean SFT lengths
    flash 1.93, flash4 1.25. polyglot-ko-5.8B (16 heads of 256) 4.1, 2.8 and 2.8; 1.64 and 1.23. cuDNN's kernel
    takes dense batches only. Cards newer than Hopper have not been measured.
    """
    if device.type != "cuda":
        return "documents"
    if torch.cuda.get_device_capability(device)[0] == 9 and dtype in (torch.bfloat16, torch.float16):
        wide = head_dim > 128
        if flash4.missing() is None and not (documents.equal and wide):
            return "flash4"
        if documents.equal:
            return "cudnn"
    return "efficient" if obstacle("flash", device, dtype, head_dim) else "flash"
