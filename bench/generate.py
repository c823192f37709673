"""How fast answers are written, beside transformers' `generate`, in one process.

    python bench/generate.py --shape polyglot-ko-5.8b              on a card: random weights, 200 s at most
    python bench/generate.py --shape polyglot-ko-5.8b --kernels    each product of the shape, 60 s
    python bench/generate.py --shape polyglot-ko-5.8b --sweep 120  other tiles for them, so many seconds
    python bench/generate.py --embedded                            the embedded base on the CPU, a minute
    python bench/generate.py --identical 500                       greedy answers against generate's: float32

Ours: weights in bfloat16 with the adapter inside, and NF4 with the adapter beside it, at each batch. Theirs: the
same model by transformers' `generate` with its cache (in NF4 through PEFT), fewer new tokens where it is slow.

    first       seconds to the first token of all texts, prompts included; what is compiled and captured is not
    tokens/s    of all texts together, after the first token
    peak        GiB of the card's tensors, the model included
"""

from __future__ import annotations

import argparse
import gc
import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import measure
import shapes
import torch
import transformers
from torch import Tensor

from koalpaca_tune import jsonl
from koalpaca_tune.config.recipe import Base, Lora, Quantization
from koalpaca_tune.inference.generation.decoder import Decoder
from koalpaca_tune.inference.generation.request import Request
from koalpaca_tune.inference.generation.session import Session
from koalpaca_tune.models import adapter, architectures
from koalpaca_tune.models import base as bases
from koalpaca_tune.models.forward import causal

BATCHES = (1, 4, 16, 64)
GOALS = {("bf16 merged", 1): 200.0, ("nf4 + adapter", 1): 120.0, ("bf16 merged", 16): 2000.0}


def seconds(work: Callable[[], Any]) -> float:
    measure.synchronize()
    began = time.perf_counter()
    work()
    measure.synchronize()
    return time.perf_counter() - began


def random_ids(batch: int, tokens: int, vocabulary: int) -> list[tuple[int, ...]]:
    generator = torch.Generator().manual_seed(0)
    return [tuple(row) for row in torch.randint(2, vocabulary, (batch, tokens), generator=generator).tolist()]


def ours(
    decoder: Decoder, prompts: Sequence[tuple[int, ...]], new: int, adapter_name: str | None
) -> dict[str, Any]:
    """A run that is not counted, then one that is."""
    found: dict[str, Any] = {}
    for which in ("warm", "timed"):
        session = Session(decoder)
        for ids in prompts:
            session.add(Request(ids, new, adapter=adapter_name))
        measure.synchronize()
        began = time.perf_counter()
        count, first = 0, 0.0
        while session.busy:
            count += len(session.step())
            if not first and count >= len(prompts):
                first = time.perf_counter() - began
        total = time.perf_counter() - began
        assert count == len(prompts) * new, (count, len(prompts), new)
        found = {"first": round(first, 4), "tokens_per_second": round((count - len(prompts)) / (total - first), 1)}
        if which == "warm":
            found_warm = round(total, 2)
    return {**found, "new": new, "warm_seconds": found_warm}


def theirs(model: Any, prompts: Sequence[tuple[int, ...]], new: int) -> dict[str, Any]:
    ids = torch.tensor(prompts, device=next(model.parameters()).device)
    common: dict[str, Any] = {
        "do_sample": False,
        "use_cache": True,
        "pad_token_id": 1,
        "attention_mask": torch.ones_like(ids),
    }
    # weights in 16 bits need no autocast; PEFT's adapter beside a 4-bit base is in float32
    autocast = ids.is_cuda and getattr(model, "is_loaded_in_4bit", False)

    def run(count: int) -> None:
        with torch.inference_mode(), torch.autocast(ids.device.type, dtype=torch.bfloat16, enabled=autocast):
            model.generate(input_ids=ids, max_new_tokens=count, min_new_tokens=count, **common)

    # the whole length once before: what a driver gives the allocator for each new length is not counted
    run(new)
    first = seconds(lambda: run(1))
    total = min(seconds(lambda: run(new)) for _ in range(2))
    return {
        "first": round(first, 4),
        "tokens_per_second": round((new - 1) * len(prompts) / (total - first), 1),
        "new": new,
    }


