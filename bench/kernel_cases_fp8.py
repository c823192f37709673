"""What `bench/kernel_times.py` measures of e4m3."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import bitsandbytes.functional as bnb
import torch
from kernel_cases import EPS, Case, Maker, error
from torch import Tensor

from koalpaca_tune.kernels import fused, plain
from koalpaca_tune.kernels.fp8 import Scaled, room
from koalpaca_tune.kernels.nf4 import Packed

Write = Callable[..., None]


def place(make: Maker, rows: int, width: int) -> Scaled:
    """Where a result goes: in the interpreter float32, for it rounds to e4m3 wrongly."""
    if make.device == "cpu":
        return Scaled(torch.empty(rows, width), torch.empty(rows, 1))
    return room(rows, width, make.device)


def case(
    name: str, shape: str, tensors: tuple[Tensor, ...], places: tuple[Scaled, ...], write: Write, size: int
) -> Case:
    """A function that writes to `places`: write(module, *places, *tensors)."""

    def call(kernels: ModuleType, *tensors: Tensor) -> tuple[Tensor, ...]:
        write(kernels, *places, *tensors)
        return ()

    def check() -> float:
        results: list[list[Tensor]] = []
        for kernels in (fused, plain):
            # both from bfloat16: a sum that is rounded before it is normed moves many numbers by a step of e4m3
            mine = [tensor.clone() for tensor in tensors]
            write(kernels, *places, *mine)
            results.append([*mine, *(one.data.float() * one.scale for one in places)])
        return max(error(found, wanted) for found, wanted in zip(*results, strict=True))

    return Case(name, shape, tensors, call, size, check)


def norms(make: Maker, width: int) -> list[Case]:
    tokens, size = make.tokens, make.tokens * width
    x, update, update2, out, out2 = (make.rows(tokens, width) for _ in range(5))
    weight, bias, weight2, bias2 = (make.vector(width) for _ in range(4))
    affines = ((weight, bias), (weight2, bias2))
    first, second = place(make, tokens, width), place(make, tokens, width)

    def pair(k: ModuleType, a: Scaled, b: Scaled, x: Tensor, update: Tensor) -> None:
        k.add_layer_norm(x, update, affines, (None, None), EPS, (a, b))

    def pair_both(
        k: ModuleType, a: Scaled, b: Scaled, x: Tensor, update: Tensor, out: Tensor, out2: Tensor
    ) -> None:
        k.add_layer_norm(x, update, affines, (out, out2), EPS, (a, b))

    def root(k: ModuleType, a: Scaled, x: Tensor, update: Tensor) -> None:
        k.add_rms_norm(x, update, weight, None, EPS, a)

    def root_both(k: ModuleType, a: Scaled, x: Tensor, update: Tensor, out: Tensor) -> None:
        k.add_rms_norm(x, update, weight, out, EPS, a)

    shape = f"{tokens} x {width}"
    two = (first, second)
    return [
        case("add_layer_norm", f"{shape}, sum and 2, e4m3", (x, update), two, pair, 8 * size),
        case("add_layer_norm", f"{shape}, sum and 2, both", (x, update, out, out2), two, pair_both, 12 * size),
        case("add_rms_norm", f"{shape}, sum and 1, e4m3", (x, update2), (first,), root, 7 * size),
        case("add_rms_norm", f"{shape}, sum and 1, both", (x, update2, out), (first,), root_both, 9 * size),
    ]


def gelus(make: Maker, width: int) -> list[Case]:
    tokens, size = make.tokens, make.tokens * width
    x, grad, out = (make.rows(tokens, width) for _ in range(3))
    goal = (place(make, tokens, width),)

    def gelu(k: ModuleType, a: Scaled, x: Tensor) -> None:
        k.gelu(x, None, a)

    def gelu_both(k: ModuleType, a: Scaled, x: Tensor, out: Tensor) -> None:
        k.gelu(x, out, a)

    def back(k: ModuleType, a: Scaled, x: Tensor, grad: Tensor) -> None:
        k.gelu_backward(x, grad, None, a)

    def back_both(k: ModuleType, a: Scaled, x: Tensor, grad: Tensor, out: Tensor) -> None:
        k.gelu_backward(x, grad, out, a)

    shape = f"{tokens} x {width}"
    return [
        case("gelu", f"{shape}, e4m3", (x,), goal, gelu, 3 * size),
        case("gelu", f"{shape}, both", (x, out), goal, gelu_both, 5 * size),
        case("gelu_backward", f"{shape}, e4m3", (x, grad), goal, back, 5 * size),
        case("gelu_backward", f"{shape}, both", (x, grad, out), goal, back_both, 7 * size),
    ]


def swiglus(make: Maker, width: int) -> list[Case]:
    tokens, size = make.tokens, make.tokens * width
    gate_up, grad, out = make.rows(tokens, 2 * width), make.rows(tokens, width), make.rows(tokens, width)
    one, both = (place(make, tokens, width),), (place(make, tokens, 2 * width),)

    def swiglu(k: ModuleType, a: Scaled, gate_up: Tensor) -> None:
        k.swiglu(gate_up, None, a)

    def swiglu_both(k: ModuleType, a: Scaled, gate_up: Tensor, out: Tensor) -> None:
        k.swiglu(gate_up, out, a)

    def back(k: ModuleType, a: Scaled, gate_up: Tensor, grad: Tensor) -> None:
        k.swiglu_backward(gate_up, grad, a)

    shape = f"{tokens} x {width}"
    return [
        case("swiglu", f"{shape}, e4m3", (gate_up,), one, swiglu, 5 * size),
        case("swiglu", f"{shape}, both", (gate_up, out), one, swiglu_both, 7 * size),
        case("swiglu_backward", f"{shape}, both", (gate_up, grad), both, back, 14 * size),
    ]


def different(found: Tensor, wanted: Tensor) -> float:
    """The share of numbers that differ."""
    return float((found.float() != wanted.float()).double().mean())


def quantizations(make: Maker) -> list[Case]:
    def one(width: int) -> Case:
        x, goal = make.rows(make.tokens, width, 64), place(make, make.tokens, width)

        def call(kernels: ModuleType, x: Tensor) -> tuple[Tensor, ...]:
            kernels.quantize(x, goal)
            return ()

        def check() -> float:
            wanted = plain.quantize(x, place(make, make.tokens, width))
            fused.quantize(x, goal)
            return max(different(goal.data, wanted.data), different(goal.scale, wanted.scale))

        return Case("quantize", f"{make.tokens} x {width}", (x,), call, 3 * make.tokens * width, check, True)

    return [one(width) for width in (4096, 5120, 12288, 28672)]


def decodings(make: Maker, rows: int, width: int) -> list[Case]:
    data, state = bnb.quantize_4bit(
        make.rows(rows, width) * 0.02, blocksize=64, quant_type="nf4", compress_statistics=True
    )
    packed, factor = Packed(data, state), 2.0**11
    size = rows * width * 3 // 2 + rows * width // 64
    shape = f"{rows} x {width} nf4, nested, e4m3"

    def one(name: str, key: Tensor | None, *shape_out: int) -> Case:
        # among the other members of a group
        count = shape_out[1]
        out = place(make, shape_out[0], count + 128).data[:, :count]

        def call(kernels: ModuleType) -> tuple[Tensor, ...]:
            return (getattr(kernels, name)(packed, out, factor, key),)

        def check() -> float:
            wanted = getattr(plain, name)(
                packed, torch.empty(shape_out, dtype=out.dtype, device=out.device), factor, key
            )
            (found,) = call(fused)
            # the interpreter cuts bfloat16 off, so on the CPU they are only near
            return error(found, wanted) if make.device == "cpu" else different(found, wanted)

        by_chance = "" if key is None else ", by chance"
        return Case(name, shape + by_chance, (), call, size, check, True)

    # the interpreter would draw for other numbers
    keys = (None,) if make.device == "cpu" else (None, torch.tensor([2**40 + 5], device=make.device))
    both = ("dequantize", rows, width), ("dequantize_columns", width, rows)
    return [one(name, key, *size_out) for key in keys for name, *size_out in both]


def products(make: Maker, width: int) -> list[Case]:
    """A check more than a time: products are bound by arithmetic, not by what they move."""
    tokens = make.tokens
    x = plain.quantize(make.rows(tokens, width), room(tokens, width, make.device))
    weight = (make.rows(width, width) * 64).to(torch.float8_e4m3fn)
    scale, bias = torch.full((1, width), 2.0**-11, device=make.device), make.vector(width)

    def call(kernels: ModuleType) -> tuple[Tensor, ...]:
        return (kernels.scaled_mm(x, weight, scale, bias, torch.bfloat16),)

    size = tokens * width * 3 + width * width
    return [Case("scaled_mm", f"{tokens} x {width} x {width}", (), call, size)]


def splits(make: Maker, width: int) -> list[Case]:
    """LoRA's numbers beside the rows of a folded product.

    The interpreter rounds to e4m3 wrongly and cuts bfloat16 off, so on the CPU only the sums are compared.
    """
    tokens, rank, spare = make.tokens, 24, 128
    x, scale = make.rows(tokens, rank), torch.rand(tokens, 1, device=make.device) + 0.5
    factor = torch.full((1,), 0.25, device=make.device)
    dtype = torch.bfloat16 if make.device == "cpu" else torch.float8_e4m3fn
    place = torch.empty(tokens, width + spare, dtype=dtype, device=make.device)[:, width:]

    def call(kernels: ModuleType) -> tuple[Tensor, ...]:
        kernels.split(x, scale, factor, place, left=True)
        numbers = place.float()
        return (numbers[:, :rank] + numbers[:, rank : 2 * rank],) if make.device == "cpu" else (numbers,)

    return [Case("split", f"{tokens} x {rank} into {spare}", (), call, tokens * (2 * rank + 4 + spare))]
