"""Pages from the shipped Jinja templates; everything a page shows is escaped unless the page says otherwise."""

from __future__ import annotations

from functools import cache
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


@cache
def _environment() -> Environment:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(resources.PAGES),
        autoescape=lambda name: bool(name) and str(name).endswith(".html.j2"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
