"""SIGKILL at random moments, resume, and compare with the run that was left alone.

    OMP_NUM_THREADS=1 python bench/kills.py [--kills 200] [--seed 0] [--folder DIR]

A life is one run: killed, resumed, killed again, until it reaches its end. Half of the kills fall at a random
time after the process starts, half while something is being written (a name that begins with a dot and ends with
.tmp is in the run folder). After every fifth kill the disk lies too: a file of the newest checkpoint, or
metrics.jsonl, is cut short or has one bit flipped. At the end of a life the adapter, the trail of losses and the
last checkpoint are compared with those of the run that was not killed, byte for byte but for the clock.

Processes are forked from one that has the libraries and the encoded data, so that most of the time goes to runs.
Prints what was done, when the kills fell, and how many lives ended identical; exit status 1 if one did not.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import matplotlib.figure
import torch
import transformers

from koalpaca_tune import jsonl
from koalpaca_tune.cli import quiet
from koalpaca_tune.config.recipe import Recipe
from koalpaca_tune.models import tokenizer
from koalpaca_tune.runs import train as runs
from koalpaca_tune.training import checkpoint

LIVES = 9
"""Kills of one life at most; then it is let live to its end."""
CLOCK = ("seconds", "data_seconds", "tokens_per_second", "host_memory_gib")
CLOCKED = ("throughput", "stalled-data")
COMMON = {
    "data": {"max_length": 96},
    "training": {
        "max_steps": 14,
        "batch_size": 2,
        "learning_rate": 0.002,
        "warmup_steps": 2,
        "log_every": 2,
        "eval_every": 5,
        "checkpoint_every": 2,
        "keep_checkpoints": 2,
    },
    "lora": {"r": 4, "alpha": 8, "dropout": 0.1, "targets": ["query_key_value", "dense"]},
}
KINDS: dict[str, dict[str, Any]] = {
    "fast": {"engine": {"kind": "fast"}},
    "plain": {"engine": {"kind": "plain"}, "data": {"packing": False}, "training": {"log_every": 3}},
    "rolled back": {
        "base": {"path": "embedded"},
        "engine": {"kind": "fast"},
        "training": {
            "max_steps": 24,
            "log_every": 1,
            "learning_rate": 0.1,
            "warmup_steps": 60,
            "checkpoint_every": 3,
            "eval_every": 12,
        },
        "watch": {"policy": "rollback", "rollback_factor": 0.02},
    },
}
TALKS = (
    ("대한민국의 수도는 어디인가요?", "서울입니다."),
    ("비 오는 날에는 뭘 하면 좋을까?", "따뜻한 차를 마시며 책을 읽어 보세요."),
    ("한글은 누가 만들었나요?", "세종대왕이 만들었습니다."),
    ("가장 높은 산은?", "에베레스트산입니다."),
    ("고양이는 왜 울어?", "사람에게 말을 걸려고 그렇습니다."),
    ("물은 몇 도에서 끓나요?", "섭씨 백 도입니다."),
    ("여행 갈 때 꼭 챙길 것은?", "신분증과 충전기, 그리고 갈아입을 옷입니다."),
)


def small_base(folder: Path) -> None:
    """A random base of two layers with the embedded tokenizer: most of a life goes to starting and writing."""
    config = transformers.GPTNeoXConfig(
        vocab_size=len(tokenizer.load_pretrained("embedded")),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
    )
    torch.manual_seed(1)
    transformers.GPTNeoXForCausalLM(config).save_pretrained(folder)
    tokenizer.load_pretrained("embedded").save_pretrained(folder)


def recipe_of(kind: str, top: Path, name: str) -> Recipe:
    values: dict[str, Any] = {"name": "kills", "out": str(top / name), "base": {"path": str(top / "base")}}
    for section in {**COMMON, **KINDS[kind]}:
        values[section] = {**COMMON.get(section, {}), **KINDS[kind].get(section, {})}
    values["data"] |= {"train": str(top / "train.jsonl"), "valid": str(top / "valid.jsonl")}
    return Recipe.model_validate(values)


def start(recipe: Recipe, examples: runs.Examples) -> int:
    """Forks a process that trains to the end, as `koalpaca train` does; returns its id."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        with Path(f"{recipe.folder}.log").open("a", encoding="utf-8") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            resume = (Path(recipe.folder) / "run.yaml").is_file()
            folder = runs.check_folder(recipe, resume)
            runs.run(runs.make_ready(recipe, examples), folder, resume=resume)
            status = 0
    finally:
        if status:
            traceback.print_exc()
            sys.stderr.flush()
        os._exit(status)


def writing(folder: Path) -> list[str]:
    """Names of what is being written, or removed."""
    places = (folder, folder / "checkpoints", folder / "report")
    return [path.name for place in places if place.is_dir() for path in place.glob(".*.tmp")]


def phase(folder: Path) -> str:
    """What a process was doing when it was killed, by what it left."""
    left = " ".join(writing(folder))
    if ".step-" in left:
        return "writing or removing a checkpoint"
    if left:
        return "writing another file"
    if not (folder / "run.yaml").is_file():
        return "before run.yaml was there"
    if not checkpoint.listed(folder / "checkpoints"):
        return "before the first checkpoint"
    return "after the last step" if (folder / "adapter").is_dir() else "between: steps, loading, resuming"


def kill(process: int, folder: Path, seconds: float, chance: random.Random) -> bool:
    """Kills at a moment drawn; False if the process ended before (its status must be 0)."""
    end = time.perf_counter() + chance.uniform(0.0, seconds)
    at_write = chance.random() < 0.5
    while time.perf_counter() < end or at_write:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            if status:
                raise SystemExit(f"a process failed: see {folder}.log")
            return False
        if at_write and time.perf_counter() > end and writing(folder):
            time.sleep(chance.uniform(0.0, 0.004))
            break
        time.sleep(0.0002)
    os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    return os.WIFSIGNALED(status)


