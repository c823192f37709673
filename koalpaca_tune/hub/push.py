"""Sending an adapter to the Hub: first what would go, exactly; then one commit, with a token, on request.

Only four files ever go. The two JSON files go as scrubbed copies: what the run's record knows of this
machine's folders stays here.
"""

from __future__ import annotations

import json
import re
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.hub import facts
from koalpaca_tune.hub.card import NAME as CARD
from koalpaca_tune.hub.public import check_repo, is_hub_name, scrub
from koalpaca_tune.models import sources

FILES = (CARD, facts.CONFIG, facts.WEIGHTS, facts.RECORD)
"""All that may be sent."""

PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"})
_SECRET = re.compile(rb"hf_[A-Za-z0-9]{20,}")


@dataclass(frozen=True)
class Plan:
    """What would be sent.

    Attributes:
        adapter: the adapter's folder.
        repo: user/name.
        private: whether the repository is, or is made, private.
        files: (name, bytes as sent), in the order of FILES.
    """

    adapter: Path
    repo: str
    private: bool
    files: tuple[tuple[str, int], ...]


def plan(adapter: Path, repo: str, private: bool) -> Plan:
    """Checks an adapter and lists what would be sent. Neither network nor token is needed.

    Raises:
        KoalpacaError: no repository name (hub-repo), not a whole adapter (adapter-missing, card-record,
            hub-adapter-damaged), no card (hub-card-missing), a base that nobody can load (hub-local-base), a
            file that would not be sent (hub-pickle, hub-extra-file), a token in a text (hub-secret).
    """
    check_repo(repo)
    files = facts.read(adapter)
    _check_base(files.record["base"]["path"], adapter)
    _check_folder(adapter)
    _check_weights(adapter / facts.WEIGHTS)
    texts = _texts(adapter, files)
    for name, content in texts.items():
        if _SECRET.search(content):
            raise KoalpacaError(
                "hub-secret",
                "it holds something that looks like a Hugging Face token.",
                where=str(adapter / name),
                fix="Take it out, and revoke the token if it is real.",
            )
    sizes = {name: len(content) for name, content in texts.items()}
    sizes[facts.WEIGHTS] = (adapter / facts.WEIGHTS).stat().st_size
    return Plan(adapter, repo, private, tuple((name, sizes[name]) for name in FILES))


def token() -> str:
    """The user's Hub token: HF_TOKEN, else that of `hf auth login`.

    Raises:
        KoalpacaError: there is none (hub-token).
    """
    from huggingface_hub import get_token

    found: str | None = get_token()
    if not found:
        raise KoalpacaError(
            "hub-token",
            "there is no Hugging Face token.",
            where="hub push",
            fix="Run `hf auth login`, or set HF_TOKEN to a token that may write.",
        )
    return found


def send(plan: Plan, token: str, *, endpoint: str | None = None) -> str:
    """Makes the repository where it is missing and sends the plan's files in one commit.

    Args:
        plan: of `plan`; its checks are made again.
        token: one that may write.
        endpoint: another Hub than the configured one.

    Returns:
        Address of the commit.

    Raises:
        KoalpacaError: an existing repository is public where private was asked, or the other way round
            (hub-visibility), network or Hub refused (hub-send), or what `plan` raises.
    """
    import huggingface_hub
    from huggingface_hub import CommitOperationAdd, errors

    _check_same(plan)
    files = _texts(plan.adapter, facts.read(plan.adapter))
    api = huggingface_hub.HfApi(endpoint=endpoint, token=token)
    try:
        with tempfile.TemporaryDirectory() as aside:
            for name, content in files.items():
                (Path(aside) / name).write_bytes(content)
            paths = {name: Path(aside) / name if name in files else plan.adapter / name for name in FILES}
            api.create_repo(plan.repo, private=plan.private, exist_ok=True)
            _check_visibility(plan, bool(api.model_info(plan.repo).private))
            # upload_folder may cut an upload into several commits; a card without its weights must never be seen
            commit = api.create_commit(
                plan.repo,
                [CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in paths.items()],
                commit_message="어댑터와 모델 카드 (adapter and model card, by koalpaca-tune)",
            )
    except (errors.HTTPError, OSError, ValueError, RuntimeError) as error:
        raise KoalpacaError(
            "hub-send",
            f"it could not be sent: {_one_line(error, token)}.",
            where=plan.repo,
            fix="Check the network, the name, and that the token may write. No commit was made.",
        ) from None
    return str(commit.commit_url)


