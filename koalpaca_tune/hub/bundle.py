"""What goes to the Hub: by kind of folder a closed list of files, looked through before anything is shown.

JSON goes as scrubbed copies: what a record knows of this machine's folders stays here. Whatever else lies in the
folder stays here too, and is named; what nobody can place stops the command.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from koalpaca_tune import jsonl
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.hub import facts, weights
from koalpaca_tune.hub.public import is_hub_name, scrub
from koalpaca_tune.models import sources

CARD = "README.md"
PICTURES = "card"
"""Folder of the card's plots, beside it."""

COMPARISON = "comparison.json"
EVALUATION = "evaluation"
"""Where a report lies in the repository of the model that it is about."""

PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"})
SECRET = re.compile(rb"hf_[A-Za-z0-9]{20,}")

Kind = Literal["adapter", "model", "dataset", "report"]


@dataclass(frozen=True)
class Piece:
    """One file as it goes.

    Attributes:
        name: its path in the repository.
        path: the file on this machine, where it goes as it is.
        content: the bytes, where they are a copy made for the Hub.
        size: bytes.
        changed: the file's time of change, in nanoseconds; 0 for a copy.
    """

    name: str
    path: Path | None
    content: bytes | None
    size: int
    changed: int = 0


class Bundle(NamedTuple):
    """A folder as it would be sent.

    Attributes:
        kind: what it is.
        pieces: what goes, in the order in which it is shown.
        stays: names of files that lie there and do not go.
        repo: user/name that the record says, if any.
    """

    kind: Kind
    pieces: tuple[Piece, ...]
    stays: tuple[str, ...]


class _Layout(NamedTuple):
    """Which files of a folder go and which may stay behind; a name that is neither is refused."""

    needed: tuple[str, ...]
    goes: re.Pattern[str]
    stays: re.Pattern[str]
    fix: str


_NONE = re.compile(r"(?!)")
_LAYOUTS: Mapping[Kind, _Layout] = {
    "adapter": _Layout(
        (CARD, facts.CONFIG, facts.WEIGHTS, facts.RECORD),
        re.compile(r"README\.md|adapter_config\.json|adapter_model\.safetensors|record\.json|card/[a-z-]+\.svg"),
        _NONE,
        "Give the 'adapter' folder of a run (runs/NAME/adapter).",
    ),
    "model": _Layout(
        (CARD, "config.json", "tokenizer_config.json"),
        re.compile(
            r"README\.md|record\.json|card/[a-z-]+\.svg|(generation_)?config\.json|chat_template\.jinja"
            r"|model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json"
            r"|tokenizer\.(json|model)|tokenizer_config\.json|special_tokens_map\.json|added_tokens\.json"
            r"|vocab\.json|merges\.txt"
        ),
        _NONE,
        "Give the --out folder of `koalpaca merge`.",
    ),
    "dataset": _Layout(
        (CARD, "train.jsonl", "report.json"),
        re.compile(r"README\.md|(train|valid)\.jsonl|report\.json"),
        re.compile(r"(rejected|quality)\.jsonl|report\.(html|md)"),
        "Give the --out folder of `koalpaca data prepare`.",
    ),
    "report": _Layout(
        (COMPARISON, "report.md", "report.html"),
        re.compile(r"comparison\.json|report\.(md|html)"),
        re.compile(r"items\.jsonl"),
        "Give the --out folder of `koalpaca compare`.",
    ),
}

_MARKS: Mapping[str, Kind] = {
    facts.CONFIG: "adapter",
    facts.WEIGHTS: "adapter",
    COMPARISON: "report",
    "config.json": "model",
    "train.jsonl": "dataset",
}


def kind_of(folder: Path) -> Kind:
    """What a folder holds, by the file that only this kind has.

    Raises:
        KoalpacaError: none of the four, or no folder (hub-kind).
    """
    if not folder.is_dir():
        raise KoalpacaError("hub-kind", "there is no such folder.", where=str(folder), fix="Check the path.")
    found = next((kind for name, kind in _MARKS.items() if (folder / name).is_file()), None)
    if found is None:
        raise KoalpacaError(
            "hub-kind",
            "it is neither an adapter, nor a merged model, nor prepared data, nor a comparison.",
            where=str(folder),
            fix="Give runs/NAME/adapter, or the --out folder of koalpaca merge, data prepare or compare.",
        )
    return found


def collect(folder: Path) -> Bundle:
    """Looks through a folder and makes the copies that go.

    Raises:
        KoalpacaError: nothing that is sent (hub-kind), not whole (adapter-missing, card-record, hub-incomplete,
            hub-adapter-damaged, hub-card-missing), a base that nobody can load (hub-local-base), a file that
            cannot be placed (hub-pickle, hub-extra-file), a token (hub-secret) or a folder of this machine
            (hub-leak) in a text.
    """
    kind = kind_of(folder)
    layout = _LAYOUTS[kind]
    if kind == "adapter":
        check_base(facts.read(folder).record["base"]["path"], folder)
    names = sorted(_names(folder))
    _check_names(folder, names, layout, kind)
    going = [name for name in names if layout.goes.fullmatch(name)]
    if kind in ("adapter", "model"):
        weights.check(folder, going, kind)
    pieces = tuple(_piece(folder, name, kind) for name in going)
    for piece in pieces:
        _check_text(folder, piece)
    return Bundle(kind, pieces, tuple(name for name in names if name not in going))