def lie(folder: Path, chance: random.Random) -> str | None:
    """Cuts a file short or flips a byte, as a disk may after the power went; what was done, or None."""
    listed = checkpoint.listed(folder / "checkpoints")
    if chance.random() < 0.3 and (folder / "metrics.jsonl").is_file():
        file = folder / "metrics.jsonl"
    elif len(listed) > 1 and not any(checkpoint.fault(path) for path in listed):
        file = listed[-1] / chance.choice([*checkpoint.FILES, checkpoint.SUMS])
    else:
        return None
    content = bytearray(file.read_bytes())
    if not content:
        return None
    if chance.random() < 0.5:
        del content[chance.randrange(len(content)) :]
    else:
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    file.write_bytes(content)
    return "metrics.jsonl" if file.name == "metrics.jsonl" and file.parent == folder else "the newest checkpoint"


def live(
    recipe: Recipe,
    examples: runs.Examples,
    seconds: float,
    chance: random.Random,
    kills: int,
    counts: collections.Counter[str],
) -> None:
    """One life, with at most so many kills; `seconds`: of a run that is left alone."""
    folder = Path(recipe.folder)
    for _ in range(kills):
        if not kill(start(recipe, examples), folder, 0.8 * seconds, chance):
            return
        counts["kills"] += 1
        counts[f"killed {phase(folder)}"] += 1
        if counts["kills"] % 5 == 0 and (told := lie(folder, chance)):
            counts[f"then cut short or flipped a bit of {told}"] += 1
    _, status = os.waitpid(start(recipe, examples), 0)
    if status:
        raise SystemExit(f"a process failed: see {folder}.log")


def result(folder: Path) -> dict[str, Any]:
    """All that must be the same."""
    rows = []
    for _, row in jsonl.read(folder / "metrics.jsonl"):
        named = [name for name in row.get("notices", []) if name not in CLOCKED]
        rows.append({**{key: value for key, value in row.items() if key not in CLOCK}, "notices": named})
    last = checkpoint.listed(folder / "checkpoints")[-1]
    state = json.loads((last / checkpoint.STATE).read_text(encoding="utf-8"))
    for name in ("seconds", "data_seconds"):
        del state["window"][name]
    record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    return {
        "trail": rows,
        "adapter": (folder / "adapter/adapter_model.safetensors").read_bytes(),
        "tensors": (last / checkpoint.TENSORS).read_bytes(),
        "state": state,
        "checkpoints": [path.name for path in checkpoint.listed(folder / "checkpoints")][-2:],
        "rollbacks": record["rollbacks"],
        "result": {key: value for key, value in record["result"].items() if "second" not in key},
        "left": writing(folder),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where runs are kept; default: a folder that is removed")
    given = parser.parse_args()
    quiet.libraries()
    torch.set_num_threads(1)
    matplotlib.figure.Figure()  # read before the first fork
    chance = random.Random(given.seed)
    began = time.perf_counter()
    counts: collections.Counter[str] = collections.Counter()
    different: list[str] = []
    with tempfile.TemporaryDirectory() as spare:
        top = given.folder or Path(spare)
        top.mkdir(parents=True, exist_ok=True)
        for part, talks in (("train", TALKS[:-2]), ("valid", TALKS[-2:])):
            turns = [[("user", question), ("assistant", answer)] for question, answer in talks]
            rows = [{"messages": [{"role": r, "content": c} for r, c in one]} for one in turns]
            jsonl.write(top / f"{part}.jsonl", rows)
        small_base(top / "base")
        whole: dict[str, tuple[runs.Examples, float, dict[str, Any]]] = {}
        for kind in KINDS:
            recipe = recipe_of(kind, top, f"whole-{kind.split()[0]}")
            examples = runs.read_examples(recipe)
            at = time.perf_counter()
            _, status = os.waitpid(start(recipe, examples), 0)
            if status:
                raise SystemExit(f"the run that is left alone failed: see {recipe.folder}.log")
            whole[kind] = (examples, time.perf_counter() - at, result(Path(recipe.folder)))
            rolled = len(whole[kind][2]["rollbacks"])
            if ("watch" in KINDS[kind]) != bool(rolled):
                raise SystemExit(f"{kind}: {rolled} rollbacks; another learning rate is needed to show them")
            print(f"{kind}: {whole[kind][1]:.2f} s left alone, {rolled} rollbacks", flush=True)
        while counts["kills"] < given.kills:
            kind = ("fast", "plain", "fast", "plain", "rolled back")[counts["lives"] % 5]
            examples, seconds, expected = whole[kind]
            recipe = recipe_of(kind, top, f"life-{counts['lives']}")
            live(recipe, examples, seconds, chance, min(LIVES, given.kills - counts["kills"]), counts)
            counts["lives"] += 1
            found = result(Path(recipe.folder))
            wrong = [name for name, value in expected.items() if found[name] != value]
            if wrong:
                different.append(f"life {counts['lives'] - 1} ({kind}): {', '.join(wrong)}")
                print(different[-1], flush=True)
    print(f"kills: {counts['kills']} in {counts['lives']} lives, {time.perf_counter() - began:.0f} s")
    for name, count in counts.most_common():
        if name not in ("kills", "lives"):
            print(f"  {name}: {count}")
    same = counts["lives"] - len(different)
    print(f"identical to the run that was left alone: {same} of {counts['lives']} lives")
    return 1 if different else 0


if __name__ == "__main__":
    raise SystemExit(main())
