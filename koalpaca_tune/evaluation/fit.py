"""Whether all items fit the base's context, before the model is asked; and how much there is to read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from koalpaca_tune.errors import KoalpacaError, Problem
from koalpaca_tune.evaluation.job import Job
from koalpaca_tune.evaluation.protocol import Lengths
from koalpaca_tune.records import Rendered

CHUNK = 512


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
    """Tokens of each item's longest text, of those that may be too long: a token has at least a byte."""
    texts = []
    for n in range(len(job.ids)):
        longest = max(job.texts(n), key=_bytes, default=None)
        if longest is not None and _bytes(longest) > room:
            texts.append(longest)
        if len(texts) == CHUNK:
            yield from lengths.tokens(texts)
            texts = []
    if texts:
        yield from lengths.tokens(texts)


def _bytes(text: Rendered) -> int:
    return len(text.text.encode("utf-8", "replace"))


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
