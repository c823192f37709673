"""A base with several adapters, opened once for many requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.inference import sessions
from koalpaca_tune.models import adapter as adapters
from koalpaca_tune.models import base as bases
from koalpaca_tune.runs.adapters import Choices, check_base, choose
from koalpaca_tune.serving.jobs import Writer
from koalpaca_tune.serving.memory import room_of
from koalpaca_tune.serving.served import Model, Served
from koalpaca_tune.tokens.encode import Encoder

LONGEST_ROOM = 4096
"""Tokens of a text where nobody says: a slot's keys and values take memory for all of them."""


@dataclass(frozen=True)
class Opened:
    """What a server needs of a model.

    Attributes:
        served: the names.
        writer: for one thread.
        within: what that thread works within.
        engine: what computes, in a few words.
    """

    served: Served
    writer: Writer
    within: Callable[[], AbstractContextManager[object]]
    engine: str


def open_models(
    base: str,
    folders: Mapping[str, Path],
    *,
    name: str | None = None,
    template: str | None = None,
    four_bit: bool | None = None,
    trust_remote_code: bool = False,
    slots: int = 16,
    room: int | None = None,
    most_new_tokens: int = 1024,
) -> Opened:
    """Loads a base once, and puts adapters on it side by side.

    Args:
        base: as everywhere.
        folders: the adapters by the names that requests ask for.
        name: the base's own; None: as it is given.
        template: of the base alone; adapters have their own.
        four_bit: None: as the adapters were trained, or whole without one.
        trust_remote_code: see `adapters.choose`.
        slots: answers at a time.
        room: tokens of a prompt with its answer; None: the base's context, at most `LONGEST_ROOM`.
        most_new_tokens: of an answer.

    Raises:
        KoalpacaError: two models of one name (serve-name), adapters that want the base loaded in different ways
            (serve-adapters), more room than the base has (serve-room), or anything in loading.
    """
    shown = name or base
    if shown in folders:
        raise KoalpacaError(
            "serve-name", f"'{shown}' is the base's name already.", where="--adapter", fix="Name the base: --name."
        )
    chosen = {
        one: choose(base, folder, None, four_bit, trust_remote_code=trust_remote_code)
        for one, folder in folders.items()
    }
    _check_alike(chosen)
    first = next(iter(chosen.values()), None)
    alone = first or choose(base, None, template, four_bit, trust_remote_code=trust_remote_code)
    loaded = bases.load(alone.base, alone.quantization)
    room = _room(loaded.model, room)
    obstacle = sessions.obstacle_of(loaded)

    def model(name: str, template: str, adapter: str | None) -> Model:
        return Model(name, Encoder(loaded.vocabulary, loaded.vocabulary.template(template)), adapter)

    models = {shown: model(shown, template or alone.template, None)}
    whole: Any = None
    # PEFT's names may hold no dot
    inner = {one: f"served{n}" for n, one in enumerate(chosen)}
    for one, choices in chosen.items():
        assert choices.adapter is not None
        check_base(choices.adapter, base, loaded.fingerprint)
        whole = adapters.load(loaded, choices.adapter, name=inner[one], beside=whole)
        models[one] = model(one, choices.template, inner[one])
    opened = sessions.open_session(
        whole or loaded.model, loaded, tuple(inner.values()), slots=slots, room=room, obstacle=obstacle
    )
    return Opened(Served(models, room, most_new_tokens), opened.writer, opened.within, opened.engine)


def _room(model: Any, asked: int | None) -> int:
    most = room_of(model)
    if asked is not None and asked > most:
        raise KoalpacaError("serve-room", f"it is {asked}; the base has room for {most}.", where="--context")
    return min(most, LONGEST_ROOM) if asked is None else asked


def _check_alike(chosen: Mapping[str, Choices]) -> None:
    """All adapters must want the same base in the same precision: there is one in memory."""
    first: tuple[str, Choices] | None = None
    for name, choices in chosen.items():
        if first is None:
            first = name, choices
        elif (choices.base, choices.quantization) != (first[1].base, first[1].quantization):
            raise KoalpacaError(
                "serve-adapters",
                f"'{name}' and '{first[0]}' were trained on bases that are loaded in different ways.",
                where=str(choices.adapter),
                fix="Serve them apart.",
            )
