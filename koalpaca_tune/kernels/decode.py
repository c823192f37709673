"""Attention of one new token for each text over the keys of its own before it: the reference, in torch.

Keys and values stand in a cache of slots. A step turns the new query and key by the rotary embedding, puts key and
value behind those of their slot, and attends. `triton_decode` does it in one launch, or two where the keys of a
head are shared out among programs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Heads:
    """How q, k and v lie in a row of the joined product.

    Attributes:
        queries, keys: heads of q, and of k and v.
        width: of a head.
        joined: whether q, k and v lie side by side head by head (GPT-NeoX), else all of q first, then k, then v.
    """

    queries: int
    keys: int
    width: int
    joined: bool

    @property
    def outputs(self) -> int:
        """Columns of a row."""
        return (self.queries + 2 * self.keys) * self.width

    @property
    def places(self) -> tuple[int, int, int, int]:
        """Where the first head of k and of v begins, and how far heads of q, and of k and v, stand apart."""
        if self.joined:
            return self.width, 2 * self.width, 3 * self.width, 3 * self.width
        return self.queries * self.width, (self.queries + self.keys) * self.width, self.width, self.width

    def split(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q [M, heads, D], k and v [M, kv heads, D] as views of rows [M, ...]."""
        if self.joined:
            parts = rows.view(len(rows), self.queries, 3, self.width)
            return parts[:, :, 0], parts[:, :, 1], parts[:, :, 2]
        parts = rows.view(len(rows), self.queries + 2 * self.keys, self.width)
        end = self.queries + self.keys
        return parts[:, : self.queries], parts[:, self.queries : end], parts[:, end:]


def attend(
    rows: Tensor,
    heads: Heads,
    cos: Tensor,
    sin: Tensor,
    keys: Tensor,
    values: Tensor,
    slots: Tensor,
    lengths: Tensor,
    out: Tensor,
) -> None:
    """Puts the new keys and values into the cache, and attends.

    Args:
        rows: [M, ...], q, k and v as `heads` says.
        heads: of the model.
        cos, sin: float32 [longest, R], the rotary tables.
        keys, values: [slots, kv heads, room, D], of one layer.
        slots: int64 [M], the slot of each row; rows of one slot more than once are padding.
        lengths: int64 [M], keys of each that are there already: the position of the new one.
        out: [M, heads * D].
    """
    q, k, v = heads.split(rows)
    q, k = _turned(q, k, cos.index_select(0, lengths), sin.index_select(0, lengths))
    if len(rows) == 1:
        # numbers index faster than tensors
        slot, length = int(slots), int(lengths)
        keys[slot, :, length], values[slot, :, length] = k[0], v[0]
        old, mask, longest = (keys[slot : slot + 1], values[slot : slot + 1]), None, length + 1
    else:
        keys[slots, :, lengths], values[slots, :, lengths] = k, v
        longest = int(lengths.max()) + 1
        mask = (torch.arange(longest, device=lengths.device) <= lengths[:, None])[:, None, None]
        old = _of(keys, slots), _of(values, slots)
    found = functional.scaled_dot_product_attention(
        q[:, :, None],
        old[0][:, :, :longest],
        old[1][:, :, :longest],
        attn_mask=mask,
        enable_gqa=heads.queries != heads.keys,
    )
    out.copy_(found.flatten(1))


def _turned(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Both after the rotary embedding, in their type; cos and sin [M, R] of each row."""
    half = cos.shape[1]
    both = torch.cat((q, k), 1).float()
    turn_cos, turn_sin = cos[:, None], sin[:, None]
    first, second = both[..., :half], both[..., half : 2 * half]
    turned = torch.addcmul(first * turn_cos, second, turn_sin, value=-1)
    second.mul_(turn_cos).addcmul_(first, turn_sin)
    first.copy_(turned)
    both = both.to(q.dtype)
    return both[:, : q.shape[1]], both[:, q.shape[1] :]


def _of(cache: Tensor, slots: Tensor) -> Tensor:
    """The slots of a cache, without a copy where they follow each other."""
    first = int(slots[0])
    if torch.equal(slots, torch.arange(first, first + len(slots), device=slots.device)):
        return cache[first : first + len(slots)]
    return cache.index_select(0, slots)
