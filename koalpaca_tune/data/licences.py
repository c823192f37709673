"""Licences on their way: from the inputs of a preparation, through report.json and the run, to the model card.

Whether a model is an adaptation of its training data is not settled in law. So nothing is forbidden
here, and nothing is silent: what is known, what is not, and what does not fit is said in words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from koalpaca_tune import jsonl
from koalpaca_tune.config.preparation import Input
from koalpaca_tune.data import sources
from koalpaca_tune.data.sources import PREFIX, Source
from koalpaca_tune.data.terms import UNKNOWN, Flag, Said, terms
from koalpaca_tune.korean import particle

REPORT = "report.json"


@dataclass(frozen=True, slots=True)
class Taken:
    """What a preparation took from one input.

    Attributes:
        name: source name of its records.
        given: the input, as read.
        source: name of the described set, where the input came from one (`sources.Use.source`).
        records: how many were written; None: not counted.
        revision: the commit that was read, where the reader found it out; None: what the input says.
    """

    name: str
    given: Input
    source: str | None
    records: int | None
    revision: str | None = None


def entries(taken: Iterable[Taken]) -> list[dict[str, Any]]:
    """The `sources` of report.json: one entry for each source name, licence and revision, in order."""
    return merged(map(_entry, taken))


def merged(given: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Entries that differ in their records only, added up; in order."""
    made: list[dict[str, Any]] = []
    for entry in given:
        known = next((other for other in made if {**other, "records": 0} == {**entry, "records": 0}), None)
        if known is None:
            made.append(entry)
        elif entry["records"] is not None:
            known["records"] = (known["records"] or 0) + entry["records"]
    return made


def _entry(one: Taken) -> dict[str, Any]:
    given, source = one.given, _described(one)
    licence = given.licence or (source.licence if source else UNKNOWN)
    # a licence that the user states stands for itself: what the description says of another one does not hold
    known = source.terms if source and not given.licence else terms(licence)
    on_hub = given.path.startswith("hf:")
    return {
        "name": one.name,
        "set": source.name if source else None,
        "title": source.title if source else one.name,
        "licence": licence,
        "stated_by": "preparation" if given.licence else "data/sources" if source else None,
        "noncommercial": known.noncommercial,
        "sharealike": known.sharealike,
        "noderivatives": known.noderivatives,
        "obligations": [said.model_dump() for said in known.obligations],
        "made_with": list(source.made_with) if source else [],
        "translated": source.translated if source else UNKNOWN,
        "revision": (one.revision or given.revision) if on_hub else None,
        "url": source.url if source else (given.path if on_hub else None),
        "records": one.records,
    }


def _described(one: Taken) -> Source | None:
    if one.source is not None:
        return sources.load(one.source)
    if one.given.path.startswith(PREFIX):
        return sources.load(one.given.path.removeprefix(PREFIX).partition("/")[0])
    return sources.of_hub(one.given.path.removeprefix("hf:")) if one.given.path.startswith("hf:") else None


def of_training(train: Path) -> list[dict[str, Any]]:
    """The sources of a training set, as report.json beside it says, with the records that it really holds.

    The names of the sources are read from the records themselves, so that a file that was changed since is
    not taken for what the report describes: a name that the report does not know has no known licence.
    Without a report, the file itself is the only source, its licence unknown.

    Args:
        train: the file that is trained on.

    Raises:
        KoalpacaError: there is a report, but it is not JSON (json-file), or the training file is not JSON
            Lines (jsonl-*).
    """
    report = train.parent / REPORT
    if train.suffix != ".jsonl" or not report.is_file():
        return entries([Taken(train.stem, _own(train.stem), None, None)])
    stored = jsonl.read_json(report).get("sources")
    known = [entry for entry in stored if _whole(entry)] if isinstance(stored, list) else []
    counts = Counter(_name(row, train) for _, row in jsonl.read(train))
    found = [entry for entry in known if entry["name"] in counts]
    several = Counter(entry["name"] for entry in found)
    made = [{**e, "records": counts[e["name"]] if several[e["name"]] == 1 else e["records"]} for e in found]
    for name, records in counts.items():
        if name not in several:
            made += entries([Taken(name, _own(name), None, records)])
    return made


