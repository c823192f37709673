"""The base of a published adapter: which one it is, and whether the adapter's matrices are made for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

from safetensors import safe_open

from koalpaca_tune import jsonl
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.hub.public import is_hub_name
from koalpaca_tune.models import sources
from koalpaca_tune.planner import shape

if TYPE_CHECKING:
    from koalpaca_tune.hub.remote import Remote


class Told(NamedTuple):
    """A base as it was found.

    Attributes:
        path: its name on the Hub, 'embedded', or the folder that the user gave.
        revision: its commit on the Hub; None for a folder.
        fingerprint: as `models.sources.fingerprint`.
        config: its config.json.
    """

    path: str
    revision: str | None
    fingerprint: str
    config: Mapping[str, Any]


def of_config(remote: Remote, config: Mapping[str, Any], given: str | None) -> Told:
    """The base that the user gives, else the one that adapter_config.json names.

    Raises:
        KoalpacaError: there is no name, or one of the publisher's own machine (pull-base), or the base cannot be
            read (hub-read).
    """
    named = config.get("base_model_name_or_path")
    if given is not None:
        return _find(remote, given, None)
    if not isinstance(named, str) or not is_hub_name(named):
        said = f"names '{named}', which is not on the Hub" if named else "names no base"
        raise KoalpacaError(
            "pull-base",
            f"its adapter_config.json {said}.",
            where=remote.repo,
            fix="Give the base that it was trained on with --base.",
        )
    revision = config.get("revision")
    return _find(remote, named, revision if isinstance(revision, str) else None)


def of_record(remote: Remote, record: Mapping[str, Any], given: str | None) -> Told:
    """The base that our record names, at its commit; one that the user gives must be the same.

    Raises:
        KoalpacaError: as `of_config`, or another base is given (adapter-wrong-base).
    """
    there = record["base"]
    if given is None and not (there["path"] == sources.EMBEDDED or is_hub_name(there["path"])):
        raise KoalpacaError(
            "pull-base",
            f"it was trained on '{there['path']}', which is not on the Hub.",
            where=remote.repo,
            fix="Give your copy of that base with --base.",
        )
    same = given is None or given == there["path"]
    told = _find(remote, given or there["path"], there.get("revision") if same else None)
    if told.fingerprint != there["fingerprint"]:
        raise KoalpacaError(
            "adapter-wrong-base",
            f"the adapter was trained on {there['path']} ({there['fingerprint']}), this is {told.path} "
            f"({told.fingerprint}).",
            where=remote.repo,
            fix="Give the base that the adapter was trained on.",
        )
    return told


def _find(remote: Remote, path: str, revision: str | None) -> Told:
    located = sources.locate(path)
    if Path(located).is_dir():
        config = jsonl.read_json(Path(located) / "config.json")
        return Told(path, None, sources.fingerprint(path, None, None), config)
    with remote.reading(path):
        commit = remote.commit_of(path, revision)
        config = jsonl.read_json(Path(remote.config_of(path, commit)))
    return Told(path, commit, sources.fingerprint(path, commit, None), config)


def check_fit(weights: Path, told: Told) -> None:
    """Every matrix of the adapter has a linear module of the base, of its width.

    Args:
        weights: adapter_model.safetensors, checked already to hold A and B matrices and nothing else.
        told: the base.

    Raises:
        KoalpacaError: the base is of a family that is not ours (architecture-unknown), its config is none
            (base-config, base-load), or a matrix has no place in it (pull-fit).
    """
    with sources.Reading(told.path):
        # somebody else's config may hold anything
        found = shape.of_config(SimpleNamespace(**told.config))
        widths = {name: (width, out) for width, members in found.linears for name, out in members}
    with safe_open(weights, framework="np") as file:
        for name in file.keys():  # noqa: SIM118 - not a mapping
            *path, target, part, _ = name.split(".")
            size = file.get_slice(name).get_shape()[part == "lora_A"]
            layers = [int(step) for step in path if step.isdecimal()]
            wanted = widths.get(target, (None, None))[part != "lora_A"]
            if size != wanted or not all(layer < found.layers for layer in layers):
                raise KoalpacaError(
                    "pull-fit",
                    f"'{name[:120]}' has no place in {told.path} ({found.layers} layers of width {found.hidden}).",
                    where=weights.name,
                    fix="Give the base that the adapter was trained on with --base.",
                )
