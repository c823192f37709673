"""The session over transformers' own modules writes what the engine's writes: adapters, sampling, stops."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from koalpaca_tune.inference.decoding import Sampling
from koalpaca_tune.inference.generation.request import Request
from koalpaca_tune.inference.plain_session import PlainSession
from koalpaca_tune.inference.sessions import open_session
from koalpaca_tune.models.base import Loaded
from koalpaca_tune.serving.jobs import Writer


def all_of(writer: Writer, requests: Sequence[Request]) -> list[list[tuple[int, str | None]]]:
    tickets = [writer.add(request) for request in requests]
    found: dict[int, list[tuple[int, str | None]]] = {ticket: [] for ticket in tickets}
    with torch.inference_mode():
        while not all(found[ticket] and found[ticket][-1][1] for ticket in tickets):
            for token in writer.step():
                found[token.ticket].append((token.id, token.end))
    return [found[ticket] for ticket in tickets]


def test_the_same_tokens_by_both(tuned: tuple[object, Loaded, list[str]]) -> None:
    model, loaded, names = tuned
    fast = open_session(model, loaded, names, slots=4, room=64, obstacle=None)
    slow = open_session(model, loaded, names, slots=4, room=64, obstacle="asked for")
    assert isinstance(slow.writer, PlainSession)
    assert "asked for" in slow.engine
    ids = tuple(loaded.vocabulary.backend.encode("비 오는 날에는").ids)
    warm = Sampling(0.9, 0.8, 3)
    requests = [
        Request(ids, 6, ()),
        Request(ids, 6, (), None, names[0]),
        Request(ids, 6, (), warm, names[1]),
        Request(ids[:2], 4, (), warm),
    ]
    wanted = all_of(fast.writer, requests)
    assert all_of(slow.writer, requests) == wanted
    assert [one[-1][1] for one in wanted] == ["length"] * 4
    stop = wanted[1][2][0]
    stopped = all_of(slow.writer, [Request(ids, 6, (stop,), None, names[0])])[0]
    assert stopped[-1] == (stop, "stop")
    assert len(stopped) <= 3


def test_one_that_is_given_up_is_not_heard_of_again(tuned: tuple[object, Loaded, list[str]]) -> None:
    model, loaded, _ = tuned
    writer = PlainSession(model)
    ids = tuple(loaded.vocabulary.backend.encode("하나").ids)
    kept, gone = (writer.add(Request(ids, 3)) for _ in range(2))
    with torch.inference_mode():
        writer.step()
        writer.cancel(gone)
        assert {token.ticket for token in writer.step()} == {kept}
