"""Whether all items fit the base's context, before the model is asked; and how much there is to read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from koalpaca_tune.errors import KoalpacaError, Problem
from koalpaca_tune.evaluation.job import Job
from koalpaca_tune.evaluation.protocol import Lengths
from koalpaca_tune.records import Rendered

CHUNK = 512

_GROWTH, _AROUND = 3, 8


@dataclass(frozen=True)
class Size:
    """How much a job makes a model read and write.

    Attributes:
        name, title: the task.
        items, requests: how many.
        tokens: read, over all requests; what requests share is counted each time.
        writes: tokens written at most.
        longest: tokens of the longest request.
    """

    name: str
    title: str
    items: int
    requests: int
    tokens: int
    writes: int
    longest: int


def check(work: Sequence[Job], lengths: Lengths) -> None:
    """Refuses what is longer than the base's context.

    Raises:
        KoalpacaError: one problem for each task with such items (eval-too-long).
    """
    room = lengths.room
    if room is None:
        return
    problems = []
    for job in work:
        if job.about.get("too_long") == "cut":
            continue
        over = [count for count in _suspects(job, lengths, room - job.writes) if count + job.writes > room]
        if over:
            problems.append(_too_long(job, over, room))
    if problems:
        raise KoalpacaError.of(problems)


def _suspects(job: Job, lengths: Lengths, room: int) -> Iterator[int]:
    """Most tokens of each item whose texts may be too long.

    All texts of such an item are counted: of two choices, the one of fewer bytes may have more tokens.
    """
    texts: list[Rendered] = []
    counts: list[int] = []
    for n in range(len(job.ids)):
        one = job.texts(n)
        if one and not surely_fits(one, room):
            texts += one
            counts.append(len(one))
        if len(texts) >= CHUNK:
            yield from _most(lengths.tokens(texts), counts)
            texts, counts = [], []
    if texts:
        yield from _most(lengths.tokens(texts), counts)


def _most(tokens: Sequence[int], counts: Sequence[int]) -> Iterator[int]:
    each = iter(tokens)
    for count in counts:
        yield max(islice(each, count))


def surely_fits(texts: Sequence[Rendered], room: int) -> bool:
    """Whether texts are so short that no tokenizer makes more tokens of them than `room`.

    A token has at least a byte of what the tokenizer reads. That may be three times what is written (NFD of
    Hangul), and tokens of its own stand around it (BOS, a word mark at the start).
    """
    longest = max(len(one.text.encode("utf-8", "replace")) for one in texts)
    return longest * _GROWTH + _AROUND <= room


def _too_long(job: Job, over: Sequence[int], room: int) -> Problem:
    shots = (job.about.get("shots") or {}).get("count", 0)
    given = f" with {shots} examples" if shots else ""
    answer = f" and {job.writes} for the answer" if job.writes else ""
    ways = ["Use a base with a longer context, or leave the task out."]
    if shots:
        ways = [
            "Give fewer examples (--shots)",
            "or ask by a profile that cuts at the left (--profile lm-eval), where there is one.",
        ]
    return Problem(
        "eval-too-long",
        f"{len(over)} of the {len(job.ids)} items of '{job.name}' do not fit{given}: the longest has {max(over)} "
        f"tokens{answer}, the base reads {room}.",
        "--shots" if shots else job.name,
        " ".join(ways),
    )


def sizes(work: Sequence[Job], lengths: Lengths) -> list[Size]:
    """What each job comes to; the tokenizer reads everything once."""
    found = []
    for job in work:
        counts: list[int] = []
        texts: list[Rendered] = []
        for n in range(len(job.ids)):
            texts += job.texts(n)
            if len(texts) >= CHUNK:
                counts += lengths.tokens(texts)
                texts = []
        counts += lengths.tokens(texts) if texts else []
        writes = job.writes * len(job.ids)
        found.append(
            Size(job.name, job.title, len(job.ids), len(counts), sum(counts), writes, max(counts, default=0))
        )
    return found
