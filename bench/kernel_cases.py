"""What `bench/kernel_times.py` measures, in bfloat16 and float32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import bitsandbytes.functional as bnb
import torch
from torch import Tensor

from koalpaca_tune.kernels import fused, plain
from koalpaca_tune.kernels.nf4 import Packed

MARK = 7.0
EPS = 1e-5

Call = Callable[..., tuple[Tensor, ...]]


@dataclass(frozen=True)
class Case:
    """One kernel at one shape.

    Attributes:
        name: the function.
        shape: in words.
        tensors: what it works on, in bfloat16; it may overwrite them.
        call: (module, *tensors) -> results.
        bytes: what has to move, at least.
        check: error, in place of the comparison with `plain`.
        exact: whether no error is allowed on a GPU.
    """

    name: str
    shape: str
    tensors: tuple[Tensor, ...]
    call: Call
    bytes: int
    check: Callable[[], float] | None = None
    exact: bool = False


class Maker:
    """Inputs on one device, the same for the same calls."""

    def __init__(self, device: str, tokens: int) -> None:
        self.device, self.tokens = device, tokens
        self.generator = torch.Generator(device).manual_seed(3)

    def rows(self, count: int, width: int, spare: int = 0) -> Tensor:
        """Normal numbers [count, width], `spare` marked columns behind each row."""
        whole = torch.empty(count, width + spare, dtype=torch.bfloat16, device=self.device)
        whole.normal_(generator=self.generator)
        whole[:, width:] = MARK
        return whole[:, :width]

    def vector(self, width: int) -> Tensor:
        return self.rows(1, width)[0]


def untouched(tensor: Tensor) -> bool:
    """Whether the spare columns of `Maker.rows` still hold their mark."""
    whole = tensor._base
    if whole is None or whole.dim() != 2 or tensor.dim() != 2 or whole.shape == tensor.shape:
        return True
    return bool((whole[:, tensor.shape[1] :] == MARK).all())


def error(found: Tensor, wanted: Tensor) -> float:
    """||found - wanted|| / ||wanted||; not a number counts as infinite."""
    distance = float(
        torch.linalg.vector_norm(found.float() - wanted.float()) / torch.linalg.vector_norm(wanted.float())
    )
    return distance if distance == distance else float("inf")


def norms(make: Maker, width: int) -> list[Case]:
    tokens, size = make.tokens, make.tokens * width * 2
    x, grad, grad2 = (make.rows(tokens, width) for _ in range(3))
    # each of the four in-place cases has its own: timing one makes its sums large
    update, update2, residual, residual2 = (make.rows(tokens, width) for _ in range(4))
    out, out2 = make.rows(tokens, width, 64), make.rows(tokens, width, 64)
    weight, bias, weight2, bias2 = (make.vector(width) for _ in range(4))

    def pair(
        kernels: ModuleType, x: Tensor, update: Tensor, out: Tensor, out2: Tensor, *a: Tensor
    ) -> tuple[Tensor, ...]:
        kernels.add_layer_norm(x, update, ((a[0], a[1]), (a[2], a[3])), (out, out2), EPS)
        return update, out, out2

    def one(kernels: ModuleType, x: Tensor, out: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
        kernels.add_layer_norm(x, None, ((weight, bias),), (out,), EPS)
        return (out,)

    def pair_back(
        kernels: ModuleType, x: Tensor, w: Tensor, w2: Tensor, g: Tensor, g2: Tensor, r: Tensor
    ) -> tuple[Tensor, ...]:
        return (kernels.layer_norm_backward(x, (w, w2), (g, g2), r, EPS),)

    def root(kernels: ModuleType, x: Tensor, update: Tensor, weight: Tensor, out: Tensor) -> tuple[Tensor, ...]:
        kernels.add_rms_norm(x, update, weight, out, EPS)
        return update, out

    def root_back(
        kernels: ModuleType, x: Tensor, weight: Tensor, grad: Tensor, residual: Tensor
    ) -> tuple[Tensor, ...]:
        return (kernels.rms_norm_backward(x, weight, grad, residual, EPS),)

    shape = f"{tokens} x {width}"
    return [
        Case(
            "add_layer_norm",
            f"{shape}, sum and 2",
            (x, update, out, out2, weight, bias, weight2, bias2),
            pair,
            5 * size,
        ),
        Case("add_layer_norm", f"{shape}, 1", (x, out, weight, bias), one, 2 * size),
        Case(
            "layer_norm_backward", f"{shape}, 2", (x, weight, weight2, grad, grad2, residual), pair_back, 5 * size
        ),
        Case("add_rms_norm", f"{shape}, sum and 1", (x, update2, weight, out), root, 4 * size),
        Case("rms_norm_backward", shape, (x, weight, grad, residual2), root_back, 4 * size),
    ]


def rotations(make: Maker) -> list[Case]:
    tokens = make.tokens
    positions = (torch.arange(tokens, device=make.device) % 2048).to(torch.int32)

    def table(half: int) -> tuple[Tensor, Tensor]:
        angles = torch.arange(2048, device=make.device)[:, None] / 10000 ** (
            torch.arange(half, device=make.device) / half
        )
        return angles.cos(), angles.sin()

    def interleaved(heads: int, size: int, half: int, inverse: bool) -> Case:
        cos, sin = table(half)

        def call(kernels: ModuleType, qkv: Tensor) -> tuple[Tensor, ...]:
            queries = qkv.view(tokens, heads, 3, size)[:, :, 1]
            return (kernels.rotate(queries, queries, cos, sin, positions, inverse=inverse), qkv)

        moved = tokens * heads * 2 * half * 2 * 2
        shape = f"{tokens} x {heads} x {size}, {2 * half} in place"
        return Case("rotate", shape, (make.rows(tokens, heads * 3 * size),), call, moved)

    def moved_out(heads: int, size: int, half: int) -> Case:
        cos, sin = table(max(half, 1))
        cos, sin = cos[:, :half], sin[:, :half]

        def call(kernels: ModuleType, x: Tensor, out: Tensor) -> tuple[Tensor, ...]:
            return (
                kernels.rotate(
                    x.view(tokens, heads, size), out.view(tokens, heads, 3, size)[:, :, 2], cos, sin, positions
                ),
            )

        shape = f"{tokens} x {heads} x {size}, {2 * half} and copied"
        tensors = (make.rows(tokens, heads * size), make.rows(tokens, heads * 3 * size))
        return Case("rotate", shape, tensors, call, tokens * heads * size * 2 * 2)

    return [
        interleaved(16, 256, 32, False),
        interleaved(40, 128, 64, True),
        moved_out(16, 256, 32),
        moved_out(16, 256, 0),
        moved_out(24, 128, 32),
    ]


def activations(make: Maker, width: int) -> list[Case]:
    tokens, size = make.tokens, make.tokens * width * 2
    shape = f"{tokens} x {width}"

    def gelu(kernels: ModuleType, x: Tensor, out: Tensor) -> tuple[Tensor, ...]:
        kernels.gelu(x, out)
        return (out,)

    def gelu_back(kernels: ModuleType, x: Tensor, grad: Tensor) -> tuple[Tensor, ...]:
        kernels.gelu_backward(x, grad, grad)
        return (grad,)

    def swiglu(kernels: ModuleType, gate_up: Tensor, out: Tensor) -> tuple[Tensor, ...]:
        kernels.swiglu(gate_up, out)
        return (out,)

    def swiglu_back(kernels: ModuleType, gate_up: Tensor, grad: Tensor) -> tuple[Tensor, ...]:
        kernels.swiglu_backward(gate_up, grad)
        return gate_up, grad

    if width == 14336:
        both, grad = make.rows(tokens, 2 * width), make.rows(tokens, width, 64)
        return [
            Case("swiglu", shape, (both, grad), swiglu, 3 * size),
            Case("swiglu_backward", shape, (both, grad), swiglu_back, 6 * size),
        ]
    x, grad = make.rows(tokens, width), make.rows(tokens, width, 64)
    return [
        Case("gelu", shape, (x, grad), gelu, 2 * size),
        Case("gelu_backward", shape, (x, grad), gelu_back, 3 * size),
    ]


def losses(make: Maker, rows: int, vocabulary: int) -> list[Case]:
    targets = torch.randint(vocabulary, (rows,), generator=make.generator, device=make.device)
    logits = make.rows(rows, vocabulary)

    def call(kernels: ModuleType, logits: Tensor) -> tuple[Tensor, ...]:
        return kernels.cross_entropy(logits, targets, grad=True), logits

    def check() -> float:
        mine, wide = logits.clone(), logits.float()
        found, wanted = call(fused, mine), call(plain, wide)
        # the target's own entry is so large that it would hide the others
        shares = [gradient.scatter(1, targets[:, None], 0) for gradient in (mine, wide)]
        return max(error(found[0], wanted[0]), error(mine, wide), error(shares[0], shares[1]))

    return [Case("cross_entropy", f"{rows} x {vocabulary}", (logits,), call, 2 * rows * vocabulary * 2, check)]


def dropouts(make: Maker, width: int) -> list[Case]:
    x, out = make.rows(make.tokens, width), make.rows(make.tokens, width, 64)
    seed = torch.tensor([2**33 + 7], device=make.device)

    def call(kernels: ModuleType, x: Tensor, out: Tensor) -> tuple[Tensor, ...]:
        return (kernels.dropout(x, out, seed, 5, 0.05),)

    def check() -> float:
        (first,) = call(fused, x, out)
        again = fused.dropout(x, torch.empty_like(x), seed, 5, 0.05)
        other = fused.dropout(x, torch.empty_like(x), seed, 6, 0.05)
        if not torch.equal(first, again) or torch.equal(again, other):
            raise RuntimeError("the mask does not follow the seed and the salt")
        kept = first != 0
        share = float(kept.double().mean())
        if abs(share - 0.95) > 5 * (0.05 * 0.95 / first.numel()) ** 0.5 + 1e-6:
            raise RuntimeError(f"{share} of the numbers were kept, not 0.95")
        return error(first[kept], x[kept].float() / 0.95)

    size = make.tokens * width * 2
    return [Case("dropout", f"{make.tokens} x {width}", (x, out), call, 2 * size, check)]


def decodings(make: Maker, rows: int, width: int) -> list[Case]:
    cases = []
    for kind, nested in (("nf4", True), ("nf4", False), ("fp4", True)):
        data, state = bnb.quantize_4bit(
            make.rows(rows, width) * 0.02, blocksize=64, quant_type=kind, compress_statistics=nested
        )
        packed = Packed(data, state)
        out = make.rows(rows, width, 64)

        def call(kernels: ModuleType, out: Tensor, packed: Packed = packed) -> tuple[Tensor, ...]:
            return (kernels.dequantize(packed, out),)

        def check(packed: Packed = packed, out: Tensor = out) -> float:
            wanted = plain.dequantize(packed, torch.empty(rows, width, dtype=out.dtype, device=out.device))
            found = fused.dequantize(packed, out)
            # the interpreter cuts bfloat16 off, so on the CPU they are only near
            return error(found, wanted) if make.device == "cpu" else float((found != wanted).double().mean())

        scales = rows * width // 64 * (1 if nested else 4)
        name = f"{rows} x {width} {kind}{', nested' if nested else ''}"
        cases.append(Case("dequantize", name, (out,), call, rows * width * 5 // 2 + scales, check, True))
    return cases


def gathers(make: Maker) -> list[Case]:
    """Keys read where they stand among queries and values, as branches of a tree of prefixes read them."""
    cases = []
    for name, heads, size in (("5.8B", 16, 256), ("Llama-3-8B", 8, 128)):
        rows = torch.randint(make.tokens, (make.tokens,), generator=make.generator, device=make.device)

        def call(
            kernels: ModuleType, joined: Tensor, heads: int = heads, size: int = size, rows: Tensor = rows
        ) -> tuple[Tensor, ...]:
            return (kernels.take(joined.view(len(joined), heads, 3, size)[:, :, 1], rows),)

        shape = f"{make.tokens} of {heads} heads of {size} ({name})"
        joined = make.rows(make.tokens, heads * 3 * size)
        cases.append(Case("take", shape, (joined,), call, 2 * make.tokens * heads * size * 2))
    return cases


def far(make: Maker) -> list[Case]:
    """Rows past 2^31 elements, where 32-bit offsets would wrap."""
    width = 16384
    count = 2**31 // width + 128
    if make.device == "cpu":
        return []
    x = torch.zeros(count, width, dtype=torch.bfloat16, device=make.device)
    x[-64:].normal_(generator=make.generator)
    out = torch.zeros_like(x)

    def call(kernels: ModuleType, x: Tensor, out: Tensor) -> tuple[Tensor, ...]:
        kernels.gelu(x, out)
        return (out,)

    def check() -> float:
        wide = x[-64:].float()
        wanted = torch.empty_like(wide)
        fused.gelu(x, out)
        plain.gelu(wide, wanted)
        first = error(out[-64:], wanted)
        # no rotary dimension: a copy of [T, heads, D] alone
        empty = torch.empty(1, 0, device=make.device)
        positions = torch.zeros(count, dtype=torch.int32, device=make.device)
        fused.rotate(x.view(count, 64, 256), out.view(count, 64, 256), empty, empty, positions)
        return max(first, error(out[-64:], wide))

    return [Case("gelu, rotate", f"{count} x {width}: past 2^31", (x, out), call, 4 * count * width, check)]
