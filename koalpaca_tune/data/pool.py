"""Batches through workers, results in the batches' order: in this process for small inputs, else in several."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from multiprocessing import get_context, parent_process

from koalpaca_tune.config.preparation import Preparation
from koalpaca_tune.data.inputs import Plan
from koalpaca_tune.data.overlap.contamination import Protected
from koalpaca_tune.data.work import Batch, Done, Worker
from koalpaca_tune.errors import KoalpacaError

SMALL = 8
"""Batches up to which starting processes, each with its own morphological analyser, is not worth it."""

_AHEAD = 3


def run(
    batches: Iterable[Batch],
    preparation: Preparation,
    plans: Sequence[Plan],
    protected: Protected | None,
    workers: int = 1,
) -> Iterator[Done]:
    """Takes batches through `workers` processes (1: this one).

    The results come in the batches' order and do not depend on the number of workers. Few batches are in
    flight at any time, so that memory does not grow with the input.

    Raises:
        KoalpacaError: a process was ended from outside (system).
    """
    coming = iter(batches)
    first = list(islice(coming, SMALL)) if workers > 1 else []
    if workers == 1 or len(first) < SMALL:
        worker = make(preparation, plans, protected)
        yield from map(worker, chain(first, coming))
        return
    # spawn: a fork would copy locks that the progress display's thread may hold
    with ProcessPoolExecutor(
        workers, get_context("spawn"), initializer=_start, initargs=(preparation, plans, protected)
    ) as pool:
        waiting: deque[Future[Done]] = deque()
        try:
            for batch in chain(first, coming):
                waiting.append(pool.submit(_work, batch))
                if len(waiting) > _AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise KoalpacaError(
                "system",
                "a worker process was ended from outside, most likely because memory was full.",
                where="--workers",
                fix=f"Use fewer than {workers}.",
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def make(preparation: Preparation, plans: Sequence[Plan], protected: Protected | None) -> Worker:
    """The worker of a preparation."""
    return Worker(preparation, [plan.shaper() for plan in plans], [plan.source for plan in plans], protected)


_worker: Worker | None = None


def _start(preparation: Preparation, plans: Sequence[Plan], protected: Protected | None) -> None:
    global _worker
    # Ctrl-C reaches all processes of a terminal: the first one says so, and lets the others end
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker = make(preparation, plans, protected)


def _end_with_parent() -> None:
    # killed, it cannot tell its workers, and they would wait for batches for ever
    if parent := parent_process():
        parent.join()
        os._exit(1)


def _work(batch: Batch) -> Done:
    assert _worker is not None
    return _worker(batch)
