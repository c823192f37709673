"""`koalpaca eval`: the base, and with an adapter the tuned model too, on the same items in one process.

OUT/base and OUT/adapter each hold a whole result; a base already judged with the same identity is not
judged again.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from koalpaca_tune.config.recipe import Evaluation
from koalpaca_tune.data.load import conversations
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.evaluation import run as evaluation
from koalpaca_tune.evaluation import tasks
from koalpaca_tune.evaluation.protocol import Progress
from koalpaca_tune.records import Conversation
from koalpaca_tune.runs import record
from koalpaca_tune.runs.adapters import Choices, open_model

WEIGHTS = "adapter_model.safetensors"


def evaluate(
    choices: Choices,
    suite: str | None,
    out: Path,
    *,
    heldout: Path | None,
    data_root: Path | None,
    progress: Progress,
) -> list[Path]:
    """Judges the base into OUT/base and, with an adapter, the tuned model into OUT/adapter.

    Args:
        suite: name of a suite; None takes the adapter's recipe's, or ko-mini.
        heldout: conversations to score and answer as well; None takes the recipe's data.valid when it is there.

    Returns:
        The folders written.

    Raises:
        KoalpacaError: anything wrong with suite, data, base or adapter.
    """
    defaults = choices.recipe.evaluation if choices.recipe else Evaluation()
    chosen = tasks.load_suite(suite or defaults.suite)
    held = _heldout(choices, heldout)
    lm = open_model(choices)
    identity: dict[str, Any] = {
        "base": choices.base.path,
        "base_fingerprint": lm.loaded.fingerprint,
        "adapter": None,
        "template": choices.template,
        "template_sha256": record.template_hash(lm.encoder),
        "tokenizer_sha256": record.tokenizer_hash(lm.encoder),
        "quantization": choices.quantization.model_dump(),
        "compute_dtype": str(lm.loaded.compute_dtype).removeprefix("torch."),
    }
    folders = []
    models: list[tuple[str, str | None, Any]] = [
        ("base", None, lm.without_adapter if choices.adapter else nullcontext)
    ]
    if choices.adapter is not None:
        models.append(("adapter", record.sha256(choices.adapter / WEIGHTS)[:16], nullcontext))
    for name, adapter, switched in models:
        label = partial(_labelled, progress, name)
        with switched():
            evaluation.evaluate(
                chosen,
                lm,
                lm.encoder.render,
                out / name,
                identity={**identity, "adapter": adapter},
                heldout=held,
                data_root=data_root,
                max_new_tokens=defaults.max_new_tokens,
                heldout_limit=defaults.heldout_limit,
                progress=label,
            )
        folders.append(out / name)
    return folders


def _labelled(progress: Progress, name: str, what: str, done: int, total: int) -> None:
    progress(f"{name}: {what}", done, total)


def _heldout(choices: Choices, heldout: Path | None) -> Sequence[Conversation]:
    if heldout is not None:
        return list(conversations(heldout))
    if choices.recipe is None or choices.recipe.data.valid is None:
        return ()
    path = Path(choices.recipe.data.valid)
    if not path.is_file():
        raise KoalpacaError(
            "heldout-missing",
            "the recipe's validation file is not there, so held-out answers cannot be judged.",
            where=str(path),
            fix="Give it with --heldout FILE, or run from the folder that you trained in.",
        )
    return list(conversations(path))
