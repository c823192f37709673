"""Load on `koalpaca serve`: many clients for some minutes, every answer compared with what one client alone gets.

    python bench/serve_load.py                       # 64 clients, 300 s, the embedded base with two random adapters
    python bench/serve_load.py --seconds 20 --clients 16
    python bench/serve_load.py --adapter one=runs/one/adapter --out runs/serve-load.jsonl

The server is the real command in a process of its own. Prints requests, errors, mixed-up answers, latency
percentiles and the server's memory over time; ends with status 1 if an answer was lost or was another's.
Some clients stream, some vanish in the middle of an answer, and some ask with a seed. Greedy answers have to be the
same to the letter. A drawn one may part from the known one where a draw falls within rounding of a bound: that is
counted ("drawn otherwise"); it is wrong if it begins otherwise, or is the answer to another request.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import openai
import psutil

QUESTIONS = (
    "비 오는 날에는 뭘 하면 좋을까?",
    "고양이는 왜 야옹 하고 울어?",
    "대한민국의 수도는 어디인가요?",
    "김치찌개를 끓이려면 무엇이 필요해?",
    "한글은 누가 만들었나요?",
    "잠이 안 올 때 어떻게 하지?",
    "가장 높은 산은 어디에 있어?",
    "여행 갈 때 꼭 챙길 것은?",
)
SYSTEMS = (None, "짧게 답하세요.", "존댓말로 답하는 친절한 상담원입니다. 모르는 것은 모른다고 하세요.")


@dataclass(frozen=True)
class Ask:
    """A request whose answer is known: greedy, or drawn with a seed."""

    model: str
    question: str
    system: str | None
    limit: int
    seed: int | None

    def body(self) -> dict[str, Any]:
        head = [{"role": "system", "content": self.system}] if self.system else []
        drawn = {"temperature": 0.0} if self.seed is None else {"temperature": 0.8, "top_p": 0.9, "seed": self.seed}
        messages = [*head, {"role": "user", "content": self.question}]
        return {"model": self.model, "messages": messages, "max_tokens": self.limit, **drawn}


@dataclass
class Told:
    """What came of it all."""

    counts: Counter[str] = field(default_factory=Counter)
    whole: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    tokens: int = 0
    wrong: list[str] = field(default_factory=list)


def random_adapter(folder: Path, seed: int) -> Path:
    """An adapter of the embedded base that has learned nothing: its answers differ from the base's."""
    import torch

    from koalpaca_tune import jsonl
    from koalpaca_tune.config import load as recipes
    from koalpaca_tune.config.recipe import Lora
    from koalpaca_tune.models import adapter, base

    recipe = recipes.load("demo", ["quantization.load_in_4bit=false"])
    loaded = base.load(recipe.base, recipe.quantization)
    lora = Lora(r=4 * seed, alpha=16, dropout=0.0, targets=["query_key_value", "dense_4h_to_h"])
    model = adapter.attach(loaded, lora, "embedded")
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter.normal_(std=0.02)
    adapter.save(model, folder)
    entry = {"path": "embedded", "revision": None, "fingerprint": loaded.fingerprint, "model_type": "gpt_neox"}
    jsonl.write_json(folder / "record.json", {"name": folder.name, "recipe": recipe.model_dump(), "base": entry})
    return folder


