"""Peak memory of a merge, for bases of one width and more and more blocks: it must not grow with their number.

    python bench/merge_memory.py --out /tmp/merge-memory --layers 2 4

Makes random GPT-NeoX bases of a width (polyglot-ko-12.8b's by default, so a few blocks tell the memory of all 40),
a LoRA adapter on all linears, and merges each in a process of its own. Prints bytes of the base, the process's
peak resident memory before and after the merge, and seconds; --jsonl keeps the rows.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from koalpaca_tune import jsonl, resources

RANK = 16


def make(folder: Path, width: int, layers: int, rows: int) -> int:
    """A random base, one block at a time; its bytes."""
    import torch
    import transformers
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    rotary = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
    shape = {"vocab_size": rows, "hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers}
    config = transformers.GPTNeoXConfig(
        **shape, num_attention_heads=width // 128, rope_parameters=rotary, tie_word_embeddings=False
    )
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    config.save_pretrained(folder)
    torch.manual_seed(0)
    groups: dict[str, list[tuple[str, torch.Size]]] = {}
    for name, parameter in model.named_parameters():
        group = name.split(".")[2] if ".layers." in name else name
        groups.setdefault(group, []).append((name, parameter.shape))
    mapped, total = {}, 0
    for n, tensors in enumerate(groups.values()):
        file = f"part-{n:03d}.safetensors"
        made = {name: (torch.randn(shape) * 0.02).bfloat16() for name, shape in tensors}
        total += sum(tensor.nbytes for tensor in made.values())
        mapped |= dict.fromkeys(made, file)
        save_file(made, folder / file, metadata={"format": "pt"})
    jsonl.write_json(folder / "model.safetensors.index.json", {"weight_map": mapped})
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(resources.EMBEDDED / name, folder)
    return total


def adapter(folder: Path, base: Path) -> None:
    """A random adapter on every linear, with a record as a 4-bit run leaves it."""
    import torch
    import transformers
    from safetensors.torch import save_file

    from koalpaca_tune.config.recipe import Quantization
    from koalpaca_tune.models import sources

    folder.mkdir(parents=True)
    config = transformers.AutoConfig.from_pretrained(base)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    targets = ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"]
    matrices = {}
    for name, module in model.named_modules():
        if name.rsplit(".", 1)[-1] in targets:
            prefix = f"base_model.model.{name}.lora_"
            matrices[f"{prefix}A.weight"] = torch.randn(RANK, module.in_features) * 0.02
            matrices[f"{prefix}B.weight"] = torch.randn(module.out_features, RANK) * 0.02
    save_file(matrices, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    said = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": 32, "target_modules": targets}
    jsonl.write_json(folder / "adapter_config.json", said)
    record = {
        "name": "memory",
        "recipe": {"quantization": Quantization().model_dump()},
        "base": {
            "path": str(base),
            "revision": None,
            "fingerprint": sources.fingerprint(str(base), None, config),
            "model_type": "gpt_neox",
        },
        "proof": {"compute_dtype": "bfloat16"},
        "template": {"name": "koalpaca"},
        "tokenizer": {},
    }
    jsonl.write_json(folder / "record.json", record)


def most() -> int:
    """Peak resident bytes of this process. getrusage's would be the parent's where that was larger at the fork."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) << 10


def merged(base: Path, folder: Path, out: Path, onto: str) -> None:
    """Merges in this process and prints its peak memory."""
    from koalpaca_tune.config.recipe import Base
    from koalpaca_tune.inference.merging.merge import merge

    before = most()
    began = time.monotonic()
    # two sentences: memory is that of weights, and the products are most of the time
    texts = ("서울은 대한민국의 수도이며, 한강이 흐른다.", "어제는 비가 많이 와서 집에서 책을 읽었습니다.")
    report = merge(Base(path=str(base)), folder, out, onto=onto, texts=texts)  # type: ignore[arg-type]
    row = {
        "imports": before,
        "peak": most(),
        "seconds": round(time.monotonic() - began, 1),
        "effect": report.effect.mean,
        "merged": report.merged.mean,
    }
    print(json.dumps(row))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--width", type=int, default=5120)
    parser.add_argument("--rows", type=int, default=30080)
    parser.add_argument("--layers", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--onto", choices=["base", "trained"], default="base")
    parser.add_argument("--jsonl", type=Path)
    parser.add_argument("--one", nargs=3, type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        merged(*args.one, args.onto)
        return
    rows = []
    for layers in args.layers:
        top = args.out / str(layers)
        size = make(top / "base", args.width, layers, args.rows)
        adapter(top / "adapter", top / "base")
        words = [
            __file__,
            "--out",
            top,
            "--onto",
            args.onto,
            "--one",
            top / "base",
            top / "adapter",
            top / "merged",
        ]
        run = subprocess.run([sys.executable, *map(str, words)], check=True, stdout=subprocess.PIPE, text=True)
        row = {"width": args.width, "layers": layers, "base": size, **json.loads(run.stdout.splitlines()[-1])}
        shutil.rmtree(top)
        rows.append(row)
        gib = {key: f"{row[key] / 2**30:.2f} GiB" for key in ("base", "imports", "peak")}
        print(
            f"{layers} blocks: base {gib['base']}, before {gib['imports']}, peak {gib['peak']}, {row['seconds']} s"
        )
    if args.jsonl:
        jsonl.write(args.jsonl, rows)


if __name__ == "__main__":
    main()
