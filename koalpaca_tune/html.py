"""Pages from the shipped Jinja templates; everything a page shows is escaped unless the page says otherwise."""

from __future__ import annotations

import re
from functools import cache
from html import escape
from typing import TYPE_CHECKING, Any

from koalpaca_tune import resources

if TYPE_CHECKING:
    from jinja2 import Environment


def render(page: str, **values: Any) -> str:
    """One page as text.

    Args:
        page: file name under `pages/`, such as `comparison.html.j2`. In `*.html.j2` every value is escaped;
            SVG of `plots` is our own markup and is marked `| safe` in the template.
        values: what the template names; a name it uses that is not given is an error, never an empty string.

    Raises:
        jinja2.UndefinedError: a value is missing (our own mistake, not the user's).
    """
    return _environment().get_template(page).render(**values)


_MARKUP = re.compile(r"([\\`*_\[\]|~$])")


def markdown(text: object) -> str:
    """Text that shows as it is in Markdown, in a table's cell too: no markup, no link, no HTML, one line."""
    plain = escape(" ".join(str(text).split()), quote=False)
    return _MARKUP.sub(r"\\\1", plain)


@cache
def _environment() -> Environment:
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(resources.PAGES),
        autoescape=lambda name: bool(name) and str(name).endswith(".html.j2"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["markdown"] = markdown
    return made
