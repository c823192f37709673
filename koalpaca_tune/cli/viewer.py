"""`koalpaca data look`: chooses and orders records, then prints them or lets a person page through them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rich.text import Text

from koalpaca_tune.cli import browse, entries, look
from koalpaca_tune.cli.entries import Entries, Entry, Filter
from koalpaca_tune.cli.show import console
from koalpaca_tune.cli.signals import Signals
from koalpaca_tune.data.quality.limits import LIMITS
from koalpaca_tune.data.quality.signals import SIGNALS
from koalpaca_tune.data.rows import place
from koalpaca_tune.errors import KoalpacaError, did_you_mean
from koalpaca_tune.tokens.encode import Encoder

PRINTED = 3
"""Records that are printed where nobody can page."""


@dataclass(frozen=True, slots=True)
class Order:
    """In which order to show: the file's, the seed's, or by a signal, the worst first."""

    shuffle: int | None = None
    sort_by: str | None = None
    reverse: bool = False


@dataclass(frozen=True)
class Viewer:
    """A file of records and how to draw them.

    Attributes:
        base, template: for the view of tokens; the tokenizer is loaded when it is first wanted.
        skip: records before the first.
    """

    path: Path
    kind: str
    found: Entries
    signals: Signals | None
    base: str
    template: str
    skip: int

    def has(self, at: int) -> bool:
        """Whether there is a record at a position after the skipped ones."""
        return self.found.has(self.skip + at)

    def all(self) -> int:
        """How many there are after the skipped ones."""
        return self.found.all() - self.skip

    def find(self, text: str, start: int) -> int | None:
        """The first record at or after a position that contains a text."""
        at = self.found.find(text, self.skip + start)
        return None if at is None else at - self.skip

    def entry(self, at: int) -> Entry:
        """The record at a position after the skipped ones."""
        return self.found[self.skip + at]

    @property
    def count(self) -> str:
        """How many, as far as it is known."""
        known = len(self.found) - self.skip
        return f"{known:,}" if self.found.complete else "…"

    @cached_property
    def encoder(self) -> Encoder:
        """Template and tokenizer."""
        from koalpaca_tune.models import tokenizer

        vocabulary = tokenizer.load(self.base)
        return Encoder(vocabulary, vocabulary.template(self.template))

    def text(self, at: int) -> Text:
        """A record to be read."""
        one = self.entry(at)
        return look.entry(one, self.signals.of(one.id) if self.signals and one.id else {})

    def draw(self, at: int, tokens: bool) -> Text:
        """A record for the screen; what cannot be shown as tokens says why."""
        one = self.entry(at)
        if not tokens:
            return self.text(at)
        if not one.conversation or one.reason:
            return Text(
                "제외한 행은 토큰으로 볼 수 없습니다 (a row that was set aside has no tokens): t"
            ).append_text(Text("\n\n")) + self.text(at)
        try:
            encoded = next(self.encoder.conversations([one.conversation]))
        except KoalpacaError as error:
            return Text(look.visible(str(error)), "bold red")
        counted = f"── {encoded.origin}  ({len(encoded.ids):,} tokens, {encoded.learned:,} learned)\n"
        return Text().append(look.visible(counted), "bold") + look.coloured(encoded, self.encoder)


def show(
    path: Path,
    wanted: Filter,
    order: Order,
    *,
    count: int | None,
    skip: int,
    tokens: bool,
    base: str,
    template: str,
) -> None:
    """Shows records of a file.

    Args:
        count: print so many; None lets a person at a terminal page, and prints `PRINTED` elsewhere.
        tokens: as tokens rather than as text.

    Raises:
        KoalpacaError: the file cannot be read, nothing is left to show (look-nothing), an option does not
            go with this file (look-option), or there is no such signal (look-signal).
    """
    opened = entries.open_file(path, wanted)
    if opened.kind != "rejected" and wanted.reason is not None:
        raise _misplaced("--reason", path, "a rejected.jsonl")
    if opened.kind == "rejected" and tokens:
        raise _misplaced("--tokens", path, "records that were kept, such as train.jsonl,")
    signals = Signals.beside(path) if opened.kind == "prepared" else None
    _arrange(opened.entries, order, signals, path)
    viewer = Viewer(path, opened.kind, opened.entries, signals, base, template, skip)
    if not viewer.has(0):
        raise _nothing(viewer, wanted)
    if count is None and browse.possible():
        browse.browse(viewer, viewer.draw, lambda: viewer.count, tokens=tokens)
        return
    _print(viewer, count or PRINTED, tokens)


def _print(viewer: Viewer, count: int, tokens: bool) -> None:
    for at in range(count):
        if not viewer.has(at):
            break
        one = viewer.entry(at)
        if not tokens:
            # a pipe gets the lines as they are
            console.print(viewer.text(at), soft_wrap=not console.is_terminal)
        elif one.conversation is None or one.reason:
            code = one.reason
            raise KoalpacaError(code, one.what, where=one.origin, fix="Prepare the data again.")
        else:
            for encoded in viewer.encoder.conversations([one.conversation]):
                look.example(encoded, viewer.encoder)


def _arrange(found: Entries, order: Order, signals: Signals | None, path: Path) -> None:
    if order.shuffle is not None:
        found.shuffle(order.shuffle)
    if order.sort_by is not None:
        from koalpaca_tune.data.work import TOLD

        if signals is None:
            raise _misplaced("--sort-by", path, "a prepared file with quality.jsonl beside it")
        name = order.sort_by.replace("_", "-")
        values = signals.values(name)
        # a signal that found nothing is left out of the file
        nothing = 0.0 if name in SIGNALS and name not in TOLD else None
        # a signal with a lower limit is bad when it is small
        small = any(key.startswith("min_") and limited == name for key, (limited, _) in LIMITS.items())
        found.sort(lambda id: values.get(id, nothing), largest_first=small == order.reverse)


def _misplaced(option: str, path: Path, wants: str) -> KoalpacaError:
    return KoalpacaError("look-option", f"{option} wants {wants}.", where=place(path), fix="Leave it out.")


def _nothing(viewer: Viewer, wanted: Filter) -> KoalpacaError:
    left = viewer.found.all()
    if viewer.kind == "rejected" and viewer.path.stat().st_size == 0:
        what = "it is empty: no row was set aside."
        return KoalpacaError("look-nothing", what, where=str(viewer.path), fix="Look at train.jsonl.")
    if left or not wanted:
        what = f"there are no more than {viewer.skip} records."
        return KoalpacaError("look-nothing", what, where=str(viewer.path), fix="Lower --skip.")
    fix = "Widen the filters."
    if wanted.reason is not None:
        everything = entries.open_file(viewer.path, Filter()).entries
        reasons = Counter(everything[at].reason for at in range(everything.all()))
        if wanted.reason not in reasons:
            fix = did_you_mean(wanted.reason, [name for name, _ in reasons.most_common()])
    return KoalpacaError("look-nothing", "no record is like that.", where=str(viewer.path), fix=fix)
