"""Many requests on one model: a thread that owns it, a queue before it, and answers that come and go between steps.

Nothing here knows HTTP. What a request hears is a few pieces of text and one end, in that order.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Literal

from koalpaca_tune.inference.generation.request import Request, Token
from koalpaca_tune.serving.jobs import Done, Failed, Full, Heard, Job, Piece, Stopping, Writer
from koalpaca_tune.serving.metrics import Metrics
from koalpaca_tune.serving.text import TextStream


class Scheduler:
    """Hands requests to a writer as slots become free.

    Attributes:
        slots: answers at a time.
        most_waiting: requests that may wait for a slot.
        broken: what ended the thread, if anything did.
    """

    def __init__(
        self,
        writer: Writer,
        *,
        slots: int,
        most_waiting: int,
        metrics: Metrics,
        within: Callable[[], AbstractContextManager[object]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Starts the thread.

        Args:
            writer: called from the thread alone.
            slots: of the writer.
            most_waiting: see the attribute.
            metrics: are kept up to date.
            within: what the thread works within, torch's inference mode.
            clock: seconds.
        """
        self.slots, self.most_waiting = slots, most_waiting
        self.broken: BaseException | None = None
        self._writer, self._metrics, self._within, self._clock = writer, metrics, within, clock
        self._waiting: deque[Job] = deque()
        self._live: dict[int, Job] = {}
        self._dropped: list[Job] = []
        self._wake = threading.Condition()
        self._stop_at: float | None = None
        self._closed = False
        # of finished answers, an exponential mean
        self._mean_seconds = 1.0
        self.on_break: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._run, name="koalpaca-scheduler", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Requests without a slot."""
        return len(self._waiting)

    @property
    def live(self) -> int:
        """Answers that are being written."""
        return len(self._live)

    @property
    def stopping(self) -> bool:
        """Whether nothing more is taken."""
        return self._stop_at is not None or self._closed or self.broken is not None

    def submit(
        self, request: Request, stream: TextStream, hear: Callable[[Heard], None], *, model: str, seconds: float
    ) -> Job:
        """Queues a request.

        Args:
            request: what is asked.
            stream: makes its text.
            hear: gets pieces and the end; must not block.
            model: its name in the metrics.
            seconds: when they are over, it is given up.

        Raises:
            Full: too many wait already.
            Stopping: see there.
        """
        now = self._clock()
        job = Job(request, stream, hear, model, now + seconds, now)
        with self._wake:
            if self.stopping:
                raise Stopping
            # a free slot needs no place in the queue
            if len(self._waiting) - max(0, self.slots - len(self._live)) >= self.most_waiting:
                raise Full(self._seconds_until_free())
            self._waiting.append(job)
            self._wake.notify()
        return job

    def cancel(self, job: Job) -> None:
        """Gives a request up: its slot is free at the next step. One that is over is left alone."""
        with self._wake:
            if not job.cancelled:
                job.cancelled = True
                self._dropped.append(job)
                self._wake.notify()

    def stop(self, seconds: float) -> None:
        """Takes nothing more; what there is may go on for so long. May be called from a signal handler."""
        if self._stop_at is None:
            self._stop_at = self._clock() + seconds

    def close(self) -> None:
        """Ends the thread, and with it whatever is left."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()

    def _seconds_until_free(self) -> int:
        rounds = (len(self._waiting) + 1) / self.slots
        return max(1, min(60, math.ceil(rounds * self._mean_seconds)))

    def _run(self) -> None:
        try:
            with self._within():
                while self._turn():
                    pass
        except BaseException as error:
            self.broken = error
            raise
        finally:
            with self._wake:
                left = [*self._live.values(), *self._waiting]
                self._live.clear()
                self._waiting.clear()
                self._closed = True
            for job in left:
                self._fail(job, "broken" if self.broken else "stopping")
            self._count()
            if self.broken:
                self.on_break()

    def _turn(self) -> bool:
        """One step for everyone; False when the thread is to end."""
        with self._wake:
            while not (self._waiting or self._live or self._dropped or self._closed):
                self._wake.wait()
            if self._closed:
                return False
            dropped, self._dropped = self._dropped, []
        self._give_up(dropped)
        self._admit()
        self._count()
        if self._live:
            for token in self._writer.step():
                self._take(token)
        return True

    def _give_up(self, dropped: Sequence[Job]) -> None:
        for job in dropped:
            self._leave(job)
        now = self._clock()
        stopped = self._stop_at is not None and now >= self._stop_at
        for job in [*self._live.values(), *self._waiting]:
            if stopped or now >= job.until:
                began = job.ticket is not None
                self._leave(job)
                self._fail(job, "stopping" if stopped else "late" if began else "never-began")

    def _leave(self, job: Job) -> None:
        """Takes a job out, wherever it is."""
        with self._wake:
            if job in self._waiting:
                self._waiting.remove(job)
        if job.ticket is not None and self._live.pop(job.ticket, None) is not None:
            self._writer.cancel(job.ticket)
            self._metrics.answers.labels(job.model, "cancelled" if job.cancelled else "failed").inc()
            self._metrics.new_tokens.labels(job.model).inc(job.tokens)

    def _admit(self) -> None:
        while len(self._live) < self.slots:
            with self._wake:
                if not self._waiting:
                    return
                job = self._waiting.popleft()
            job.ticket = self._writer.add(job.request)
            self._live[job.ticket] = job
            self._metrics.wait.observe(self._clock() - job.since)
            self._metrics.prompt_tokens.labels(job.model).inc(len(job.request.ids))

    def _take(self, token: Token) -> None:
        job = self._live.get(token.ticket)
        if job is None or token.end == "cancelled":
            return
        text = ""
        if token.end != "stop":
            job.tokens += 1
            if job.tokens == 1:
                self._metrics.first.observe(self._clock() - job.since)
            text = job.stream.push(token.id)
        if job.stream.ended:
            # its stop text came: the writer knows stop tokens only
            if token.end is None:
                self._writer.cancel(token.ticket)
            self._finish(job, text, "stop")
        elif token.end is not None:
            self._finish(job, text + job.stream.finish(), token.end)
        elif text:
            job.hear(Piece(text))

    def _finish(self, job: Job, text: str, reason: Literal["stop", "length"]) -> None:
        assert job.ticket is not None
        del self._live[job.ticket]
        seconds = self._clock() - job.since
        self._mean_seconds += 0.1 * (seconds - self._mean_seconds)
        self._metrics.whole.observe(seconds)
        self._metrics.answers.labels(job.model, reason).inc()
        self._metrics.new_tokens.labels(job.model).inc(job.tokens)
        if text:
            job.hear(Piece(text))
        job.hear(Done(reason, job.tokens))

    def _fail(self, job: Job, why: Literal["late", "never-began", "stopping", "broken"]) -> None:
        if not job.cancelled:
            job.hear(Failed(why))

    def _count(self) -> None:
        self._metrics.queued.set(len(self._waiting))
        self._metrics.live.set(len(self._live))
