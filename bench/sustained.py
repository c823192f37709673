"""What matrix products reach in a burst, and for seconds on end, with the card's clock and power beside it.

    python bench/sustained.py [--seconds 8] [--fp8]

The products are those of a polyglot-ko-5.8B block on 16,384 tokens, forward and backward. A card that is held to a
power limit lowers its clock under them: what a burst of a second reaches is not what a run of minutes gets. With
--fp8 they are in e4m3, with a scale for each row.
"""

from __future__ import annotations

import argparse
import subprocess
import time
from collections.abc import Callable
from functools import partial

import torch

TOKENS = 16384
SHAPES = ((4096, 12288), (4096, 4096), (4096, 16384), (16384, 4096))
FLOP = sum(4 * TOKENS * inputs * outputs for inputs, outputs in SHAPES)


Product = Callable[[], torch.Tensor]


def wide(left: torch.Tensor, weight: torch.Tensor) -> Product:
    """left weight' in bfloat16."""
    return partial(torch.mm, left, weight.t())


def narrow(left: torch.Tensor, weight: torch.Tensor) -> Product:
    """left weight' in e4m3."""
    scales = torch.ones(len(left), 1, device="cuda"), torch.ones(1, len(weight), device="cuda")
    rows, columns = left.to(torch.float8_e4m3fn), (weight * 100).contiguous().to(torch.float8_e4m3fn).t()
    return partial(torch._scaled_mm, rows, columns, *scales, out_dtype=torch.bfloat16, use_fast_accum=True)


def once(products: list[Product]) -> None:
    """One block's products."""
    for product in products:
        product()


def main(seconds: float, fp8: bool) -> None:
    """Prints TFLOP/s of a burst, then by time, then nvidia-smi's readings."""
    torch.manual_seed(0)
    kind = {"device": "cuda", "dtype": torch.bfloat16}
    make = narrow if fp8 else wide
    products: list[Product] = []
    for k, n in SHAPES:
        weight = torch.randn(n, k, **kind) * 0.02
        products.append(make(torch.randn(TOKENS, k, **kind), weight))
        products.append(make(torch.randn(TOKENS, n, **kind), weight.t()))
    for _ in range(2):
        once(products)
    torch.cuda.synchronize()
    print(f"{time.strftime('%Y-%m-%d %H:%M')}, {torch.cuda.get_device_name()}, torch {torch.__version__}")
    began = time.perf_counter()
    once(products)
    torch.cuda.synchronize()
    print(f"burst: {FLOP / (time.perf_counter() - began) / 1e12:.0f} TFLOP/s")
    fields = "clocks.sm,power.draw,temperature.gpu,clocks_event_reasons.active"
    watch = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader", "-lms", "500"]
    reading = subprocess.Popen(watch, stdout=subprocess.PIPE, text=True)
    began = time.perf_counter()
    while (now := time.perf_counter()) - began < seconds:
        for _ in range(40):
            once(products)
        torch.cuda.synchronize()
        rate = 40 * FLOP / (time.perf_counter() - now) / 1e12
        print(f"after {time.perf_counter() - began:4.1f} s: {rate:.0f} TFLOP/s", flush=True)
    reading.terminate()
    print(f"{fields}:\n{reading.communicate()[0]}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--fp8", action="store_true", help="in e4m3")
    given = parser.parse_args()
    main(given.seconds, given.fp8)
