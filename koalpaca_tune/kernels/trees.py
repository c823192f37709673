"""Causal attention in which the queries of a sequence are the last of its keys: branches of a tree of prefixes.

Sequences lie end to end as documents do, with more keys than queries. On a card their boundaries are given to a
kernel that knows them (causal from the bottom right); elsewhere short sequences of like shape are padded to a dense
batch, and long ones stand alone. `alone` is the reference: each sequence by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn import functional

from koalpaca_tune.kernels import attention

aten = torch.ops.aten

FROM_BOTTOM_RIGHT = 2
"""custom_mask_type of the memory-efficient kernel: the last query sees all keys."""
WIDEST = 256
"""Head that flash takes."""
WASTE = 1.2
"""Most pairs of query and key in a padded batch, in pairs of its sequences."""
PAIRS = 1 << 17
"""Most pairs in a padded batch. A longer sequence stands alone: copying takes longer than a call."""

Take = Callable[[Tensor, Tensor], Tensor]
"""`take` of `plain` or `fused`."""


@dataclass(frozen=True)
class Padded:
    """Sequences of like shape as a dense batch.

    Attributes:
        queries: int64 [n * Lq], rows of q; padding repeats a row. Or those rows, where they rise by one.
        keys: int64 [n * Lk], rows of k and v, or those rows.
        count: n.
        mask: [n, 1, Lq, Lk], 0 where a query sees a key and -inf elsewhere; None: causal, or all of them where
            there is one query.
        causal: whether there are as many queries as keys, and no mask.
        places: int64, which of the n * Lq rows of the result are no padding; None: all.
        rows: where they go.
    """

    queries: Tensor | slice
    keys: Tensor | slice
    count: int
    mask: Tensor | None
    causal: bool
    places: Tensor | None
    rows: Tensor | slice


@dataclass(frozen=True)
class Layout:
    """Sequences on a device.

    Attributes:
        queries: the rows of q that are theirs, one sequence after the other.
        keys: int64, the rows of k and v that they see; None: those of `span`.
        span: first and last row of k and v, where they lie one after the other.
        starts_q, starts_k: int32 [sequences + 1], where each begins among its queries and among its keys.
        longest_q, longest_k: no sequence has more.
        padded: for `dense`, else empty.
        lengths: queries and keys of each sequence.
    """

    queries: slice
    keys: Tensor | None
    span: slice
    starts_q: Tensor
    starts_k: Tensor
    longest_q: int
    longest_k: int
    padded: tuple[Padded, ...]
    lengths: tuple[tuple[int, int], ...]


def layout(
    first: int,
    query_lengths: Sequence[int],
    key_lengths: Sequence[int],
    keys: Tensor,
    device: torch.device,
    *,
    own: bool,
    dense: bool,
) -> Layout:
    """Makes one.

    Args:
        first: row of q where the sequences begin.
        query_lengths, key_lengths: of each.
        keys: int64 on the host, rows of k and v, one sequence after the other.
        device: where it goes.
        own: whether `keys` rise by one.
        dense: whether `dense` will read it.
    """
    total = sum(query_lengths)
    where = slice(first, first + total)
    starts = [
        torch.tensor([0, *accumulate(lengths)], dtype=torch.int32) for lengths in (query_lengths, key_lengths)
    ]
    span = slice(int(keys[0]), int(keys[-1]) + 1) if own else slice(0, 0)
    padded = tuple(_padded(first, query_lengths, key_lengths, keys, device)) if dense else ()
    return Layout(
        where,
        None if own else there(keys, device),
        span,
        there(starts[0], device),
        there(starts[1], device),
        max(query_lengths),
        max(key_lengths),
        padded,
        tuple(zip(query_lengths, key_lengths, strict=True)),
    )


def there(x: Tensor, device: torch.device) -> Tensor:
    """A host tensor on the device, without waiting for it."""
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x.to(device)


def _padded(
    first: int, query_lengths: Sequence[int], key_lengths: Sequence[int], keys: Tensor, device: torch.device
) -> list[Padded]:
    shapes = list(zip(key_lengths, query_lengths, strict=True))
    starts_q = [first, *accumulate(query_lengths, initial=first)][1:]
    starts_k = list(accumulate(key_lengths, initial=0))
    made: list[Padded] = []
    group: list[int] = []
    pairs = longest_q = 0
    for n in sorted(range(len(shapes)), key=lambda n: shapes[n], reverse=True):
        most_q = max(longest_q, shapes[n][1])
        dense = (len(group) + 1) * most_q * shapes[group[0] if group else n][0]
        if group and (dense > WASTE * (pairs + shapes[n][0] * shapes[n][1]) or dense > PAIRS):
            made.append(_batch(group, query_lengths, key_lengths, starts_q, starts_k, keys, device))
            group, pairs, most_q = [], 0, shapes[n][1]
        group.append(n)
        pairs += shapes[n][0] * shapes[n][1]
        longest_q = most_q
    if group:
        made.append(_batch(group, query_lengths, key_lengths, starts_q, starts_k, keys, device))
    return made


def _batch(
    group: Sequence[int],
    query_lengths: Sequence[int],
    key_lengths: Sequence[int],
    starts_q: Sequence[int],
    starts_k: Sequence[int],
    keys: Tensor,
    device: torch.device,
) -> Padded:
    lengths_q, lengths_k = (torch.tensor([lengths[n] for n in group]) for lengths in (query_lengths, key_lengths))
    steps_q, steps_k = (torch.arange(int(lengths.max())) for lengths in (lengths_q, lengths_k))
    real = steps_q < lengths_q[:, None]
    begin_q, begin_k = (torch.tensor([starts[n] for n in group])[:, None] for starts in (starts_q, starts_k))
    queries = begin_q + torch.minimum(steps_q, lengths_q[:, None] - 1)
    rows = keys[begin_k + torch.minimum(steps_k, lengths_k[:, None] - 1)]
    # of padded rows that begin together the padding is seen by padding alone
    causal = bool((lengths_q == lengths_k).all())
    even = bool((lengths_k == lengths_k[0]).all())
    mask = None
    if not causal and not (even and len(steps_q) == 1):
        seen = (lengths_k - lengths_q)[:, None, None] + steps_q[:, None]
        mask = there(torch.zeros(len(group), 1, len(steps_q), len(steps_k)), device)
        mask.masked_fill_(there(steps_k > seen, device)[:, None], -torch.inf)
    flat = real.flatten()
    places = None if bool(flat.all()) else there(flat.nonzero()[:, 0], device)
    goals = _rising(queries.flatten()[flat], device)
    read_q, read_k = (_rising(x.flatten(), device) for x in (queries, rows))
    return Padded(read_q, read_k, len(group), mask, causal, places, goals)


def _rising(rows: Tensor, device: torch.device) -> Tensor | slice:
    """The rows as a slice where they rise by one: nothing need be copied then."""
    first, last = int(rows[0]), int(rows[-1])
    if last - first + 1 == len(rows) and bool((rows.diff() == 1).all()):
        return slice(first, last + 1)
    return there(rows, device)


def _rows(x: Tensor, rows: Tensor | slice, count: int) -> Tensor:
    """[rows, heads, D] as [n, heads, rows / n, D]."""
    found = x[rows] if isinstance(rows, slice) else x.index_select(0, rows)
    return found.view(count, -1, *found.shape[1:]).transpose(1, 2)


def _read(q: Tensor, k: Tensor, v: Tensor, layout: Layout, take: Take) -> tuple[Tensor, Tensor, Tensor]:
    q = q[layout.queries]
    if layout.keys is None:
        return q, k[layout.span], v[layout.span]
    return q, take(k, layout.keys), take(v, layout.keys)


def _flash(q: Tensor, k: Tensor, v: Tensor, layout: Layout, out: Tensor, take: Take) -> None:
    found, *_ = aten._flash_attention_forward(
        *_read(q, k, v, layout, take),
        layout.starts_q,
        layout.starts_k,
        layout.longest_q,
        layout.longest_k,
        0.0,
        True,
        False,
    )
    out[layout.queries] = found


def _efficient(q: Tensor, k: Tensor, v: Tensor, layout: Layout, out: Tensor, take: Take) -> None:
    q, k, v = _read(q, k, v, layout, take)
    rows = [q[None], attention.shared(k, q.shape[1])[None], attention.shared(v, q.shape[1])[None]]
    found, *_ = aten._efficient_attention_forward(
        *rows, None, layout.starts_q, layout.starts_k, layout.longest_q, layout.longest_k, 0.0, FROM_BOTTOM_RIGHT,
        False,
    )  # fmt: skip
    out[layout.queries] = found[0]


def _dense(q: Tensor, k: Tensor, v: Tensor, layout: Layout, out: Tensor, take: Take) -> None:
    del take
    for one in layout.padded:
        heads_q = _rows(q, one.queries, one.count)
        heads_k, heads_v = (_rows(x, one.keys, one.count) for x in (k, v))
        found = _attend(heads_q, heads_k, heads_v, one.mask, causal=one.causal)
        flat = found.transpose(1, 2).flatten(0, 1)
        out[one.rows] = flat if one.places is None else flat[one.places]


def _alone(q: Tensor, k: Tensor, v: Tensor, layout: Layout, out: Tensor, take: Take) -> None:
    here, rows = layout.queries.start, _read(q, k, v, layout, take)
    at = begin = 0
    for queries, keys in layout.lengths:
        mask = torch.ones(queries, keys, dtype=torch.bool, device=q.device).tril(keys - queries)
        one_q = rows[0][at : at + queries].transpose(0, 1)[None]
        one_k, one_v = (x[begin : begin + keys].transpose(0, 1)[None] for x in rows[1:])
        found = _attend(one_q, one_k, one_v, mask, causal=False)
        out[here + at : here + at + queries] = found[0].transpose(0, 1)
        at, begin = at + queries, begin + keys


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, causal: bool) -> Tensor:
    grouped = q.shape[1] != k.shape[1]
    if mask is not None and mask.is_floating_point():
        mask = mask.to(q.dtype)
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=grouped)


Attend = Callable[[Tensor, Tensor, Tensor, Layout, Tensor, Take], None]
"""(q [rows, heads, D], k and v [T, kv heads, D], layout, out like q, take): writes the layout's queries."""

BACKENDS: dict[str, Attend] = {
    "flash": _flash,
    "efficient": _efficient,
    "dense": _dense,
    "alone": _alone,
}


def choose(device: torch.device, dtype: torch.dtype, head_dim: int) -> str:
    """The fastest backend that can do it; only a forward pass is wanted.

    flash-attn-4 is left to training: it compiles for seconds, and attention is little of a suite's time.
    """
    if device.type != "cuda":
        return "dense"
    # of flash only the backward pass is not to be had for wide heads on some cards
    if attention.obstacle("flash", device, dtype, min(head_dim, 128)) is None and head_dim <= WIDEST:
        return "flash"
    return "efficient"
