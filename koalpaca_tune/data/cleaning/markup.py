"""Remains of HTML: tags, comments, scripts and entities, taken out where they are remains.

`a < b`, <기생충> and `<Her>` are no tags. A tag is taken for one if it is an HTML element that is a block or void
(<br>, <p>, </div>), is closed in the same text (<b>…</b>), or has attributes with values. A conversation that
talks about HTML or code keeps its tags (`subject`), and code keeps them always.
"""

from __future__ import annotations

import html
import re
import unicodedata
from html.entities import html5

from koalpaca_tune.data.cleaning import code

_SUBJECT = re.compile(
    r"(?<![\w./-])(?:html5?|xml|svg|css|jsx|react|javascript|markdown|beautifulsoup|regex)(?![A-Za-z0-9_/])"
    r"|태그|엔티티|마크업|마크다운|코드|리액트|스크립트|프로그래밍|웹\s?페이지|파싱|크롤링|정규\s?표현식|정규식|이스케이프",
    re.IGNORECASE,
)
# a whole page or a listing is there to be read as code
_LISTING = re.compile(r"<!doctype|<\?xml|<(?:html|svg|pre|code)\b", re.IGNORECASE)

_BLOCK = frozenset(
    re.findall(
        "[a-z0-9]+", "br p div hr li ul ol dl dt dd table tbody thead tr h1 h2 h3 h4 h5 h6 blockquote center"
    )
)
_CELL = frozenset(("td", "th"))
_INLINE = frozenset(re.findall("[a-z]+", "b i u em strong span font a small big strike del ins tt nobr sub sup"))
# also titles of films and sections of prompts: remains only where they carry attributes
_WITH_ATTRIBUTES = frozenset(
    re.findall(
        "[a-z]+",
        "img input button form label select option textarea iframe link meta section article header footer nav"
        " figure figcaption main aside mark video audio source embed object param q abbr cite time caption col",
    )
)
_ATTRIBUTE = (
    r"""\s+[A-Za-z_:@-][\w:.-]{0,40}\s{0,3}=\s{0,3}(?:"[^"<>]{0,2000}"|'[^'<>]{0,2000}'|[^\s"'<>=]{1,2000})"""
)
_TAG = re.compile(
    rf"<(?P<name>[A-Za-z][A-Za-z0-9]{{0,9}})(?P<attributes>(?:{_ATTRIBUTE}){{0,30}})\s{{0,9}}/?>"
    r"|</(?P<closed>[A-Za-z][A-Za-z0-9]{0,9})\s{0,9}>"
)
_CLOSED = re.compile(r"</([A-Za-z][A-Za-z0-9]{0,9})\s{0,9}>")
# none reaches over the next one's beginning: a page of unclosed ones takes linear time
_COMMENT = re.compile(r"<!--(?:(?!<!--).)*?-->", re.DOTALL)
_SCRIPT = re.compile(r"<(script|style)\b[^<>]*>(?:(?!<script|<style).)*?</\1\s{0,9}>", re.DOTALL | re.IGNORECASE)
_SMALL = re.compile(r"<(su[pb])>([0-9+\-=()n]{1,6})</\1>", re.IGNORECASE)
_SUPER = str.maketrans("0123456789+-=()n", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿ")
_SUB = str.maketrans("0123456789+-=()n", "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₙ")
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")

# where a block begins or ends, until all of them are known
_BREAK = "\0"
_BREAKS = re.compile(rf"[ \t\n]*{_BREAK}[{_BREAK} \t\n]*")


def subject(text: str) -> bool:
    """Whether a text is about markup or code; what its own tags say (type="text/css") does not count."""
    if "<" in text:
        if _LISTING.search(text):
            return True
        text = _TAG.sub(" ", _without_scripts(text))
    return _SUBJECT.search(text) is not None


def strip(text: str) -> str:
    """Tags go (blocks become line breaks), comments and scripts go, entities become what they stand for."""
    if "<" in text:
        text = _tags(text)
    if "&" in text:
        text = code.sub(_ENTITY, _entity, text)
    return text


def _without_scripts(text: str) -> str:
    if "-->" in text:
        text = code.sub(_COMMENT, "", text)
    if "</s" in text or "</S" in text:
        text = code.sub(_SCRIPT, "", text)
    return text


def _tags(text: str) -> str:
    text = _without_scripts(text)
    if "</s" in text or "</S" in text:
        text = code.sub(_SMALL, _small, text)
    closed = {match[1].lower() for match in _CLOSED.finditer(text)}
    marked = code.sub(_TAG, lambda match: _tag(match, closed), text)
    if _BREAK not in marked:
        return marked
    return _BREAKS.sub("\n", marked.strip(f"{_BREAK} \t\n"))


def _small(match: re.Match[str]) -> str:
    return match[2].translate(_SUPER if match[1].lower() == "sup" else _SUB)


def _tag(match: re.Match[str], closed: set[str]) -> str:
    name = (match["name"] or match["closed"]).lower()
    if name in _BLOCK:
        return _BREAK
    if name in _CELL:
        return " "
    if name in _INLINE and (match["closed"] or match["attributes"] or name in closed):
        return ""
    if name in _WITH_ATTRIBUTES and (match["attributes"] or (match["closed"] and _opened(name, match.string))):
        return ""
    return match[0]


def _opened(name: str, text: str) -> bool:
    return re.search(rf"<{name}\s[^<>]*=", text, re.IGNORECASE) is not None


def _entity(match: re.Match[str]) -> str:
    entity = match[0]
    if entity[1] != "#" and entity[1:] not in html5:
        return entity
    char = html.unescape(entity)
    if any(unicodedata.category(part) in ("Cc", "Cs", "Cn", "Co") or part == "\ufffd" for part in char):
        return entity
    return " " if char == "\xa0" else char
