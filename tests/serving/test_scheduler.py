"""The queue before the model: order, limits, time, cancelled requests, the end. The writer here is a script."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import pytest

from koalpaca_tune.inference.generation.request import End, Request, Token
from koalpaca_tune.serving.jobs import Done, Failed, Full, Heard, Piece, Stopping
from koalpaca_tune.serving.metrics import Metrics
from koalpaca_tune.serving.scheduler import Scheduler
from koalpaca_tune.serving.text import TextStream

STOP = 0


@dataclass
class Script:
    """Writes the letters of a request's ids, one a step, then a stop; a step is let through by hand."""

    gate: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    live: dict[int, list[int]] = field(default_factory=dict)
    cancelled: list[int] = field(default_factory=list)
    most: int = 0
    breaks: bool = False
    count: int = 0

    def add(self, request: Request) -> int:
        self.count += 1
        self.live[self.count] = [*request.ids, STOP]
        self.most = max(self.most, len(self.live))
        return self.count

    def cancel(self, ticket: int) -> None:
        self.cancelled.append(ticket)
        self.live.pop(ticket, None)

    def step(self) -> list[Token]:
        assert self.gate.acquire(timeout=10)
        if self.breaks:
            raise ZeroDivisionError
        found = []
        for ticket, ids in list(self.live.items()):
            token = ids.pop(0)
            end: End | None = "stop" if token == STOP else None
            if end:
                del self.live[ticket]
            found.append(Token(ticket, token, end))
        return found


class Ear:
    """What one request hears."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []
        self.begun = threading.Event()
        self.over = threading.Event()

    def __call__(self, heard: Heard) -> None:
        self.heard.append(heard)
        self.begun.set()
        if not isinstance(heard, Piece):
            self.over.set()

    @property
    def text(self) -> str:
        return "".join(one.text for one in self.heard if isinstance(one, Piece))

    def end(self) -> Heard:
        assert self.over.wait(10)
        return self.heard[-1]


class House:
    """A scheduler over a script, with a clock that is set by hand."""

    def __init__(self, slots: int = 2, most_waiting: int = 2) -> None:
        self.script, self.now, self.metrics = Script(), 0.0, Metrics()
        self.scheduler = Scheduler(
            self.script,
            slots=slots,
            most_waiting=most_waiting,
            metrics=self.metrics,
            within=nullcontext,
            clock=lambda: self.now,
        )

    def ask(
        self, text: str, *, until: Sequence[str] = (), seconds: float = 100.0
    ) -> tuple[Ear, Callable[[], None]]:
        ear = Ear()
        decode: Callable[[Sequence[int]], str] = lambda ids: "".join(map(chr, ids))  # noqa: E731
        stream = TextStream(decode, until=until)
        request = Request(tuple(map(ord, text)), 100, (STOP,))
        job = self.scheduler.submit(request, stream, ear, model="m", seconds=seconds)
        return ear, lambda: self.scheduler.cancel(job)

    def steps(self, count: int) -> None:
        self.script.gate.release(count)


@pytest.fixture
def house() -> House:
    return House()


def close(house: House) -> None:
    house.steps(1000)
    house.scheduler.close()


def test_every_request_gets_its_own_answer_in_the_slots_there_are(house: House) -> None:
    ears = [house.ask(text)[0] for text in ("하나", "둘", "셋셋셋")]
    house.steps(1000)
    assert [ear.end() for ear in ears] == [Done("stop", 2), Done("stop", 1), Done("stop", 3)]
    assert [ear.text for ear in ears] == ["하나", "둘", "셋셋셋"]
    assert house.script.most <= 2
    close(house)


def test_a_full_queue_refuses_and_says_when_to_come_again(house: House) -> None:
    kept = [house.ask("가나다")[0] for _ in range(4)]
    with pytest.raises(Full) as full:
        house.ask("라")
    assert 1 <= full.value.seconds <= 60
    house.steps(1000)
    for ear in kept:
        ear.end()
    assert house.ask("라")[0].end() == Done("stop", 1), "there is room again"
    close(house)


def test_a_cancelled_request_frees_its_slot_and_hears_nothing_more(house: House) -> None:
    first, cancel = house.ask("가" * 50)
    second, _ = house.ask("나" * 50)
    third, _ = house.ask("다")
    house.steps(1)
    assert first.begun.wait(10)
    cancel()
    house.steps(1000)
    assert third.end() == Done("stop", 1)
    assert second.end() == Done("stop", 50)
    assert not first.over.is_set()
    assert house.script.cancelled == [1]
    close(house)


def test_one_that_waits_can_be_cancelled_before_it_begins(house: House) -> None:
    ears = [house.ask("가" * 5)[0] for _ in range(2)]
    _, cancel = house.ask("나")
    cancel()
    house.steps(1000)
    assert [ear.end() for ear in ears] == [Done("stop", 5)] * 2
    close(house)
    assert house.script.count == 2, "it never reached the model"


def test_a_stop_text_ends_the_answer_and_frees_the_slot(house: House) -> None:
    ear, _ = house.ask("답#끝나지않음", until=("#",))
    house.steps(1000)
    assert ear.end() == Done("stop", 2)
    assert ear.text == "답"
    assert house.script.cancelled == [1]
    close(house)


def test_time_ends_those_that_write_and_those_that_wait() -> None:
    house = House(slots=1)
    slow, _ = house.ask("가" * 50, seconds=5)
    waits, _ = house.ask("나", seconds=5)
    patient, _ = house.ask("다", seconds=100)
    house.steps(1)
    assert slow.begun.wait(10)
    house.now = 6.0
    house.steps(1000)
    assert slow.end() == Failed("late")
    assert waits.end() == Failed("never-began")
    assert patient.end() == Done("stop", 1)
    close(house)


def test_stopping_takes_nothing_more_and_lets_answers_end(house: House) -> None:
    ear, _ = house.ask("가나다")
    house.scheduler.stop(10)
    with pytest.raises(Stopping):
        house.ask("라")
    house.steps(1000)
    assert ear.end() == Done("stop", 3)
    close(house)


def test_stopping_has_an_end(house: House) -> None:
    ear, _ = house.ask("가" * 50)
    house.scheduler.stop(10)
    house.now = 11.0
    house.steps(1000)
    assert ear.end() == Failed("stopping")
    close(house)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_model_that_breaks_is_told_to_everyone(house: House) -> None:
    ended = threading.Event()
    house.scheduler.on_break = ended.set
    house.script.breaks = True
    ears = [house.ask("가나다")[0] for _ in range(3)]
    house.steps(1)
    assert [ear.end() for ear in ears] == [Failed("broken")] * 3
    assert ended.wait(10)
    assert isinstance(house.scheduler.broken, ZeroDivisionError)
    with pytest.raises(Stopping):
        house.ask("라")
    house.scheduler.close()


def test_what_is_counted(house: House) -> None:
    house.ask("가나")[0]
    house.steps(1000)
    house.ask("다")[0].end()
    close(house)
    page = house.metrics.page().decode()
    assert 'koalpaca_answers_total{end="stop",model="m"} 2.0' in page
    assert 'koalpaca_new_tokens_total{model="m"} 3.0' in page
    assert 'koalpaca_prompt_tokens_total{model="m"} 3.0' in page
    assert "koalpaca_live 0.0" in page
