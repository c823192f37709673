"""Libraries that print progress of their own are asked to leave the screen to us; warnings stay."""

from __future__ import annotations


def libraries() -> None:
    """Turns off transformers' loading bars."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
