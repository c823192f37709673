"""A published adapter brought here: looked at before it is downloaded, checked before it is believed.

Three files are taken and no others: the config, the weights as safetensors, and our record where there is one. A
pickle is never downloaded, a config may say plain LoRA and nothing else, and the matrices must be those of the base
that the adapter names. An adapter of somebody else's tools gets a record that says what is known of it, so that
every command takes it as one of ours, and no card can be made of what nobody knows.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from koalpaca_tune import jsonl
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.hub import bases, facts, foreign
from koalpaca_tune.hub.bases import Told
from koalpaca_tune.hub.bundle import PICKLES, Piece
from koalpaca_tune.hub.public import check_repo
from koalpaca_tune.hub.push import MAIN
from koalpaca_tune.hub.remote import LARGEST_TEXT, Remote, quiet
from koalpaca_tune.hub.state import State
from koalpaca_tune.models import adapter_files

LARGEST_WEIGHTS = 16 << 30
"""Bytes that the weights may have: r 1,024 on every linear of a 12.8B base comes to about 9 GiB in float32."""

MARGIN = 64 << 20
"""Bytes of the disk that are left free."""


@dataclass(frozen=True)
class Choice:
    """What the publisher did not say and the user does.

    Attributes:
        base: name or folder of the base, in place of the one that the adapter names.
        template: prompt template of an adapter without our record.
        four_bit: whether such an adapter's base is read in 4 bits; None: it is not.
    """

    base: str | None = None
    template: str | None = None
    four_bit: bool | None = None


@dataclass(frozen=True)
class Pulled:
    """An adapter that lies here now.

    Attributes:
        folder: where.
        commit: which commit of the repository.
        files: (name, bytes).
        base: the base that it belongs to.
        record: its record, ours or made here.
        ours: whether the record came with it.
        plain: rank, scale and targets.
        left: names of files of the repository that were not taken.
        here_before: whether the folder held this commit already.
    """

    folder: Path
    commit: str
    files: tuple[tuple[str, int], ...]
    base: Told
    record: dict[str, Any]
    ours: bool
    plain: adapter_files.Plain
    left: tuple[str, ...]
    here_before: bool = False

    @property
    def unread(self) -> bool:
        """Whether the repository has a record.json that is not ours, or of a version that is not read here."""
        return not self.ours and any(name == facts.RECORD for name, _ in self.files)


def pull(
    repo: str,
    out: Path,
    choice: Choice,
    *,
    revision: str | None = None,
    token: str | None = None,
    endpoint: str | None = None,
    say: Callable[[str], None] = lambda what: None,
) -> Pulled:
    """Downloads an adapter into a new folder, whole or not at all.

    Args:
        repo: user/name.
        out: a folder that is not there yet, or that holds the same commit.
        choice: what the user says about it.
        revision: branch, tag or commit; None: the newest of main.
        token: for a private repository.
        endpoint: another Hub than the configured one.
        say: told each stage.

    Raises:
        KoalpacaError: no name (hub-repo), nothing that can be read there (hub-read), no adapter or only a pickle
            (pull-adapter), too large (pull-size) or no room (pull-space), a folder that is something else
            (pull-out), another content than the Hub says (pull-differs), more than plain LoRA (adapter-config),
            broken weights (adapter-load), no base (pull-base) or one that the matrices do not fit (pull-fit), or
            no template (pull-template).
    """
    check_repo(repo)
    remote = Remote(repo, "model", revision or MAIN, token, endpoint)
    with remote.reading():
        state = remote.state()
    _check_listed(repo, state)
    if out.exists():
        return _again(remote, state, out, choice)
    names = _taken(state)
    _check_space(out, sum(state.files[name].size for name in names))
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as aside:
        folder = Path(aside) / "adapter"
        folder.mkdir()
        say(f"받는 중 (downloading): {sum(state.files[name].size for name in names):,} bytes")
        with remote.reading(), quiet(state.files[facts.WEIGHTS].size):
            for name in names:
                fetched = Path(remote.fetch(name, state.head, aside))
                _check_content(repo, fetched, state, name)
                fetched.replace(folder / name)
        plain = adapter_files.read(folder)
        record, told = _record(remote, folder, choice)
        bases.check_fit(folder / facts.WEIGHTS, told)
        record["pulled"] = {"repo": repo, "commit": state.head}
        jsonl.write_json(folder / facts.RECORD, record)
        folder.rename(out)
    return _pulled(out, state, told, record, plain, here_before=False)


def _again(remote: Remote, state: State, out: Path, choice: Choice) -> Pulled:
    """A folder that is there already: it must be what would be downloaded.

    Raises:
        KoalpacaError: it is something else (pull-out).
    """
    path = out / facts.RECORD
    record = jsonl.read_json(path) if path.is_file() else {}
    wanted = {"repo": remote.repo, "commit": state.head}
    whole = all((out / name).is_file() for name in (facts.CONFIG, facts.WEIGHTS))
    if record.get("pulled") != wanted or not whole:
        raise KoalpacaError(
            "pull-out",
            "it exists and holds something else.",
            where=str(out),
            fix="Give a new folder with --out.",
        )
    for name in (facts.CONFIG, facts.WEIGHTS):
        _check_content(remote.repo, out / name, state, name)
    told = bases.of_record(remote, record, choice.base)
    return _pulled(out, state, told, record, adapter_files.read(out), here_before=True)


def _pulled(
    out: Path, state: State, told: Told, record: dict[str, Any], plain: adapter_files.Plain, *, here_before: bool
) -> Pulled:
    names = _taken(state)
    return Pulled(
        folder=out,
        commit=state.head,
        files=tuple((name, state.files[name].size) for name in names),
        base=told,
        record=record,
        ours=foreign.MARK not in record,
        plain=plain,
        left=tuple(sorted(name for name in state.files if name not in names)),
        here_before=here_before,
    )


def _taken(state: State) -> list[str]:
    return [name for name in (facts.CONFIG, facts.WEIGHTS, facts.RECORD) if name in state.files]


def _check_listed(repo: str, state: State) -> None:
    """What the Hub says of the files, before any is downloaded.

    Raises:
        KoalpacaError: pull-adapter, pull-size.
    """
    for name in (facts.CONFIG, facts.WEIGHTS):
        if name in state.files:
            continue
        pickle = next((other for other in sorted(state.files) if Path(other).suffix in PICKLES), None)
        whole = "config.json" in state.files and facts.CONFIG not in state.files
        said = f", only the pickle '{pickle}', which can run code when it is loaded" if pickle else ""
        raise KoalpacaError(
            "pull-adapter",
            f"there is no {name}{said}.",
            where=repo,
            fix="It is a whole model: give its name as BASE."
            if whole
            else "Ask the publisher for safetensors."
            if pickle
            else "Give the repository of a PEFT adapter.",
        )
    for name, most in (
        (facts.CONFIG, LARGEST_TEXT),
        (facts.RECORD, LARGEST_TEXT),
        (facts.WEIGHTS, LARGEST_WEIGHTS),
    ):
        entry = state.files.get(name)
        if entry is not None and entry.size > most:
            raise KoalpacaError(
                "pull-size",
                f"its {name} has {entry.size:,} bytes; an adapter's has {most:,} at most.",
                where=repo,
                fix="Look at the repository: this is no LoRA adapter.",
            )


def _check_space(out: Path, size: int) -> None:
    folder = next(parent for parent in out.absolute().parents if parent.is_dir())
    free = shutil.disk_usage(folder).free
    if size + MARGIN > free:
        raise KoalpacaError(
            "pull-space",
            f"the adapter takes {size / 2**20:,.0f} MiB, {free / 2**20:,.0f} MiB are free.",
            where=str(out),
            fix="Make room, or give --out on another disk.",
        )


def _check_content(repo: str, path: Path, state: State, name: str) -> None:
    if not state.files[name].holds(Piece(name, path, None, path.stat().st_size)):
        raise KoalpacaError(
            "pull-differs",
            f"'{name}' as it came is not what the Hub says of it.",
            where=repo,
            fix="Run the command again.",
        )


def _record(remote: Remote, folder: Path, choice: Choice) -> tuple[dict[str, Any], Told]:
    """The adapter's record, ours or made here, and its base."""
    config = jsonl.read_json(folder / facts.CONFIG)
    path = folder / facts.RECORD
    record = foreign.ours(path) if path.is_file() else None
    if record is not None:
        told = bases.of_record(remote, record, choice.base)
        foreign.check_idle(choice.template, choice.four_bit, remote.repo)
        return record, told
    told = bases.of_config(remote, config, choice.base)
    return foreign.record(remote.repo, config, told, choice.template, bool(choice.four_bit)), told
