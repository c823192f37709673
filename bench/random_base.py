"""A base of a published shape with random weights: enough for speed and memory, useless for answers.

    python bench/random_base.py polyglot-ko-5.8b FOLDER [--tokenizer TOKENIZER_FOLDER]

Weights are drawn on the GPU from a fixed seed and written in bfloat16 as safetensors (5.8B: 20 s on a memory disk).
Without --tokenizer a word list of 260 entries stands beside them: enough for the benches that draw ids.
The shapes are those of bench/shapes.py; `tiny-neox` and `tiny-llama` are for a CPU.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import shapes
import torch
import transformers

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def make(shape: str, folder: Path, tokenizer: Path | None, device: str) -> int:
    """Writes the model and its tokenizer; returns the number of parameters."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(shapes.config(shape))
    model.save_pretrained(folder, max_shard_size="4GB")
    if tokenizer is None:
        shapes.tokenizer().save_pretrained(folder)
    else:
        for name in TOKENIZER_FILES:
            if (tokenizer / name).is_file():
                shutil.copyfile(tokenizer / name, folder / name)
    return sum(parameter.numel() for parameter in model.parameters())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=shapes.SHAPES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokenizer", type=Path, help="folder whose tokenizer is copied; default: a word list")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    count = make(given.shape, given.folder, given.tokenizer, given.device)
    print(f"{given.shape}: {count / 1e9:.2f} B parameters in {given.folder}")
