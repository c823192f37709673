"""What `accelerate launch` asks for through the environment: refused where this loop would not do it.

The launcher hands its options over as variables, and accelerate takes them whatever its caller says: a gradient
accumulation of 8 would divide every gradient by 8, unseen. How a run computes is said in the recipe alone.
"""

from __future__ import annotations

from collections.abc import Mapping

from koalpaca_tune.errors import KoalpacaError, Problem

NONE = ("", "0", "1", "no", "none", "false")
"""Values that ask for nothing."""

REFUSED: dict[str, tuple[str, str]] = {
    "ACCELERATE_USE_FSDP": ("FSDP, which would shard a frozen 4-bit base", "Each process holds the whole base"),
    "ACCELERATE_USE_DEEPSPEED": ("DeepSpeed, which would shard a 4-bit base", "Each process holds the whole base"),
    "ACCELERATE_USE_MEGATRON_LM": ("Megatron-LM", "Each process holds the whole base"),
    "ACCELERATE_USE_PARALLELISM_CONFIG": ("a parallelism of its own", "Each process holds the whole base"),
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": (
        "gradient accumulation, which would divide every gradient once more",
        "A step is training.batch_size rows, however it is cut",
    ),
    "ACCELERATE_DYNAMO_BACKEND": ("torch.compile", "engine.kind says what computes"),
}
"""Variable -> what it asks for, and how that is here."""
SWITCHES = "ACCELERATE_USE_"
"""Beginning of variables that are on or off: there a 1 asks for something."""
PRECISION = "ACCELERATE_MIXED_PRECISION"


def check(environment: Mapping[str, str], mixed_precision: str) -> None:
    """Refuses a launcher's options that would have another effect than the recipe, or none.

    Args:
        environment: variables of this process.
        mixed_precision: that the recipe leads to: bf16 or no.

    Raises:
        KoalpacaError: one of `REFUSED`, or another precision (launch-option), all at once.
    """
    problems = [
        _problem(name, environment[name], what, here)
        for name, (what, here) in REFUSED.items()
        if _asks(name, environment.get(name, ""))
    ]
    wanted = environment.get(PRECISION, "")
    if wanted.lower() not in (*NONE, mixed_precision):
        here = "quantization.bnb_4bit_compute_dtype says in which type"
        problems.append(_problem(PRECISION, wanted, f"mixed precision, and the run is in {mixed_precision}", here))
    if problems:
        raise KoalpacaError.of(problems)


def _asks(name: str, value: str) -> bool:
    nothing = [word for word in NONE if word != "1" or not name.startswith(SWITCHES)]
    return value.lower() not in nothing


def _problem(name: str, value: str, what: str, here: str) -> Problem:
    return Problem(
        "launch-option",
        f"the launcher asks for {what}.",
        f"{name}={value}",
        f"{here}. Leave it out of the launcher's options and of its config file, or unset the variable.",
    )
