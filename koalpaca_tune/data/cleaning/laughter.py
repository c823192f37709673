"""Runs of ㅋ, ㅠ, ! and the like, shortened: how many there are says nothing, and each costs a token.

Three keep the feeling (ㅋㅋㅋ is one word to most tokenizers; ㅋ alone reads as a sneer). Dots keep six, the
full ellipsis of 한글 맞춤법 (줄임표), and are often three. Lines of -, =, *, _ and # are drawn on purpose.
"""

from __future__ import annotations

import re

from koalpaca_tune.data.cleaning import code

# what all of them have, found in a tenth of the time
_PERHAPS = re.compile("[ㄱ-ㅎㅏ-ㅣ!?~^;.…\u3002]{3}")
_SCAN = re.compile(r"([ㄱ-ㅎㅏ-ㅣ!?~^;])\1{3,}|(ㅋㅎ|ㅎㅋ|ㅠㅜ|ㅜㅠ|\?!|!\?)\2\2|\.{7}|…{3}|\u3002{4}")
_SAME = re.compile(r"([ㄱ-ㅎㅏ-ㅣ!~^;])\1{3,}")
# "(????년)": a year that is not known, one ? for each digit
_QUESTIONS = re.compile(r"(?<=[^\s?(\[{\-~/,'\"])\?{4,}(?![?년월일세])")
_PAIRS = re.compile(r"(ㅋㅎ|ㅎㅋ|ㅠㅜ|ㅜㅠ|\?!|!\?)\1{2,}")
_DOTS = re.compile(r"\.{7,}")
_ELLIPSES = re.compile("…{3,}")
_STOPS = re.compile("。{4,}")


def shorten(text: str) -> str:
    """Four or more of the same become three; pairs (?!?!?!) become two, dots six, … two. Not in code."""
    if not (_PERHAPS.search(text) and _SCAN.search(text)):
        return text
    text = code.sub(_SAME, r"\1\1\1", text)
    text = code.sub(_QUESTIONS, "???", text)
    text = code.sub(_PAIRS, r"\1\1", text)
    text = code.sub(_DOTS, "......", text)
    text = code.sub(_ELLIPSES, "……", text)
    return code.sub(_STOPS, "。。。", text)