def check_base(base: str, folder: Path) -> None:
    """An adapter is of use only with its base.

    Raises:
        KoalpacaError: the base is not on the Hub (hub-local-base).
    """
    if is_hub_name(base):
        return
    kind = "the base in this package" if base == sources.EMBEDDED else "a folder of this machine"
    raise KoalpacaError(
        "hub-local-base",
        f"its base '{base}' is {kind}: nobody could load the adapter from the Hub.",
        where=str(folder),
        fix="Train on a base of the Hub, or merge (koalpaca merge) and publish the merged model.",
    )


def _names(folder: Path) -> Iterator[str]:
    for entry in folder.iterdir():
        if entry.name == PICTURES and entry.is_dir():
            yield from (f"{PICTURES}/{inner.name}" for inner in entry.iterdir())
        else:
            yield entry.name


def _check_names(folder: Path, names: list[str], layout: _Layout, kind: Kind) -> None:
    pickles = [name for name in names if Path(name).suffix in PICKLES]
    if pickles:
        raise KoalpacaError(
            "hub-pickle",
            f"'{pickles[0]}' is a pickle, which can run code when it is loaded.",
            where=str(folder),
            fix="Delete it; the weights are in the .safetensors file.",
        )
    placed = [name for name in names if layout.goes.fullmatch(name) or layout.stays.fullmatch(name)]
    extra = [name for name in names if name not in placed or not (folder / name).is_file()]
    if extra:
        raise KoalpacaError(
            "hub-extra-file",
            f"'{extra[0]}' is not one of the files of a published {kind}.",
            where=str(folder),
            fix="Move it out of the folder.",
        )
    missing = [name for name in layout.needed if name not in names]
    if missing == [CARD]:
        raise KoalpacaError(
            "hub-card-missing",
            f"there is no card ({CARD}).",
            where=str(folder),
            fix=f"Run `koalpaca hub card {folder}` first.",
        )
    if missing:
        raise KoalpacaError(
            "hub-incomplete",
            f"there is no {next(name for name in missing if name != CARD)} in the folder.",
            where=str(folder),
            fix=layout.fix,
        )


_PLACES = ("_name_or_path", "name_or_path", "tokenizer_file")
"""Keys of transformers' files that hold a folder of the machine they were written on."""


def _without_places(value: Any) -> Any:
    """A file of transformers'; its other texts may begin with a slash and be a token."""
    return {name: scrub(inner) if name in _PLACES else inner for name, inner in value.items()}


_COPIED: Mapping[tuple[Kind, str], Callable[[Any], Any]] = {
    ("adapter", facts.CONFIG): scrub,
    ("adapter", facts.RECORD): scrub,
    ("model", facts.RECORD): scrub,
    ("model", "config.json"): _without_places,
    ("model", "tokenizer_config.json"): _without_places,
    ("dataset", "report.json"): scrub,
    ("report", COMPARISON): scrub,
}
"""JSON that is sent as a copy, and what makes the copy."""


def _piece(folder: Path, name: str, kind: Kind) -> Piece:
    path, target = folder / name, f"{EVALUATION}/{name}" if kind == "report" else name
    scrubbed = _COPIED.get((kind, name))
    if scrubbed is not None:
        value = jsonl.read_json(path)
        content = (json.dumps(scrubbed(value), ensure_ascii=False, indent=2) + "\n").encode()
        return Piece(target, None, content, len(content))
    found = path.stat()
    return Piece(target, path, None, found.st_size, found.st_mtime_ns)


def _check_text(folder: Path, piece: Piece) -> None:
    """No token and no folder of this machine in what people will read."""
    if piece.name.endswith(".safetensors"):
        return
    where = str(folder / Path(piece.name).name)
    places = [place.encode() for place in _here(folder)]
    for block in _blocks(piece):
        if SECRET.search(block):
            raise KoalpacaError(
                "hub-secret",
                "it holds something that looks like a Hugging Face token.",
                where=where,
                fix="Take it out, and revoke the token if it is real.",
            )
        told = next((place for place in places if place in block), None)
        if told is not None:
            raise KoalpacaError(
                "hub-leak",
                f"it names a folder of this machine ('{told.decode(errors='replace')}').",
                where=where,
                fix="Make the file again with a relative path or a name of the Hub, or take the folder out of it.",
            )


def _here(folder: Path) -> set[str]:
    """Folders that are this machine's and nobody else's: home, the working folder, the folder itself."""
    found = {Path.home(), Path.cwd(), folder.resolve().parent}
    # a short one (/, /root, /work) may stand in any text
    return {str(place) for place in found if len(place.parts) > 2}


def _blocks(piece: Piece) -> Iterator[bytes]:
    """The content, in blocks that overlap by more than a token or a path is long."""
    if piece.content is not None:
        yield piece.content
        return
    assert piece.path is not None
    with piece.path.open("rb") as file:
        kept = b""
        while block := file.read(1 << 20):
            yield kept + block
            kept = block[-1024:]
