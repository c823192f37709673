"""Long texts in windows that fit a base's context."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator

# Llama 3 and Qwen read a mark with all line ends behind it as one token: no cut goes between them. A cut behind a
# single line end suits every tokenizer; behind several, GPT-2's would read them otherwise without what follows
_WORD = re.compile(r"\s*\S+(?:(?<![^\W_])(?!\n\S)[\r\n]\s*\S+)*(?:(?<![^\W_])\n(?=\S))?")


def windows(text: str, characters: int, before: int) -> Iterator[tuple[str, str]]:
    """(what is read before, what is scored), cut where no token goes over the cut; together the parts are the text.

    White space belongs to what follows it, as it does to a word's first token, save for a line end behind a mark.
    White space at the end of the text is left out: nothing follows it. A word longer than a window is one part.

    Args:
        text: the whole.
        characters: most characters of a part.
        before: most characters in front of it, cut at such places too.
    """
    end = len(text.rstrip())
    starts = [match.start() for match in _WORD.finditer(text, 0, end)]
    at = 0
    while at < len(starts):
        begin = starts[at]
        stop = len(starts) if end - begin <= characters else bisect_right(starts, begin + characters) - 1
        after = max(stop, at + 1)
        front = starts[bisect_left(starts, begin - before)]
        yield text[front:begin], text[begin : starts[after] if after < len(starts) else end]
        at = after
