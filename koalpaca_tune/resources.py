"""Where the shipped files lie: in the wheel beside the package, in a checkout at its top level."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def _root(installed: str, checkout: str) -> Path:
    inside = PACKAGE / installed
    return inside if inside.is_dir() else PACKAGE.parent / checkout


DATA = _root("_data", "data")
"""Shipped knowledge of data: samples/*, sources/*.yaml."""

EVAL = _root("_eval", "eval")
"""What "better" means: tasks/*.yaml, suites/*.yaml, items/."""

EMBEDDED = PACKAGE / "embedded"
"""The embedded Korean base model and its tokenizer."""

RECIPES = PACKAGE / "recipes"
"""The shipped recipes, one YAML file each."""

PAGES = PACKAGE / "pages"
"""Jinja templates of reports and the model card."""
