"""One repository of the Hub, through `huggingface_hub`: what it holds, and files brought to it in one commit.

The client tries every request again by itself, but for the commit: an answer that is lost there would make a second
one. Here a commit names its parent, so that it can only happen once, and after a lost answer the branch is looked
at before anything is tried again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.hub.bundle import SECRET, Piece
from koalpaca_tune.hub.state import Entry, State

RepoType = Literal["model", "dataset"]

TRIES = 4
"""How often a commit is tried whose answer was lost."""

WAIT = 0.5
"""Seconds before the branch is looked at after a lost answer; twice as long each time."""

LARGEST_TEXT = 16 << 20
"""Bytes that a config or a record from elsewhere may have."""

SHOWN = 1 << 26
"""Bytes from which on the client's progress bars are shown."""

_LOST = (500, 502, 503, 504)
"""Answers of what stands before the Hub, which do not tell whether the commit was made."""


class Remote:
    """A repository.

    Attributes:
        repo: user/name.
        repo_type: model or dataset.
        branch: the branch that is read and written; where nothing is written, a tag or commit too.
    """

    def __init__(
        self, repo: str, repo_type: RepoType, branch: str, token: str | None, endpoint: str | None
    ) -> None:
        from huggingface_hub import HfApi

        self.repo, self.repo_type, self.branch = repo, repo_type, branch
        self._token = token
        # False: not the token of this machine in its place
        self._api = HfApi(endpoint=endpoint, token=token or False)

    @contextmanager
    def telling(self, fix: str) -> Iterator[None]:
        """Whatever the client says inside is one line without the token (hub-send)."""
        try:
            yield
        except _of_client() as error:
            raise KoalpacaError(
                "hub-send",
                f"it could not be sent: {one_line(error, self._token)}.",
                where=self.repo,
                fix=fix,
            ) from None

    @contextmanager
    def reading(self, where: str | None = None, fix: str | None = None) -> Iterator[None]:
        """The same where nothing is sent (hub-read); `where` where it is another repository."""
        try:
            yield
        except _of_client() as error:
            raise KoalpacaError(
                "hub-read",
                f"it could not be read: {one_line(error, self._token)}.",
                where=where or self.repo,
                fix=fix
                or "Check the name, the revision and the network; a private or gated one needs `hf auth login`.",
            ) from None

    def make(self, private: bool) -> None:
        """Makes the repository where it is missing."""
        self._api.create_repo(self.repo, repo_type=self.repo_type, private=private, exist_ok=True)

    def private(self) -> bool:
        """Whether only its owner sees it."""
        return bool(self._api.repo_info(self.repo, repo_type=self.repo_type).private)

    def names(self) -> tuple[dict[str, str], dict[str, str]]:
        """Branches and tags, each with the commit that it stands for."""
        refs = self._api.list_repo_refs(self.repo, repo_type=self.repo_type)
        made = [{ref.name: ref.target_commit for ref in those} for those in (refs.branches, refs.tags)]
        return made[0], made[1]

    def fork(self) -> None:
        """Makes the branch, from main."""
        self._api.create_branch(self.repo, branch=self.branch, repo_type=self.repo_type, exist_ok=True)

    def tag(self, name: str, commit: str) -> None:
        """Gives a commit a name."""
        self._api.create_tag(self.repo, tag=name, revision=commit, repo_type=self.repo_type, exist_ok=True)

    def state(self, revision: str | None = None) -> State:
        """The branch, or a commit, as it is now."""
        from huggingface_hub import RepoFile

        info = self._api.repo_info(self.repo, repo_type=self.repo_type, revision=revision or self.branch)
        found = self._api.list_repo_tree(self.repo, recursive=True, revision=info.sha, repo_type=self.repo_type)
        files = {
            entry.path: Entry(entry.size, entry.blob_id, entry.lfs.sha256 if entry.lfs else None)
            for entry in found
            if isinstance(entry, RepoFile)
        }
        return State(str(info.sha), files)

    def bring(
        self,
        state: State,
        pieces: Sequence[Piece],
        gone: Sequence[str],
        message: str,
        say: Callable[[str], None],
    ) -> State:
        """Uploads pieces and makes one commit on top of a state, once.

        Args:
            state: the branch as it was when `pieces` and `gone` were found to be needed.
            pieces: files that are added or replaced.
            gone: files that are deleted.
            message: the commit's title.
            say: told of what is tried again.

        Returns:
            The branch with the commit.

        Raises:
            KoalpacaError: somebody else made a commit meanwhile (hub-moved).
        """
        from huggingface_hub import CommitOperationDelete, errors

        with ExitStack() as stack:
            operations = self._upload(pieces, stack, say)
            for n in range(TRIES):
                try:
                    self._api.create_commit(
                        self.repo,
                        [*operations, *(CommitOperationDelete(name) for name in gone)],
                        commit_message=message,
                        repo_type=self.repo_type,
                        revision=self.branch,
                        parent_commit=state.head,
                    )
                except errors.HTTPError as error:
                    answer = getattr(error, "response", None)
                    status = None if answer is None else answer.status_code
                    if status not in (None, 412, *_LOST):
                        raise
                    say(f"커밋의 답을 받지 못해 확인합니다 (no answer to the commit, looking): {status or error}")
                    time.sleep(WAIT * 2**n)
                    now = self.state()
                    if not now.missing(pieces) and not set(gone) & set(now.files):
                        return now
                    if now.head != state.head:
                        raise self._moved() from None
                    if n == TRIES - 1:
                        raise
                else:
                    return self.state()
        raise AssertionError("the last try returns or raises")

    def _moved(self) -> KoalpacaError:
        return KoalpacaError(
            "hub-moved",
            f"somebody else changed '{self.branch}' meanwhile; nothing of ours was committed.",
            where=self.repo,
            fix="Look at what changed, then run the command again: what is uploaded already is not sent twice.",
        )

    def _upload(self, pieces: Sequence[Piece], stack: ExitStack, say: Callable[[str], None]) -> list[Any]:
        """Brings the large files, by Xet where the Hub has it, else by LFS; the small ones go with the commit."""
        from huggingface_hub import CommitOperationAdd

        operations = [CommitOperationAdd(p.name, p.content or str(p.path)) for p in pieces]
        try:
            self._preload(operations)
        except ConnectionError as error:
            # hf_xet's own error; the client takes Xet without asking whether the Hub has it
            say(f"Xet을 쓸 수 없어 LFS로 보냅니다 (no Xet here, sending by LFS): {one_line(error, self._token)}")
            # an open file is what the client sends by LFS
            operations = [
                CommitOperationAdd(p.name, stack.enter_context(p.path.open("rb")) if p.path else p.content)
                for p in pieces
            ]
            self._preload(operations)
        return operations

    def _preload(self, operations: Sequence[Any]) -> None:
        self._api.preupload_lfs_files(
            self.repo, operations, repo_type=self.repo_type, revision=self.branch, free_memory=False
        )

    def commit_of(self, repo: str, revision: str | None) -> str:
        """The commit that a revision of another model stands for, such as an adapter's base."""
        return str(self._api.model_info(repo, revision=revision).sha)

    def config_of(self, repo: str, commit: str) -> str:
        """Path of the config.json of another model, in the client's own cache.

        Raises:
            KoalpacaError: it is too large to be one (pull-size).
        """
        from huggingface_hub import hf_hub_url

        url = hf_hub_url(repo, "config.json", revision=commit, endpoint=self._api.endpoint)
        size = self._api.get_hf_file_metadata(url=url).size
        if size is None or size > LARGEST_TEXT:
            raise KoalpacaError(
                "pull-size",
                f"its config.json has {size or 'no known number of'} bytes.",
                where=repo,
                fix="Look at the repository: this is no model that is read here.",
            )
        path: str = self._api.hf_hub_download(repo, "config.json", revision=commit)
        return path

    def fetch(self, name: str, commit: str, folder: str) -> str:
        """Downloads one file at a commit into a folder; returns its path."""
        path: str = self._api.hf_hub_download(
            self.repo, name, repo_type=self.repo_type, revision=commit, local_dir=folder
        )
        return path


@contextmanager
def quiet(size: int) -> Iterator[None]:
    """The client's warnings are ours to tell, and its bars are for what takes long.

    Args:
        size: bytes that are sent or read at most.
    """
    from huggingface_hub import utils

    level, bars = utils.logging.get_verbosity(), utils.are_progress_bars_disabled()
    utils.logging.set_verbosity_error()
    if size < SHOWN:
        utils.disable_progress_bars()
    try:
        yield
    finally:
        utils.logging.set_verbosity(level)
        if not bars:
            utils.enable_progress_bars()


def _of_client() -> tuple[type[Exception], ...]:
    from huggingface_hub import errors

    return (errors.HTTPError, OSError, ValueError, RuntimeError)


def one_line(error: BaseException, token: str | None) -> str:
    """What a library said, and what of its cause is news, on one line and without any token."""
    text = _said(error)
    if error.__cause__ is not None and _said(error.__cause__) not in text:
        text = f"{text.rstrip('.')}: {_said(error.__cause__)}"
    return SECRET.sub(b"***", (text.replace(token, "***") if token else text).encode()).decode()[:400].rstrip(".")


def _said(error: BaseException) -> str:
    """The lines that say what is wrong; advice of the client's own comes after them."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) if lines else type(error).__name__
