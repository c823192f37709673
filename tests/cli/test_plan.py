"""`koalpaca plan`: what it prints, what it reads, what it refuses; and it loads no heavy library."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from koalpaca_tune import jsonl
from koalpaca_tune.cli import plan as command
from koalpaca_tune.cli.main import cli
from koalpaca_tune.config import load
from koalpaca_tune.planner import memory, seconds
from koalpaca_tune.planner.card import CARDS
from koalpaca_tune.records import Conversation
from koalpaca_tune.runs import plan as runs

SHAPE = ["--shape", "polyglot-ko-5.8b"]


def plan(*words: str | Path) -> Result:
    return CliRunner(env={"COLUMNS": "160"}).invoke(cli, ["plan", *map(str, words)], catch_exceptions=False)


def printed(*words: str | Path) -> str:
    done = plan(*words)
    assert done.exit_code == 0, done.output
    return done.stdout


def refused(*words: str | Path) -> str:
    done = plan(*words)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "Traceback" not in done.output
    return done.stderr


def number(text: str, label: str) -> float:
    """The first number of the line that begins with a label."""
    line = next(line for line in text.splitlines() if line.startswith(label))
    found = re.search(r"[\d,]+\.?\d*", line[len(label) :])
    assert found is not None
    return float(found.group().replace(",", ""))


def test_a_plan_says_card_base_choice_memory_time_and_alternatives() -> None:
    text = printed("polyglot-ko-5.8b", *SHAPE, "--card", "4090", "training.batch_size=8", "data.max_length=2048")
    for said in (
        "카드 (card)", "estimated from the datasheet", "5,885,059,072", "r 8: query_key_value",
        "micro_tokens", "recompute", "cached_blocks", "모두 (peak)", "토큰/초 (tokens/s)", "MFU",
        "recompute offload", "읽지 않음", "--tokens",
    ):  # fmt: skip
        assert said in text
    assert number(text, "메모리 (memory)") == 23.5
    assert number(text, "모두 (peak)") <= number(text, "쓸 수 있는 만큼 (budget)") == 22.5


def test_the_parts_add_up_to_what_stands_below_them() -> None:
    text = printed("llama3-8b-all", "--shape", "llama-3-8b", "--card", "h200")
    lines = text.splitlines()
    start = next(n for n, line in enumerate(lines) if "(peak memory, predicted)" in line)
    parts = []
    for line in lines[start + 1 :]:
        size = (
            float(line.split(" GiB")[0].split()[-1])
            if " GiB" in line
            else float(line.split(" MiB")[0].split()[-1]) / 1024
        )
        if line.startswith("모두"):
            assert sum(parts) == pytest.approx(size, abs=0.1)
            break
        parts.append(size)
    else:
        pytest.fail("no sum")


def test_time_and_cost_of_a_run() -> None:
    """200 million tokens at the speed that is printed, for 2 an hour."""
    text = printed(
        "polyglot-ko-1.3b", "--shape", "polyglot-ko-1.3b", "--card", "l4", "--tokens", "200000000", "--price", "2"
    )
    hours = 200_000_000 / number(text, "토큰/초 (tokens/s)") / 3600
    assert hours > 1.5, "a run of minutes would be printed in minutes"
    assert number(text, "시간, 검증 빼고 (time, validation aside)") == pytest.approx(hours, rel=0.02)
    assert number(text, "비용 (cost)") == pytest.approx(2 * hours, rel=0.01)
    assert number(text, "토큰 (tokens)") == 200_000_000


def test_less_memory_is_another_plan_and_recompute_is_fixed_by_the_recipe() -> None:
    words = ("polyglot-ko-5.8b", *SHAPE, "--card", "h200", "training.batch_size=8", "data.max_length=2048")
    whole, less = printed(*words), printed(*words, "--budget", "8")
    assert number(less, "모두 (peak)") <= 8 < number(whole, "모두 (peak)")
    assert number(less, "토큰/초 (tokens/s)") < number(whole, "토큰/초 (tokens/s)")
    wide = printed(*words, "engine.recompute=wide")
    assert "MLP의 넓은 값 (wide)" in wide
    assert "recompute none" not in wide
    by_recipe = printed(*words, "engine.memory_budget=8")
    # less what the allocator keeps beyond what is in use
    assert number(by_recipe, "쓸 수 있는 만큼 (budget)") == 7.8


def test_a_plan_for_smaller_cards_stands_below() -> None:
    text = printed("polyglot-ko-12.8b", "--shape", "polyglot-ko-12.8b", "--card", "h200", "--budget", "100")
    speeds = [number(text, f"{gib} GiB라면 (with {gib} GiB)") for gib in (80, 48, 24)]
    assert speeds == sorted(speeds, reverse=True)
    assert "들어가지 않음" in printed(
        "polyglot-ko-12.8b", "--shape", "polyglot-ko-12.8b", "--card", "h200", "engine.recompute=none",
        "engine.micro_tokens=16384",
    )  # fmt: skip


def test_products_in_eight_bits_are_said_and_are_faster() -> None:
    words = ("polyglot-ko-5.8b", *SHAPE, "--card", "h200", "training.batch_size=8", "data.max_length=2048")
    half, narrow = printed(*words), printed(*words, "engine.compute=fp8")
    assert "fp8 (e4m3)" in narrow
    assert "fp8" not in half
    assert number(narrow, "8비트 행렬곱 (fp8 matmuls)") == 1285
    assert number(narrow, "토큰/초 (tokens/s)") > 1.3 * number(half, "토큰/초 (tokens/s)")


def test_the_plain_engine_says_so() -> None:
    assert "plain" in printed("polyglot-ko-5.8b", *SHAPE, "--card", "h200", "engine.kind=plain")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([*SHAPE, "--card", "l4", "--budget", "3"], "memory-short", "2.9 GiB may be used"),
        (
            [*SHAPE, "--card", "4090", "--budget", "80"],
            "memory-budget",
            "--budget: 80 GiB are more than the 23.5 GiB",
        ),
        ([*SHAPE, "--card", "4090", "engine.memory_budget=80"], "memory-budget", "engine.memory_budget: 80 GiB"),
        (["--shape", "polyglot-ko-5.8"], "base-shape", "Did you mean 'polyglot-ko-5.8b'?"),
        (["--shape", "llama-3-8b"], "lora-target", "'query_key_value' matches no linear module of llama"),
        ([*SHAPE, "engine.cached_blocks=99"], "cached-blocks", "the base has 28"),
        ([*SHAPE, "--card", "3090", "engine.compute=fp8"], "engine-unsupported", "engine.compute: 'fp8' cannot be"),
        ([*SHAPE, "--card", "cpu", "engine.compute=fp8"], "engine-unsupported", "it needs a CUDA card"),
        (
            [*SHAPE, "engine.compute=fp8", "quantization.bnb_4bit_compute_dtype=float32"],
            "engine-unsupported",
            "would be float32",
        ),
        (["base.path=./lacking"], "base-missing", "./lacking"),
        ([*SHAPE, "engine.recomput=none"], "config-unknown-key", "engine.recompute"),
    ],
)
def test_what_cannot_be_is_refused(words: list[str], code: str, said: str) -> None:
    if "--card" not in words:
        words = [*words, "--card", "h200"]
    told = refused("polyglot-ko-5.8b", *words)
    assert told.startswith(f"error [{code}]: ")
    assert said in told


def test_a_price_without_a_length_would_say_nothing() -> None:
    done = plan("polyglot-ko-5.8b", *SHAPE, "--card", "h200", "--price", "3")
    assert done.exit_code == 2
    assert "--tokens" in done.stderr


@pytest.fixture
def folder(tmp_path: Path, conversations: Sequence[Conversation]) -> Path:
    """Data for the embedded base."""
    jsonl.write(tmp_path / "train.jsonl", (one.as_dict() for one in conversations))
    return tmp_path


def test_data_that_is_there_is_counted(folder: Path, conversations: Sequence[Conversation]) -> None:
    words = ("demo", f"data.train={folder}/train.jsonl", "--card", "cpu", "data.packing=false", "training.epochs=2")
    text = printed(*words, "training.batch_size=5")
    assert "읽지 않음" not in text
    recipe = load.load("demo", [*words[1:2], *words[4:], "training.batch_size=5"])
    found = runs.make(recipe, CARDS["cpu"], 8 << 30).lengths
    assert found.steps == 2 * -(-len(conversations) // 5) == number(text, "단계 (steps)")
    assert found.tokens == number(text, "토큰 (tokens)")
    assert found.longest_document <= found.longest_row <= 256
    assert found.longest_document <= found.step_tokens <= 5 * found.longest_row
    # tokens of another run, at the same lengths
    assert number(printed(*words, "--tokens", "123456"), "토큰 (tokens)") == 123456


def test_max_steps_says_how_long_a_run_is_without_data() -> None:
    text = printed("polyglot-ko-5.8b", *SHAPE, "--card", "h200", "training.max_steps=7", "training.batch_size=2")
    assert number(text, "토큰 (tokens)") == 7 * 2 * 1024


def test_the_base_is_read_from_its_config_alone(tmp_path: Path, tiny_bases: dict[str, str]) -> None:
    config = json.loads((Path(tiny_bases["llama"]) / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    text = printed("llama3-8b", f"base.path={tmp_path}", "--card", "4090", "data.train=lacking.jsonl")
    width, layers, vocabulary = config["hidden_size"], config["num_hidden_layers"], config["vocab_size"]
    heads = width * width * 2 + 2 * width * width // 2
    every = layers * (heads + 3 * width * config["intermediate_size"] + 2 * width)
    assert number(text, "파라미터 (parameters)") == every + 2 * vocabulary * width + width


def test_this_machine_is_looked_at() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("asks for a machine without a card")
    text = printed("demo", "--card", "this", "data.train=lacking.jsonl")
    assert number(text, "행렬곱 (matmuls)") > 0
    assert "measured just now" in text
    assert "아니오 (no)" in text


def test_neither_torch_nor_transformers_is_imported() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from koalpaca_tune.cli.main import cli\n"
        "known, embedded = ['llama3-8b', '--shape', 'llama-3-8b'], ['demo', 'data.train=lacking.jsonl']\n"
        "for words in (known, embedded):\n"
        "    done = CliRunner().invoke(cli, ['plan', *words, '--card', 'l4'], catch_exceptions=False)\n"
        "    assert done.exit_code == 0, done.output\n"
        "print([name for name in ('torch', 'transformers', 'peft', 'bitsandbytes') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("gpt_neox", {}),
        ("llama", {}),
        ("gpt_neox", {"hidden_act": "gelu_new"}),
        ("gpt_neox", {"use_parallel_residual": False}),
        ("gpt_neox", {"hidden_dropout": 0.1}),
        ("llama", {"hidden_act": "gelu"}),
        ("llama", {"attention_dropout": 0.1}),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}}),
        ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}}),
    ],
)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_fast_is_what_the_engine_can_do(family: str, changes: dict[str, Any], dtype: str) -> None:
    import torch
    import transformers

    from koalpaca_tune.planner.support import obstacle

    made = transformers.GPTNeoXConfig if family == "gpt_neox" else transformers.LlamaConfig
    config = made(**changes)
    recipe = load.load("polyglot-ko-5.8b", [f"quantization.bnb_4bit_compute_dtype={dtype}"])
    # as it is written, and with what a file may leave out
    for written in (config.to_dict(), {"model_type": family} | changes):
        fast = runs._fast(recipe, SimpleNamespace(**written))
        assert fast == (obstacle(config, getattr(torch, dtype)) is None)


def test_every_card_and_every_part_has_a_word() -> None:
    assert set(command.CARD_NAMES) == {"this", *CARDS}
    assert tuple(command.MEMORY) == memory.PARTS
    assert tuple(command.SECONDS) == seconds.PARTS
