"""Answers that take half a minute: no cache, an unmerged adapter on a 4-bit base."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from koalpaca_tune.inference.language_model import TorchLanguageModel
from koalpaca_tune.models import forward
from koalpaca_tune.records import Conversation, Turn

QUESTION = Conversation((Turn("user", "비 오는 날에는 뭘 하면 좋을까?"),))
NEW = 12


class Positions:
    """How many positions a model's embedding looks up while it is entered."""

    def __init__(self, model: Any) -> None:
        self.count = 0
        self._embedding = forward.causal(model).get_input_embeddings()

    def __enter__(self) -> Positions:
        def note(module: Any, inputs: Sequence[torch.Tensor]) -> None:
            self.count += inputs[0].numel()

        self._handle = self._embedding.register_forward_pre_hook(note)
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.remove()


def test_koalpaca_62_51_73_34_a_model_in_training_writes_with_its_cache(
    pains_recipe: Any, make_ready: Any, tmp_path: Path
) -> None:
    """30-60 s for an answer: the trainer turned the cache off, for recomputation, and it stayed off."""
    ready = make_ready(pains_recipe(tmp_path / "run"))
    ready.trainer.model.train()
    assert ready.trainer.model.is_gradient_checkpointing, "as it is in the middle of a run"
    lm = TorchLanguageModel(ready.trainer.model, ready.loaded, ready.examples.encoder)
    prompt = lm.encoder.render(QUESTION)
    asked = len(lm.encoder.prompt(prompt))
    with Positions(lm.model) as seen:
        (answer,) = lm.write([prompt], NEW)
    assert answer.tokens == NEW
    # each position once: without a cache every new token would look up the whole text again
    assert seen.count <= asked + NEW


def test_bitsandbytes_611_490_a_merged_model_is_plain(merged_neox: Path) -> None:
    """4-bit products and an adapter beside them are slow; `koalpaca merge` leaves one plain matrix of each pair."""
    model = transformers.AutoModelForCausalLM.from_pretrained(merged_neox)
    kinds = {type(module).__name__ for module in model.modules() if hasattr(module, "in_features")}
    assert kinds == {"Linear"}
    assert not [name for name, _ in model.named_parameters() if "lora" in name]
    assert model.config.use_cache
    assert getattr(model.config, "quantization_config", None) is None
