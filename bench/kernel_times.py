"""The Triton kernels on a GPU: right (against the plain functions in float32) and how near the memory's speed.

    python bench/kernel_times.py [--tokens 16384]
    TRITON_INTERPRET=1 python bench/kernel_times.py --device cpu --tokens 4   (the checks alone, interpreted)

Error is ||fused - plain|| / ||plain||, the largest of a function's results, with the same bfloat16 inputs; for
dropout that of the kept numbers; for dequantize and quantize the share of numbers that are not those of `plain`.
Results in e4m3 are compared as what they stand for; the interpreter rounds to e4m3 wrongly, so there they stay
float32. GB/s counts each input once and each output once. Time is the median of `triton.testing.do_bench`, L2
emptied before each call. Exits with 1 if an error is too large or a kernel fails.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import kernel_cases_fp8
import torch
import triton
from kernel_cases import (
    Case,
    Maker,
    activations,
    decodings,
    dropouts,
    error,
    far,
    gathers,
    losses,
    norms,
    rotations,
    untouched,
)
from torch import Tensor
from triton.errors import TritonError

from koalpaca_tune.kernels import fused, plain

LARGEST_ERROR = 1e-2


def compare(case: Case) -> float:
    """The error of one case; its own tensors stay as they are unless it brings its own check."""
    if case.check:
        found = case.check()
    else:
        # clones keep the spare columns: rows that stand apart are part of the check
        mine = tuple(apart(tensor) for tensor in case.tensors)
        results = case.call(fused, *mine)
        wanted = case.call(plain, *(tensor.float() for tensor in case.tensors))
        found = max(error(a, b) for a, b in zip(results, wanted, strict=True))
        if not all(map(untouched, mine)):
            raise RuntimeError("it wrote behind its rows")
    if not all(map(untouched, case.tensors)):
        raise RuntimeError("it wrote behind its rows")
    return found


def apart(tensor: Tensor) -> Tensor:
    """A copy that has the same spare columns behind its rows."""
    whole = tensor._base
    if whole is None or whole.dim() != 2 or tensor.dim() != 2:
        return tensor.clone()
    return whole.clone()[:, : tensor.shape[1]]


def host_microseconds(make: Maker) -> dict[str, float]:
    """Time of a call on the host, with next to nothing to do on the GPU."""
    small = Maker(make.device, 8)
    cases: list[Case] = [
        norms(small, 1024)[0],
        rotations(small)[0],
        gathers(small)[0],
        activations(small, 1024)[0],
        decodings(small, 8, 1024)[0],
    ]
    times = {}
    for case in cases:
        case.call(fused, *case.tensors)
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(300):
            case.call(fused, *case.tensors)
        times[case.name] = (time.perf_counter() - start) / 300 * 1e6
        torch.cuda.synchronize()
    return times


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--tokens", type=int, default=16384)
    arguments = parser.parse_args()
    make = Maker(arguments.device, arguments.tokens)
    tokens, timed = arguments.tokens, arguments.device == "cuda"
    # each makes its tensors when its turn comes: all of them together are tens of GB
    groups: dict[str, Callable[[], list[Case]]] = {
        "norms of 4,096": lambda: norms(make, 4096),
        "norms of 5,120": lambda: norms(make, 5120),
        "rotations": lambda: rotations(make),
        "gathers": lambda: gathers(make),
        "GELU": lambda: activations(make, 16384),
        "SwiGLU": lambda: activations(make, 14336),
        "loss, 30,080": lambda: losses(make, min(tokens, 4096), 30080),
        "loss, 128,256": lambda: losses(make, min(tokens, 4096), 128256),
        "dropout": lambda: dropouts(make, 4096),
        "decoding": lambda: (
            decodings(make, min(tokens, 4096), 16384) + decodings(make, min(tokens, 15360), 5120)[:1]
        ),
        "far rows": lambda: far(make),
        "norms of 4,096 in e4m3": lambda: kernel_cases_fp8.norms(make, 4096),
        "norms of 5,120 in e4m3": lambda: kernel_cases_fp8.norms(make, 5120),
        "GELU in e4m3": lambda: kernel_cases_fp8.gelus(make, 16384),
        "GELU in e4m3, 20,480": lambda: kernel_cases_fp8.gelus(make, 20480),
        "SwiGLU in e4m3": lambda: kernel_cases_fp8.swiglus(make, 14336),
        "rows in e4m3": lambda: kernel_cases_fp8.quantizations(make),
        "decoding to e4m3": lambda: kernel_cases_fp8.decodings(make, min(tokens, 4096), 16384),
        "products of e4m3": lambda: kernel_cases_fp8.products(make, 4096),
        "sums of two e4m3": lambda: kernel_cases_fp8.splits(make, 4096),
    }
    print(f"triton {triton.__version__}, torch {torch.__version__}")
    if timed:
        whole = torch.empty(2**29, dtype=torch.bfloat16, device="cuda")
        goal = torch.empty_like(whole)
        copied: Any = triton.testing.do_bench(lambda: goal.copy_(whole), return_mode="median")
        print(f"{torch.cuda.get_device_name()}; torch copies 1 GiB at {2 * 2**30 / copied / 1e6:,.0f} GB/s")
        del whole, goal
    print(f"{'kernel':20} {'shape':38} {'error':>9} {'ms':>8} {'GB/s':>7}")
    failures: list[str] = []
    for group, cases in groups.items():
        try:
            made = cases()
        except (RuntimeError, ValueError, TypeError, TritonError) as failure:
            failures.append(f"{group}: {failure}")
            continue
        for case in made:
            try:
                found = compare(case)
                limit = 0.0 if case.exact and timed else LARGEST_ERROR
                if not found <= limit:
                    failures.append(f"{case.name} {case.shape}: error {found:.2e} is over {limit:.0e}")
                line = f"{case.name:20} {case.shape:38} {found:9.1e}"
                if timed:
                    call, tensors = case.call, case.tensors
                    taken: Any = triton.testing.do_bench(
                        lambda call=call, tensors=tensors: call(fused, *tensors),
                        warmup=10,
                        rep=60,
                        return_mode="median",
                    )
                    line += f" {taken:8.3f} {case.bytes / taken / 1e6:7,.0f}"
                print(line, flush=True)
            except (RuntimeError, ValueError, TypeError, TritonError) as failure:
                failures.append(f"{case.name} {case.shape}: {type(failure).__name__}: {failure}")
                print(f"{case.name:20} {case.shape:38} failed", flush=True)
        del made
    if timed:
        try:
            times = host_microseconds(make)
            print("host, us a call: " + ", ".join(f"{name} {value:.1f}" for name, value in times.items()))
        except (RuntimeError, ValueError, TypeError, TritonError) as failure:
            failures.append(f"host: {failure}")
    for text in failures:
        print(text, file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
