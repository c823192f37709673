"""A base of a published shape with random weights: enough for speed and memory, useless for answers.

    python bench/random_base.py polyglot-ko-5.8b FOLDER --tokenizer TOKENIZER_FOLDER

Weights are drawn on the GPU from a fixed seed and written in bfloat16 as safetensors.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import torch
import transformers

NEOX = {"vocab_size": 30080, "max_position_embeddings": 2048, "tie_word_embeddings": False}
SHAPES: dict[str, dict[str, Any]] = {
    "polyglot-ko-1.3b": {
        **NEOX, "hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 16, "rotary_pct": 0.5,
    },
    "polyglot-ko-5.8b": {
        **NEOX, "hidden_size": 4096, "num_hidden_layers": 28, "num_attention_heads": 16, "rotary_pct": 0.25,
    },
    "polyglot-ko-12.8b": {
        **NEOX, "hidden_size": 5120, "num_hidden_layers": 40, "num_attention_heads": 40, "rotary_pct": 0.5,
    },
    "llama3-8b": {
        "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        "intermediate_size": 14336, "vocab_size": 128256, "max_position_embeddings": 8192,
        "tie_word_embeddings": False,
    },
}  # fmt: skip
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def make(shape: str, folder: Path, tokenizer: Path, device: str) -> int:
    """Writes the model and copies the tokenizer; returns the number of parameters."""
    values = dict(SHAPES[shape])
    if shape.startswith("polyglot"):
        config: Any = transformers.GPTNeoXConfig(
            **values, intermediate_size=4 * values["hidden_size"], use_parallel_residual=True
        )
    else:
        config = transformers.LlamaConfig(**values)
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder, max_shard_size="4GB")
    for name in TOKENIZER_FILES:
        if (tokenizer / name).is_file():
            shutil.copyfile(tokenizer / name, folder / name)
    return sum(parameter.numel() for parameter in model.parameters())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    count = make(given.shape, given.folder, given.tokenizer, given.device)
    print(f"{given.shape}: {count / 1e9:.2f} B parameters in {given.folder}")
