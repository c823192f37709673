"""MkDocs hook: links that work in the repository, and that MkDocs would not follow, work on the site as well.

A file outside docs/ (a record in bench/results) goes along, as a copy under repository/: the link works offline. A
page of the other language is built apart from this one's. A link that leads to no file is a warning, which the
strict build ends on.
"""

from __future__ import annotations

import logging
import posixpath
import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import unquote

TOP = Path(__file__).resolve().parent.parent
FOLDER = "repository"
SCHEME = "site:"
"""Before a place counted from the site's top. MkDocs takes it for a place elsewhere and does not look for it."""
LANGUAGES = {"ko": "", "en": "en/"}
"""Where on the site each language's pages are."""
RESULT = {"ko": "README.md", "en": "README.en.md"}

_LINK = re.compile(r"(\]\()((?:\.\./)+[^)#\s]+)([^)]*\))")
_log = logging.getLogger("mkdocs.hooks.site_links")
_wanted: set[str] = set()


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Marks links that leave docs/ or the language; results are pages of both languages, and are found once."""
    name = posixpath.basename(page.file.src_uri)
    if page.file.src_uri.startswith("results/") and name != RESULT[page.file.locale_alternate_of]:
        page.meta["search"] = {"exclude": True}
    here = posixpath.join("docs", posixpath.dirname(page.file.src_uri))

    def mark(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(here, unquote(link[2])))
        if target.startswith("..") or not (TOP / target).is_file():
            _log.warning("%s links to '%s', which is no file of the repository", page.file.src_uri, link[2])
            return link[0]
        if not target.startswith("docs/"):
            _wanted.add(target)
            return f"{link[1]}{SCHEME}{FOLDER}/{target}{link[3]}"
        language, _, name = target.removeprefix("docs/").partition("/")
        if language in LANGUAGES and name.endswith(".md") and not here.startswith(f"docs/{language}"):
            return f"{link[1]}{SCHEME}{LANGUAGES[language]}{_place(name)}{link[3]}"
        return link[0]

    return _LINK.sub(mark, markdown)


def on_page_content(html: str, *, page: Any, **_: Any) -> str:
    """Turns the marks into ways from this page."""
    depth = page.url.count("/")
    return html.replace(f'href="{SCHEME}', f'href="{"../" * depth or "./"}')


def _place(name: str) -> str:
    """Where a page of this name lies within its language."""
    return "" if name == "index.md" else name.removesuffix(".md") + "/"


def on_post_build(*, config: Any, **_: Any) -> None:
    """Copies what was linked to."""
    for name in sorted(_wanted):
        copy = Path(config.site_dir) / FOLDER / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(TOP / name, copy)