def adapted(loaded: bases.Loaded, name: str) -> Any:
    """With a random adapter of rank 8 on what polyglot's recipes train."""
    model = adapter.attach(
        loaded, Lora(r=8, alpha=16, dropout=0.0, targets=list(shapes.SHAPES[name].targets)), "random"
    )
    generator = torch.Generator(loaded.device).manual_seed(1)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if ".lora_B" in key:
                parameter.normal_(std=0.01, generator=generator)
    return model.eval()


def whole(name: str, device: torch.device) -> bases.Loaded:
    """A base with random weights in bfloat16."""
    torch.manual_seed(0)
    with device:
        model: Any = transformers.AutoModelForCausalLM.from_config(
            shapes.config(name), dtype=torch.bfloat16, attn_implementation="sdpa"
        )
    model.requires_grad_(False).eval()
    return bases.Loaded(
        model=model,
        vocabulary=None,  # type: ignore[arg-type]
        architecture=architectures.find(model.config.model_type, name),
        proof=None,  # type: ignore[arg-type]
        compute_dtype=torch.bfloat16,
        fingerprint="random",
        revision=None,
    )


def shape_rows(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The table of a shape on a card, a row at a time."""
    device = torch.device("cuda")
    room = given.prompt + given.new
    for kind in given.kinds:
        measure.forget_peak()
        loaded = whole(given.shape, device) if kind == "bf16 merged" else shapes.build(given.shape, device)
        vocabulary = loaded.model.config.vocab_size
        # theirs merged is the base alone: the same work without an adapter
        for batch in given.theirs:
            if kind != "bf16 merged":
                break
            few = min(given.new, 32)
            measure.forget_peak()
            row = theirs(loaded.model, random_ids(batch, given.prompt, vocabulary), few)
            yield {"who": "transformers", "kind": kind, "batch": batch, **row, **measure.memory()}
        model = adapted(loaded, given.shape)
        for batch in given.theirs:
            if kind == "bf16 merged":
                break
            measure.forget_peak()
            row = theirs(causal(model), random_ids(batch, given.prompt, vocabulary), min(given.new, 32))
            yield {"who": "transformers", "kind": kind, "batch": batch, **row, **measure.memory()}
        inside = kind == "bf16 merged"
        for batch in given.batches:
            measure.forget_peak()
            with torch.inference_mode():
                decoder = Decoder(
                    model, loaded.architecture, dtype=torch.bfloat16, adapters=("default",), slots=batch, room=room,
                    inside=inside, graphs=not given.eager,
                )  # fmt: skip
                prompts = random_ids(batch, given.prompt, vocabulary)
                row = ours(decoder, prompts, given.new, None if inside else "default")
            yield {"who": "ours", "kind": kind, "batch": batch, **row, **measure.memory()}
            del decoder
            gc.collect()
        del model, loaded
        gc.collect()
        torch.cuda.empty_cache()


def report(row: dict[str, Any]) -> None:
    goal = GOALS.get((row["kind"], row["batch"])) if row["who"] == "ours" else None
    word = "" if goal is None else f"  goal {goal:g}: {'reached' if row['tokens_per_second'] >= goal else 'missed'}"
    peak = "" if row.get("peak_gib") is None else f"{row['peak_gib']:8.2f} GiB"
    print(
        f"{row['who']:13} {row['kind']:14} batch {row['batch']:3}  first {row['first']:8.4f} s "
        f"{row['tokens_per_second']:9.1f} tokens/s {peak}{word}",
        flush=True,
    )


def timed(work: Callable[[int], Any], times: int = 40) -> float:
    """Seconds of one call on a card, by a graph of many: call n uses the nth of several weights."""
    work(0)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for n in range(times):
            work(n)
    found = []
    for _ in range(5):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        found.append(begin.elapsed_time(end) / 1000 / times)
    return statistics.median(found)


def products(shape: shapes.Shape) -> list[tuple[str, int, int]]:
    names = ("qkv", "dense", "up", "down")
    linears = [(n, k, sum(outputs)) for n, (k, outputs) in zip(names, shape.groups, strict=True)]
    return [*linears, ("head", shape.hidden, shape.vocabulary)]


def packed_weights(outputs: int, width: int, count: int) -> list[Any]:
    import bitsandbytes.functional as bnb

    from koalpaca_tune.kernels.nf4 import Packed

    made = []
    for _ in range(count):
        weight = torch.randn(outputs, width, device="cuda", dtype=torch.bfloat16) * 0.02
        made.append(Packed(*bnb.quantize_4bit(weight, blocksize=64, compress_statistics=True, quant_type="nf4")))
    return made


def bytes_of(weight: Any) -> int:
    if isinstance(weight, Tensor):
        return weight.numel() * weight.element_size()
    return int(weight.data.numel() + weight.state.absmax.numel())


def kernels(given: argparse.Namespace) -> None:
    """Each product of a shape by itself: GB/s of weights read, ours beside cuBLAS or bitsandbytes."""
    import bitsandbytes.functional as bnb

    from koalpaca_tune.kernels import triton_decode, triton_matvec
    from koalpaca_tune.kernels.decode import Heads

    shape = shapes.SHAPES[given.shape]
    print("product   kind   rows      ours µs   GB/s    other µs   GB/s  ratio")
    for (name, width, outputs), kind in itertools.product(products(shape), ("bf16", "nf4")):
        if kind == "nf4" and name == "head":
            continue
        size = outputs * width * (2 if kind == "bf16" else 0.516)
        count = max(2, min(16, int(3e8 / size) + 1))
        if kind == "bf16":
            weights: list[Any] = [
                torch.randn(outputs, width, device="cuda", dtype=torch.bfloat16) * 0.02 for _ in range(count)
            ]
        else:
            weights = packed_weights(outputs, width, count)
        for rows in given.rows:
            x = torch.randn(rows, width, device="cuda", dtype=torch.bfloat16)
            out = torch.empty(rows, outputs, device="cuda", dtype=torch.bfloat16)
            read = bytes_of(weights[0])
            mine = timed(lambda n: triton_matvec.linear(x, weights[n % count], out))  # noqa: B023
            if kind == "bf16":
                other = timed(lambda n: torch.mm(x, weights[n % count].t(), out=out))  # noqa: B023
            else:

                def theirs_4bit(n: int) -> None:
                    one = weights[n % count]  # noqa: B023
                    if rows == 1:  # noqa: B023
                        bnb.gemv_4bit(x, one.data.t(), state=one.state)  # noqa: B023
                    else:
                        torch.mm(x, bnb.dequantize_4bit(one.data, one.state).t(), out=out)  # noqa: B023

                other = timed(theirs_4bit)
            print(
                f"{name:9} {kind:5} {rows:5} {mine * 1e6:12.1f} {read / mine / 1e9:6.0f} "
                f"{other * 1e6:11.1f} {read / other / 1e9:6.0f} {other / mine:6.2f}",
                flush=True,
            )
    heads = Heads(shape.heads, shape.kv_heads, shape.head_dim, shape.family == "gpt_neox")
    half = int(shape.head_dim * shape.rotary) // 2
    for rows, length in itertools.product(given.rows, (128, 1024)):
        like: dict[str, Any] = {"device": "cuda", "dtype": torch.bfloat16}
        cache = [torch.randn(rows, shape.kv_heads, 2048, shape.head_dim, **like) for _ in range(2)]
        joined, out = (
            torch.randn(rows, heads.outputs, **like),
            torch.empty(rows, shape.heads * shape.head_dim, **like),
        )
        cos, sin = (torch.rand(2048, half, device="cuda") for _ in range(2))
        slots, lengths = torch.arange(rows, device="cuda"), torch.full((rows,), length, device="cuda")
        mine = timed(lambda n: triton_decode.attend(joined, heads, cos, sin, *cache, slots, lengths, out))  # noqa: B023
        read = 2 * rows * shape.kv_heads * length * shape.head_dim * 2
        print(f"attention {length:5} {rows:5} {mine * 1e6:12.1f} {read / mine / 1e9:6.0f}", flush=True)


TILES = {
    ("bf16", 1): [(1, 1024, 4, 2), (1, 2048, 8, 2), (2, 2048, 8, 2)],
    ("nf4", 1): [
        (4, 64, 2, 1),
        (4, 128, 4, 1),
        (8, 32, 2, 1),
        (8, 64, 4, 1),
        (8, 64, 2, 1),
        (8, 128, 8, 1),
        (16, 64, 4, 1),
        (4, 128, 8, 1),
    ],
    ("bf16", 16): [(32, 128, 4, 3), (16, 256, 2, 4), (32, 64, 4, 4)],
    ("nf4", 16): [
        (32, 16, 2, 1),
        (64, 16, 4, 1),
        (64, 8, 4, 1),
        (64, 32, 4, 1),
        (64, 16, 8, 1),
        (32, 32, 2, 1),
        (128, 16, 8, 1),
    ],
}


def sweep(given: argparse.Namespace) -> None:
    """Other tiles of each product: the five fastest, and the present one."""
    from koalpaca_tune.kernels import triton_matvec

    shape = shapes.SHAPES[given.shape]
    end = time.monotonic() + given.sweep
    for (kind, rows), (name, width, outputs) in itertools.product(TILES, products(shape)[:4]):
        if time.monotonic() > end:
            print("time is up")
            return
        count = max(2, int(3e8 / (outputs * width * (2 if kind == "bf16" else 0.516))) + 1)
        weights: list[Any] = (
            [torch.randn(outputs, width, device="cuda", dtype=torch.bfloat16) for _ in range(count)]
            if kind == "bf16"
            else packed_weights(outputs, width, count)
        )
        x = torch.randn(rows, width, device="cuda", dtype=torch.bfloat16)
        out = torch.empty(rows, outputs, device="cuda", dtype=torch.bfloat16)
        now = triton_matvec.tile_of(rows, outputs, width, packed=kind == "nf4")
        found = []
        for tile in (now, *TILES[kind, rows]):
            try:
                took = timed(lambda n: triton_matvec.linear(x, weights[n % count], out, tile=tile))  # noqa: B023
            except Exception as error:  # noqa: BLE001  # a tile that does not fit is no result
                print(f"  {tile}: {type(error).__name__}")
                continue
            found.append((took, tile))
            if time.monotonic() > end:
                break
        gb = bytes_of(weights[0]) / 1e9
        print(f"{name} {kind} {rows} rows, now {found[0][1]} {gb / found[0][0]:.0f} GB/s: " + ", ".join(
            f"{tile} {gb / took:.0f}" for took, tile in sorted(found)[:5]), flush=True)  # fmt: skip


def embedded() -> bases.Loaded:
    return bases.load(Base(path="embedded"), Quantization(load_in_4bit=False), torch.device("cpu"))


def on_cpu(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The embedded base: ours and theirs take turns, of each the faster one counts."""
    loaded = embedded()
    for batch in given.batches:
        prompts = random_ids(batch, given.prompt, loaded.model.config.vocab_size)
        best: dict[str, dict[str, Any]] = {}
        for _ in range(3):
            with torch.inference_mode():
                decoder = Decoder(
                    loaded.model,
                    loaded.architecture,
                    dtype=torch.float32,
                    slots=batch,
                    room=given.prompt + given.new,
                )
                rows = {"ours": ours(decoder, prompts, given.new, None)}
            rows["transformers"] = theirs(loaded.model, prompts, given.new)
            for who, row in rows.items():
                if who not in best or row["tokens_per_second"] > best[who]["tokens_per_second"]:
                    best[who] = row
        for who, row in best.items():
            yield {"who": who, "kind": "embedded", "batch": batch, **row}


def identical(count: int) -> None:
    """Greedy answers of the embedded base, ours and generate's, in float32.

    Raises:
        SystemExit: where one differs.
    """
    loaded = embedded()
    texts = list(itertools.islice(questions(), count))
    assert len(texts) == count, f"only {len(texts)} prompts"
    ids = [tuple(loaded.vocabulary.backend.encode(text).ids) for text in texts]
    new = 32
    with torch.inference_mode():
        session = Session(Decoder(loaded.model, loaded.architecture, dtype=torch.float32, slots=16, room=256))
        tickets = {session.add(Request(one, new, (0,))): n for n, one in enumerate(ids)}
        mine: list[list[int]] = [[] for _ in ids]
        for token in session.run():
            mine[tickets[token.ticket]].append(token.id)
        same = tokens = 0
        for one, answer in zip(ids, mine, strict=True):
            out = loaded.model.generate(
                torch.tensor([one]), max_new_tokens=new, do_sample=False, eos_token_id=[0], pad_token_id=1
            )
            other = out[0, len(one) :].tolist()
            same += other == answer
            tokens += len(other)
            if other != answer:
                print("differs:", loaded.vocabulary.decode(one), mine, other)
    print(f"identical to generate's: {same} of {count} answers, {tokens} tokens, float32")
    if same != count:
        raise SystemExit(1)


def questions() -> Iterator[str]:
    """Korean prompts of different lengths: beginnings of the texts in the samples."""
    folder = Path(__file__).parent.parent / "data" / "samples"
    texts = [text for path in sorted(folder.glob("*.jsonl")) for _, row in jsonl.read(path) for text in _texts(row)]
    yield from dict.fromkeys(text[:length] for length in (12, 24, 48, 96) for text in texts if len(text) >= length)


def _texts(row: Any) -> Iterator[str]:
    if isinstance(row, str):
        yield row
    elif isinstance(row, dict):
        for value in row.values():
            yield from _texts(value)
    elif isinstance(row, list):
        for value in row:
            yield from _texts(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=shapes.SHAPES)
    parser.add_argument("--embedded", action="store_true", help="the embedded base on the CPU")
    parser.add_argument("--identical", type=int, metavar="N", help="N prompts against generate, in float32")
    parser.add_argument("--kernels", action="store_true")
    parser.add_argument("--sweep", type=float, metavar="SECONDS")
    parser.add_argument("--rows", type=int, nargs="+", default=(1, 4, 16, 64), help="of --kernels")
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--theirs", type=int, nargs="*", default=(1, 16), help="batches of transformers")
    parser.add_argument("--kinds", nargs="+", default=("bf16 merged", "nf4 + adapter"))
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--new", type=int, default=128)
    parser.add_argument("--eager", action="store_true", help="no graphs")
    parser.add_argument("--threads", type=int, default=2, help="on the CPU")
    parser.add_argument("--out", type=Path, help="JSON lines")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    transformers.utils.logging.set_verbosity_error()
    if given.identical:
        identical(given.identical)
        return
    facts = measure.facts()
    print(f"{facts['date']} UTC, {facts['gpu']}, {facts['versions']}", flush=True)
    if given.kernels or given.sweep:
        (kernels if given.kernels else sweep)(given)
        return
    if not given.embedded and given.shape is None:
        parser.error("give --shape, --embedded or --identical")
    rows = []
    for row in on_cpu(given) if given.embedded else shape_rows(given):
        report(row)
        rows.append(row)
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        jsonl.write(given.out, [{**row, **facts} for row in rows])


if __name__ == "__main__":
    main()
