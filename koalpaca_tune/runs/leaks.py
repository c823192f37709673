"""Whether an adapter was trained on items that it is judged by: its training file held against the items."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from koalpaca_tune.data.load import conversations
from koalpaca_tune.data.overlap.contamination import Protected
from koalpaca_tune.data.overlap.text import near_text
from koalpaca_tune.evaluation.jobs import Loaded
from koalpaca_tune.runs import record

LOT = 512


@dataclass(frozen=True)
class Leaks:
    """What the training file holds of the items.

    Attributes:
        items: task -> items that overlap with a record; None where the file that the adapter was trained on is not
            here, or is another by now.
        path, sha256: the file, as the adapter's record says.
        looked: where it was looked for.
        changed: of these, the first that is there and holds something else; None where none is there.
    """

    items: dict[str, int] | None
    path: str
    sha256: str
    looked: tuple[str, ...] = ()
    changed: str | None = None


def of(adapter: Path, loaded: Loaded) -> Leaks:
    """Looks for all items in the file that an adapter was trained on, known by its hash.

    Raises:
        KoalpacaError: the adapter is none of ours (adapter-missing), or a row of the file is broken.
    """
    entry, recipe = record.of_adapter(adapter)
    train = (entry.get("data") or {}).get("train") or {}
    path, digest = str(train.get("path") or recipe.data.train), str(train.get("sha256") or "")
    places = _places(Path(path), adapter.resolve().parent, Path(recipe.out or f"runs/{recipe.name}"))
    looked = tuple(map(str, places))
    there = [place for place in places if place.is_file()]
    file = next((place for place in there if record.sha256(place) == digest), None)
    if file is None:
        return Leaks(None, path, digest, looked, str(there[0]) if there else None)
    material = {task.name: [(item.id, item.material) for item in chosen.items] for task, chosen in loaded}
    protected = Protected.of(material)
    found: dict[str, set[str]] = {name: set() for name in material}
    records = conversations(file)
    while lot := [near_text(conversation) for conversation in islice(records, LOT)]:
        for leaks in protected.hits(lot):
            for leak in leaks:
                found[leak.task].add(leak.item)
    return Leaks({name: len(ids) for name, ids in found.items()}, path, digest, looked)


def _places(path: Path, run: Path, out: Path) -> list[Path]:
    """Where a training file may lie: as it was named, and from the run folder where that was taken elsewhere.

    Args:
        path: as the record names it, from the folder that the training was started in.
        run: the run folder.
        out: what the recipe called it.
    """
    found = [path]
    if not path.is_absolute():
        if not out.is_absolute() and run.parts[-len(out.parts) :] == out.parts:
            # the folder that the training was started in
            found.append(Path(*run.parts[: -len(out.parts)]) / path)
        found.append(run / path)
    found += [run / path.name, run.parent / path.name]
    return list({str(one.absolute()): one for one in found}.values())
