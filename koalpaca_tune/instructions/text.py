"""What a word, a sentence and a paragraph are."""

from __future__ import annotations

import re
import unicodedata

from koalpaca_tune import korean

HANGUL = re.compile("[가-힣ㄱ-ㆎ]")
_LINE_MARK = re.compile(r"^\s*(?:(?:[#>*_~-]+|\d{1,3}[.)])\s+)+")
_HEADING = re.compile(r"^\s*(?:#{1,6}\s|<<[^\n]*>>\s*$)")
_SENTENCE_END = re.compile(r"[.!?؟।]+[\"'”’)\]]*(?=\s|$)|[。！？]+")
_BLANK_LINES = re.compile(r"\n[^\S\n]*(?:\n[^\S\n]*)+")


def plain(text: str) -> str:
    """NFC with Unix line ends: decomposed Hangul equals composed."""
    return unicodedata.normalize("NFC", text).replace("\r\n", "\n").replace("\r", "\n")


def folded(text: str) -> str:
    """For comparison: NFC, no letter case."""
    return plain(text).casefold()


def words(text: str) -> int:
    """Eojeols: what white space parts, list marks and lone signs left out."""
    return sum(any(char.isalnum() for char in part) for part in text.split())


def sentences(text: str) -> int:
    """Sentences, by Kiwi within each line.

    A line break ends a sentence, so that an item of a list is one though it has no full stop. Headings and
    `<<titles>>` are none. A line without Hangul is not Kiwi's: there a sentence ends at its punctuation.
    """
    return sum(_in_line(line) for line in plain(text).splitlines() if not _HEADING.match(line))


def _in_line(line: str) -> int:
    said = _LINE_MARK.sub("", line)
    if not any(char.isalnum() for char in said):
        return 0
    if HANGUL.search(said):
        # one level, decided or not, for each of Kiwi's sentences; an emoji alone would be one
        return len(korean.speech_levels("".join(char for char in said if _is_said(char))))
    return sum(any(char.isalnum() for char in piece) for piece in _SENTENCE_END.split(said))


def _is_said(char: str) -> bool:
    return unicodedata.category(char) not in ("So", "Sk", "Cf", "Mn")


def paragraphs(text: str) -> list[str]:
    """Parts between blank lines, stripped; none is empty."""
    return [part.strip() for part in _BLANK_LINES.split(text) if part.strip()]


def begins_with(text: str, word: str) -> bool:
    """Whether a text begins with a word, quotation and markdown marks before it left out.

    A Hangul word may carry particles or endings (회사 begins 회사는); a Latin one must end where it ends.
    """
    start = folded(text).lstrip(" \t\"'“‘「『<《#*_>-")
    wanted = folded(word).strip()
    return start.startswith(wanted) and not (wanted[-1].isascii() and _goes_on(start[len(wanted) :]))


def _goes_on(rest: str) -> bool:
    return bool(rest) and rest[0].isascii() and rest[0].isalnum()