def _check_same(before: Plan) -> None:
    """Makes the plan again: what was shown must be what is sent.

    Raises:
        KoalpacaError: a file changed meanwhile (hub-changed), or what `plan` raises.
    """
    if plan(before.adapter, before.repo, before.private) != before:
        raise KoalpacaError(
            "hub-changed",
            "its files changed after they were shown.",
            where=str(before.adapter),
            fix="Run the command again.",
        )


def _texts(adapter: Path, files: facts.Files) -> dict[str, bytes]:
    """The text files as they are sent."""

    def pretty(value: Any) -> bytes:
        return (json.dumps(scrub(value), ensure_ascii=False, indent=2) + "\n").encode()

    return {
        CARD: (adapter / CARD).read_bytes(),
        facts.CONFIG: pretty(files.config),
        facts.RECORD: pretty(files.record),
    }


def _check_base(base: str, adapter: Path) -> None:
    if is_hub_name(base):
        return
    kind = "the base in this package" if base == sources.EMBEDDED else "a folder of this machine"
    raise KoalpacaError(
        "hub-local-base",
        f"its base '{base}' is {kind}: nobody could load the adapter from the Hub.",
        where=str(adapter),
        fix="Train on a base of the Hub, or merge (koalpaca merge) and publish the merged model.",
    )


def _check_folder(adapter: Path) -> None:
    names = sorted(entry.name for entry in adapter.iterdir())
    pickles = [name for name in names if Path(name).suffix in PICKLES]
    if pickles:
        raise KoalpacaError(
            "hub-pickle",
            f"'{pickles[0]}' is a pickle, which can run code when it is loaded.",
            where=str(adapter),
            fix="Delete it; the weights are in adapter_model.safetensors.",
        )
    extra = [name for name in names if name not in FILES]
    if extra:
        raise KoalpacaError(
            "hub-extra-file",
            f"'{extra[0]}' is not one of the files that are sent ({', '.join(FILES)}).",
            where=str(adapter),
            fix="Move it out of the folder.",
        )
    if CARD not in names:
        raise KoalpacaError(
            "hub-card-missing",
            f"there is no model card ({CARD}).",
            where=str(adapter),
            fix=f"Run `koalpaca hub card {adapter}` first.",
        )


def _check_weights(path: Path) -> None:
    """The file is whole and holds adapter matrices (a 443-byte adapter file holds none: alpaca-lora#446)."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(length, size)))
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        ends = [int(entry["data_offsets"][1]) for entry in tensors.values()]
        whole = size == 8 + length + max(ends, default=0)
        matrices = any(".lora_B." in name for name in tensors)
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, IndexError):
        whole = matrices = False
    if not (whole and matrices):
        raise KoalpacaError(
            "hub-adapter-damaged",
            f"the file ({size:,} bytes) is {'cut off or broken' if not whole else 'without LoRA matrices'}.",
            where=str(path),
            fix="Take the adapter folder of a finished run.",
        )


def _check_visibility(plan: Plan, private: bool) -> None:
    if private != plan.private:
        words = {True: "private", False: "public"}
        raise KoalpacaError(
            "hub-visibility",
            f"the repository exists and is {words[private]}; {words[plan.private]} was asked.",
            where=plan.repo,
            fix=f"Change it on the Hub, or push with --{words[private]}.",
        )


def _one_line(error: Exception, token: str) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = (lines[0] if lines else type(error).__name__).replace(token, "***")
    return _SECRET.sub(b"***", text.encode()).decode()[:300].rstrip(".")
