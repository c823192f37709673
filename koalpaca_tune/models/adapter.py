"""The LoRA adapter: attached where asked, saved in PEFT's format, read back and compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from koalpaca_tune.config.recipe import Lora
from koalpaca_tune.errors import KoalpacaError, did_you_mean
from koalpaca_tune.models import adapter_files
from koalpaca_tune.models.base import Loaded

WEIGHTS = adapter_files.WEIGHTS
CONFIG = adapter_files.CONFIG


def attach(loaded: Loaded, lora: Lora, base_name: str) -> Any:
    """Adds a fresh adapter to a base; only its matrices are trainable, in float32.

    Raises:
        KoalpacaError: a target that matches nothing or nothing linear (lora-target).
    """
    check_targets(loaded, lora)
    config = peft.LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets),
        bias="none",
        task_type="CAUSAL_LM",
        # our targets are plain linear layers: their weight is [out, in]
        fan_in_fan_out=False,
    )
    model = peft.get_peft_model(loaded.model, config)
    model.peft_config["default"].base_model_name_or_path = base_name
    return model


def check_targets(loaded: Loaded, lora: Lora) -> None:
    """Every target must name a linear module of the base.

    Raises:
        KoalpacaError: naming what the base has (lora-target).
    """
    linear = Counter(
        name.rsplit(".", 1)[-1]
        for name, module in loaded.model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not loaded.model.get_output_embeddings()
    )
    check_names(lora, sorted(linear), loaded.model.config.model_type)


def check_names(lora: Lora, linears: Sequence[str], model_type: str) -> None:
    """Every target must be one of `linears`, once. Needs no weights: said before a large base is loaded.

    Raises:
        KoalpacaError: naming what the base has (lora-target).
    """
    for n, target in enumerate(lora.targets):
        if target not in linears:
            raise KoalpacaError(
                "lora-target",
                f"'{target}' matches no linear module of {model_type}.",
                where=f"lora.targets[{n}]",
                fix=did_you_mean(target, linears),
            )
    repeated = [target for target, count in Counter(lora.targets).items() if count > 1]
    if repeated:
        raise KoalpacaError("lora-target", f"'{repeated[0]}' stands twice.", where="lora.targets", fix="Keep one.")


def trainable(model: Any) -> dict[str, int]:
    """Trainable parameters by target module name."""
    counts: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            counts[name.split(".lora_")[0].rsplit(".", 1)[-1]] += parameter.numel()
    return dict(counts)


def save(model: Any, folder: Path) -> None:
    """Writes adapter_config.json and adapter_model.safetensors, reads them back and compares.

    Raises:
        KoalpacaError: the file differs from memory, or the adapter does nothing at all (adapter-dead).
    """
    # "auto" would ask the Hub for the base's config; the embeddings are frozen, so there is nothing to look for
    model.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
    # PEFT writes a model card template of its own; ours comes from `koalpaca hub card`
    (folder / "README.md").unlink(missing_ok=True)
    stored = load_file(folder / WEIGHTS)
    memory = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
    different = stored.keys() ^ memory.keys() or {
        key for key, value in stored.items() if not torch.equal(value, memory[key].cpu().to(value.dtype))
    }
    if different:
        raise KoalpacaError(
            "adapter-dead", f"the saved adapter differs from memory at {sorted(different)[0]}.", where=str(folder)
        )


def is_zero(model: Any) -> bool:
    """Whether every B matrix is still zero: such an adapter changes nothing."""
    matrices = [p for name, p in model.named_parameters() if ".lora_B." in name]
    return not any(bool(matrix.any()) for matrix in matrices)


def load(loaded: Loaded, folder: Path, *, name: str = "default", beside: Any = None) -> Any:
    """Puts a saved adapter on its base, frozen.

    Args:
        loaded: the base.
        folder: of the adapter.
        name: PEFT's name for it, without dots.
        beside: a model that this function gave for the same base: the adapter joins those that it has.

    Raises:
        KoalpacaError: not an adapter folder (adapter-missing), one that asks for more than plain LoRA
            (adapter-config), or one that is damaged or does not fit (adapter-load).
    """
    plain = adapter_files.read(folder)
    config = peft.LoraConfig(
        r=plain.r,
        lora_alpha=plain.alpha,
        lora_dropout=plain.dropout,
        target_modules=list(plain.targets),
        bias="none",
        task_type="CAUSAL_LM",
        inference_mode=True,
    )
    try:
        # the checked config, so that the file's own is not read a second time
        if beside is None:
            model = peft.PeftModel.from_pretrained(
                loaded.model, str(folder), adapter_name=name, config=config, use_safetensors=True
            )
        else:
            model = beside
            model.add_adapter(name, config)
            peft.set_peft_model_state_dict(model, load_file(folder / WEIGHTS), adapter_name=name)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        text = str(error).strip().splitlines()
        raise KoalpacaError(
            "adapter-load",
            f"the adapter does not fit the base: {text[0][:200].rstrip('.:') if text else type(error).__name__}.",
            where=str(folder),
        ) from error
    # PEFT only warns of matrices that the file lacks (they stay zero) or has too many
    stored = load_file(folder / WEIGHTS)
    different = (
        stored.keys() ^ peft.get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False).keys()
    )
    if different:
        raise KoalpacaError(
            "adapter-load",
            f"the adapter does not fit the base: {len(different)} of its matrices have no counterpart; "
            f"first: {min(different)}.",
            where=str(folder),
        )
    lost = [name for name, matrix in stored.items() if not bool(matrix.isfinite().all())]
    if lost:
        raise KoalpacaError(
            "adapter-load",
            f"{len(lost)} of its matrices hold NaN or infinity; first: {min(lost)}.",
            where=str(folder),
            fix="Train again: every answer would be lost.",
        )
    model.eval()
    return model
