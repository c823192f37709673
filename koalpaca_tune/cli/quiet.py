"""Libraries that print progress of their own are asked to leave the screen to us; warnings stay."""

from __future__ import annotations


def libraries() -> None:
    """Turns off transformers' loading bars, and a notice between two libraries that no user can act on."""
    import warnings

    import transformers

    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", message=".is_gradient_checkpointing. is deprecated", category=FutureWarning)