def _own(name: str) -> Input:
    return Input.model_validate({"path": name})


def _name(row: Mapping[str, Any], train: Path) -> str:
    name = row.get("source")
    return name if isinstance(name, str) and name else train.stem


def _whole(entry: Any) -> bool:
    needed = {"name": str, "licence": str, "records": int, "obligations": list}
    return isinstance(entry, dict) and all(isinstance(entry.get(key), kind) for key, kind in needed.items())


def warnings(found: Sequence[Mapping[str, Any]]) -> list[Said]:
    """What should be said when these sources are used: not commercial, not known, not pinned."""
    said = []
    for entry in found:
        name = entry["name"]
        if entry.get("noncommercial") is True:
            said.append(
                Said(
                    ko=f"{name}: 상업적으로 쓸 수 없는 데이터입니다({entry['licence']}).",
                    en=f"{name}: the data is not for commercial use ({entry['licence']}).",
                )
            )
        elif _unknown(entry):
            said.append(
                Said(
                    ko=f"{name}: 상업적으로 써도 되는지 확인되지 않았습니다(라이선스: {_licence(entry)}).",
                    en=f"{name}: whether commercial use is allowed is not known (licence: {entry['licence']}).",
                )
            )
        if entry.get("url") and entry.get("revision") is None:
            said.append(
                Said(
                    ko=f"{name}: 판(revision)이 고정되지 않아 다음에는 다른 내용일 수 있습니다.",
                    en=f"{name}: no revision is pinned, so its content may differ next time.",
                )
            )
    return said


def conflicts(licence: str | None, found: Sequence[Mapping[str, Any]]) -> list[Said]:
    """Where the licence that an adapter declares does not fit those of its data.

    Args:
        licence: of the adapter; None: it declares none, and nothing can conflict.
        found: the sources, as `of_training` gives them.
    """
    if licence is None:
        return []
    mine = terms(licence)
    said = []
    for entry in found:
        name, theirs, shown = entry["name"], entry["licence"], _licence(entry)
        topic = f"{name}{particle(name, '은/는')}"
        if entry.get("noncommercial") is True and mine.noncommercial is not True:
            said.append(
                Said(
                    ko=f"어댑터의 라이선스는 {licence}인데, {topic} 상업적으로 쓸 수 없습니다({theirs}).",
                    en=f"The adapter declares {licence}, but {name} is not for commercial use ({theirs}).",
                )
            )
        if entry.get("sharealike") is True and licence.upper() != theirs.upper():
            said.append(
                Said(
                    ko=f"어댑터의 라이선스는 {licence}인데, {topic} 같은 라이선스로 나누라고 합니다({theirs}).",
                    en=f"The adapter declares {licence}, but {name} asks for its own licence ({theirs}).",
                )
            )
        if entry.get("noderivatives") is True:
            said.append(
                Said(
                    ko=f"{topic} 바꾸어 나눌 수 없는 데이터입니다({theirs}). 나누기 전에 권리자에게 확인하세요.",
                    en=f"{name} may not be shared in changed form ({theirs}). Ask the rights holder first.",
                )
            )
        if _unknown(entry):
            said.append(
                Said(
                    ko=f"어댑터의 라이선스는 {licence}인데, {name}의 조건은 다 확인되지 않았습니다({shown}).",
                    en=f"The adapter declares {licence}; the terms of {name} are not all known ({theirs}).",
                )
            )
    return said


def _unknown(entry: Mapping[str, Any]) -> bool:
    flags: list[Flag] = [entry.get(key, UNKNOWN) for key in ("noncommercial", "sharealike", "noderivatives")]
    return entry["licence"] == UNKNOWN or UNKNOWN in flags


def _licence(entry: Mapping[str, Any]) -> str:
    return "알 수 없음" if entry["licence"] == UNKNOWN else str(entry["licence"])