def started(words: Sequence[str]) -> tuple[subprocess.Popen[str], str]:
    """The server, once it says where it listens."""
    command = [sys.executable, "-m", "koalpaca_tune.cli.main", "serve", *words, "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"COLUMNS": "200"})
    assert process.stdout is not None
    for line in process.stdout:
        print(f"  {line.rstrip()}")
        if line.startswith("http://"):
            url = line.split()[0]
        if line.startswith("Ctrl-C"):
            break
    else:
        raise SystemExit("the server did not start")
    while True:
        try:
            httpx2.get(url.removesuffix("/v1") + "/health")
            return process, url
        except httpx2.ConnectError:
            time.sleep(0.05)


async def known(client: openai.AsyncOpenAI, asks: Sequence[Ask]) -> dict[Ask, tuple[str, int]]:
    """Each answer as one client alone gets it."""
    found = {}
    for ask in asks:
        reply = await client.chat.completions.create(**ask.body())
        found[ask] = (reply.choices[0].message.content or "", reply.usage.completion_tokens)
    return found


async def one_client(
    number: int, client: openai.AsyncOpenAI, wanted: dict[Ask, tuple[str, int]], until: float, told: Told
) -> None:
    own = random.Random(number)
    asks = list(wanted)
    while time.monotonic() < until:
        ask, way = own.choice(asks), own.choices(("whole", "stream", "vanish"), (6, 5, 1))[0]
        begun = time.monotonic()
        try:
            if way == "whole":
                reply = await client.chat.completions.create(**ask.body())
                text, tokens = reply.choices[0].message.content or "", reply.usage.completion_tokens
            else:
                text, tokens = await streamed(client, ask, begun, told, vanish=way == "vanish", own=own)
        except openai.RateLimitError as error:
            told.counts["429"] += 1
            await asyncio.sleep(float(error.response.headers["retry-after"]) * own.uniform(0.5, 1.5))
            continue
        except openai.OpenAIError as error:
            told.counts[f"error {type(error).__name__}"] += 1
            told.wrong.append(f"{ask}: {error}")
            continue
        told.counts[way] += 1
        if way == "vanish":
            continue
        told.whole.append(time.monotonic() - begun)
        told.tokens += tokens
        told.counts["greedy" if ask.seed is None else "drawn"] += 1
        if (text, tokens) == wanted[ask]:
            continue
        others = {text for other, (text, _) in wanted.items() if other != ask}
        if ask.seed is not None and text not in others and text[:3] == wanted[ask][0][:3]:
            # a draw that falls within rounding of a bound: what is summed in a batch is summed in another order
            told.counts["drawn otherwise"] += 1
        else:
            told.wrong.append(f"{ask}: {text!r} ({tokens}), wanted {wanted[ask]!r}")


async def streamed(
    client: openai.AsyncOpenAI, ask: Ask, begun: float, told: Told, *, vanish: bool, own: random.Random
) -> tuple[str, int]:
    text, tokens, after = "", 0, own.randrange(1, 12)
    stream = await client.chat.completions.create(**ask.body(), stream=True, stream_options={"include_usage": True})
    async with stream:
        async for chunk in stream:
            if chunk.usage is not None:
                tokens = chunk.usage.completion_tokens
            for choice in chunk.choices:
                if choice.delta.content and not text:
                    told.first.append(time.monotonic() - begun)
                text += choice.delta.content or ""
            after -= 1
            if vanish and after == 0:
                break
    return text, tokens


async def watched(process: psutil.Process, top: str, until: float, rows: list[dict[str, Any]]) -> None:
    """Memory, threads and open files of the server, every few seconds."""
    begun = time.monotonic()
    async with httpx2.AsyncClient() as client:
        while time.monotonic() < until:
            try:
                health = (await client.get(f"{top}/health", timeout=30)).json()
            except httpx2.HTTPError as error:
                health = {"status": type(error).__name__}
            rows.append(
                {
                    "s": round(time.monotonic() - begun, 1),
                    "rss_mib": round(process.memory_info().rss / 2**20, 1),
                    "threads": process.num_threads(),
                    "files": process.num_fds(),
                    **health,
                }
            )
            await asyncio.sleep(5)


def percentiles(values: Sequence[float]) -> str:
    if not values:
        return "-"
    ordered = sorted(values)
    parts = (f"p{p} {ordered[min(len(ordered) - 1, len(ordered) * p // 100)]:.2f}" for p in (50, 90, 95, 99))
    return f"{'  '.join(parts)}  max {ordered[-1]:.2f} s"


async def load(
    args: argparse.Namespace, url: str, names: Sequence[str], pid: int
) -> tuple[Told, list[dict[str, Any]]]:
    limits = httpx2.Limits(max_connections=None)
    client = openai.AsyncOpenAI(
        base_url=url, api_key="none", max_retries=0, timeout=600, http_client=httpx2.AsyncClient(limits=limits)
    )
    own = random.Random(0)
    asks = [
        Ask(model, question, own.choice(SYSTEMS), own.choice((8, 16, 32, 48)), own.choice((None, None, n)))
        for n, question in enumerate(QUESTIONS)
        for model in names
    ]
    print(f"{len(asks)} answers by one client alone ...", flush=True)
    wanted = await known(client, asks)
    print(f"{len(set(wanted.values()))} of them are different")
    told, rows = Told(), []  # type: ignore[var-annotated]
    until = time.monotonic() + args.seconds
    top = url.removesuffix("/v1")
    watch = asyncio.create_task(watched(psutil.Process(pid), top, until, rows))
    await asyncio.gather(*(one_client(n, client, wanted, until, told) for n in range(args.clients)))
    await watch
    for _ in range(100):
        health = httpx2.get(f"{top}/health").json()
        if health["live"] == health["waiting"] == 0:
            break
        await asyncio.sleep(0.1)
    rows.append({"s": "end", "rss_mib": round(psutil.Process(pid).memory_info().rss / 2**20, 1), **health})
    return told, rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="embedded")
    parser.add_argument("--adapter", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--slots", type=int, default=32)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        adapters = args.adapter or [
            f"{name}={random_adapter(Path(folder) / name, n)}" for n, name in ((1, "a"), (2, "b"))
        ]
        words = [args.base, *(part for one in adapters for part in ("--adapter", one)), "--slots", str(args.slots)]
        process, url = started(words)
        begun = time.monotonic()
        try:
            names = [args.base, *(one.partition("=")[0] for one in adapters)]
            told, rows = asyncio.run(load(args, url, names, process.pid))
        finally:
            process.send_signal(signal.SIGTERM)
            status = process.wait(60)
    seconds = time.monotonic() - begun
    print(
        f"\n{args.clients} clients, {args.seconds:g} s, {args.slots} slots; load average {os.getloadavg()[0]:.1f}"
    )
    counts = told.counts
    ways = ", ".join(f"{way} {counts[way]}" for way in ("whole", "stream", "vanish", "429"))
    print(f"requests: {ways}")
    print(f"greedy answers compared to the letter: {counts['greedy']}; wrong or lost, of all: {len(told.wrong)}")
    print(
        f"drawn answers compared: {counts['drawn']}, of which {counts['drawn otherwise']} parted from the known one"
    )
    print(f"tokens/s over all: {told.tokens / seconds:.0f}")
    print(f"latency: {percentiles(told.whole)}")
    print(f"first token (streams): {percentiles(told.first)}")
    for row in (rows[0], *rows[len(rows) // 6 :: max(1, len(rows) // 6)], rows[-1]):
        print(f"  {row}")
    print(f"the server ended with status {status} after SIGTERM")
    for line in told.wrong[:10]:
        print(f"WRONG {line}")
    if args.out:
        with args.out.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    raise SystemExit(1 if told.wrong or not told.whole else 0)


if __name__ == "__main__":
    main()
