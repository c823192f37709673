"""Libraries that print progress of their own are asked to leave the screen to us; warnings stay."""

from __future__ import annotations


def libraries() -> None:
    """Turns off transformers' loading bars, and two notices that no user can act on."""
    import logging
    import warnings

    # on the CPU it would fetch a kernel from the Hub, and regrets that it cannot
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    import transformers

    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", message=".is_gradient_checkpointing. is deprecated", category=FutureWarning)
