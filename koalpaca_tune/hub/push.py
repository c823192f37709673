"""Sending to the Hub: first what would go, exactly; then one commit, with a token, on request; then a look at it.

Run again after a failure, it goes on where it was: what lies there already, byte for byte, is not sent twice, and
when everything does, no commit is made.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.hub import bundle, verify
from koalpaca_tune.hub.bundle import Kind, Piece
from koalpaca_tune.hub.public import check_repo
from koalpaca_tune.hub.remote import Remote, quiet
from koalpaca_tune.hub.state import State

MAIN = "main"
_REF = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_WEIGHTS = re.compile(r"[^/]+\.(safetensors|bin|pt|pth|h5|msgpack|gguf)|[^/]+\.(safetensors|bin)\.index\.json")

MESSAGES: dict[Kind, str] = {
    "adapter": "어댑터와 모델 카드 (adapter and model card, by koalpaca-tune)",
    "model": "합친 모델과 모델 카드 (merged model and model card, by koalpaca-tune)",
    "dataset": "데이터와 데이터 카드 (data and its card, by koalpaca-tune)",
    "report": "평가 보고서 (evaluation report, by koalpaca-tune)",
}


@dataclass(frozen=True)
class Plan:
    """What would be sent.

    Attributes:
        folder: what it is taken from.
        kind: adapter, model, dataset or report.
        repo: user/name.
        private: whether the repository is, or is made, private.
        pieces: the files as they go.
        stays: names of files that lie in the folder and do not go.
        branch: the branch that gets the commit.
        tag: a name for the commit, or None.
        replace: whether weights in the repository that are none of these may be deleted.
    """

    folder: Path
    kind: Kind
    repo: str
    private: bool
    pieces: tuple[Piece, ...]
    stays: tuple[str, ...]
    branch: str = MAIN
    tag: str | None = None
    replace: bool = False

    @property
    def files(self) -> tuple[tuple[str, int], ...]:
        """(name, bytes as sent)."""
        return tuple((piece.name, piece.size) for piece in self.pieces)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(piece.size for piece in self.pieces)


@dataclass(frozen=True)
class Sent:
    """What became of it.

    Attributes:
        commit: the commit that holds every file of the plan.
        sent: names of files that were missing there; empty: nothing was to do.
        deleted: names of weights that were taken away.
        loaded: names of files that were downloaded again and opened.
        compared: names of files that were compared by the Hub's own digest.
    """

    commit: str
    sent: tuple[str, ...]
    deleted: tuple[str, ...]
    loaded: tuple[str, ...]
    compared: tuple[str, ...]


def plan(
    folder: Path,
    repo: str,
    private: bool,
    *,
    branch: str | None = None,
    tag: str | None = None,
    replace: bool = False,
) -> Plan:
    """Checks a folder and lists what would be sent. Neither network nor token is needed.

    Args:
        folder: an adapter, a merged model, prepared data, or a comparison.
        repo: user/name.
        private: whether the repository is to be private.
        branch: where the commit goes; None: main.
        tag: a name for the commit.
        replace: take away weights that lie in the repository and are none of these.

    Raises:
        KoalpacaError: no name of a repository (hub-repo), branch or tag (hub-ref), or what `bundle.collect` raises.
    """
    check_repo(repo)
    for what, name in (("branch", branch), ("tag", tag)):
        if name is not None and not _REF.fullmatch(name):
            raise KoalpacaError(
                "hub-ref", f"'{name}' is no name of a {what}.", fix="Letters, digits, '.', '_', '-': v1.0."
            )
    found = bundle.collect(folder)
    return Plan(folder, found.kind, repo, private, found.pieces, found.stays, branch or MAIN, tag, replace)


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


def send(
    plan: Plan, token: str, *, endpoint: str | None = None, say: Callable[[str], None] = lambda what: None
) -> Sent:
    """Makes the repository where it is missing, sends what is not there yet in one commit, and looks at it.

    Args:
        plan: of `plan`; its checks are made again.
        token: one that may write.
        endpoint: another Hub than the configured one.
        say: told each stage.

    Raises:
        KoalpacaError: an existing repository is public where private was asked, or the other way round
            (hub-visibility), weights lie there that would be loaded instead (hub-stale), the tag names another
            commit (hub-tag), somebody else made a commit meanwhile (hub-moved), network or Hub refused
            (hub-send), what was sent cannot be read back (hub-read) or is something else (hub-differs), or what
            `plan` raises.
    """
    _check_same(plan)
    remote = Remote(plan.repo, "dataset" if plan.kind == "dataset" else "model", plan.branch, token, endpoint)
    with remote.telling("Check the network, the name, and that the token may write. No commit was made."):
        _open(remote, plan)
        before = remote.state()
        stale = _stale(before, plan)
    with quiet(plan.size), remote.telling("Run the command again: what is uploaded already is not sent twice."):
        missing = before.missing(plan.pieces)
        _check_tag(remote, plan, before, bool(missing or stale))
        after = before
        if missing or stale:
            say(f"보내는 중 (sending): {len(missing)}/{len(plan.pieces)}, {sum(p.size for p in missing):,} bytes")
            after = remote.bring(before, missing, stale, MESSAGES[plan.kind], say)
    say("올린 것을 다시 읽어 확인하는 중 (reading it back)")
    made = "The commit is made. Run the command again to look at it: nothing is sent twice."
    with quiet(plan.size), remote.reading(fix=made):
        checked = verify.check(remote, after.head, plan)
    if plan.tag is not None:
        with remote.telling("The commit is made, without the tag. Run the command again."):
            remote.tag(plan.tag, after.head)
    return Sent(after.head, tuple(p.name for p in missing), tuple(stale), checked.loaded, checked.compared)


def _open(remote: Remote, plan: Plan) -> None:
    """The repository and its branch exist and are as visible as was asked.

    Raises:
        KoalpacaError: it is visible otherwise (hub-visibility).
    """
    if plan.kind != "report":
        remote.make(plan.private)
    private = remote.private()
    if private != plan.private and plan.kind != "report":
        words = {True: "private", False: "public"}
        raise KoalpacaError(
            "hub-visibility",
            f"the repository exists and is {words[private]}; {words[plan.private]} was asked.",
            where=plan.repo,
            fix=f"Change it on the Hub, or push with --{words[private]}.",
        )
    branches, _ = remote.names()
    if plan.branch not in branches:
        remote.fork()


def _stale(state: State, plan: Plan) -> list[str]:
    """Weights in the repository that are none of the plan's: a loader may take them in their place.

    Raises:
        KoalpacaError: there are some, and they may not be deleted (hub-stale).
    """
    if plan.kind not in ("adapter", "model"):
        return []
    mine = {piece.name for piece in plan.pieces}
    found = sorted(name for name in state.files if _WEIGHTS.fullmatch(name) and name not in mine)
    if found and not plan.replace:
        raise KoalpacaError(
            "hub-stale",
            f"'{found[0]}'{f' and {len(found) - 1} more' if found[1:] else ''} in the repository would remain, and "
            "might be loaded in place of what is sent.",
            where=plan.repo,
            fix="Push to another repository or --revision, or add --replace to delete them in the same commit.",
        )
    return found


def _check_tag(remote: Remote, plan: Plan, state: State, changes: bool) -> None:
    if plan.tag is None:
        return
    _, tags = remote.names()
    there = tags.get(plan.tag)
    if there is not None and (changes or there != state.head):
        raise KoalpacaError(
            "hub-tag",
            f"the tag '{plan.tag}' exists and names another commit ({there[:12]}).",
            where=plan.repo,
            fix="Choose another --tag. A tag that people use is not moved.",
        )


def _check_same(before: Plan) -> None:
    """Makes the plan again: what was shown must be what is sent.

    Raises:
        KoalpacaError: a file changed meanwhile (hub-changed), or what `plan` raises.
    """
    again = plan(
        before.folder, before.repo, before.private, branch=before.branch, tag=before.tag, replace=before.replace
    )
    if again != before:
        raise KoalpacaError(
            "hub-changed",
            "its files changed after they were shown.",
            where=str(before.folder),
            fix="Run the command again.",
        )
