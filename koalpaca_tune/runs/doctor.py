"""`koalpaca doctor`: what this machine can do, found out by doing it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from koalpaca_tune.runs import record, versions
from koalpaca_tune.runs.finding import Finding, State

if TYPE_CHECKING:
    from torch import Tensor

KOREAN_FONTS = ("NanumGothic", "Noto Sans CJK KR", "Noto Sans KR", "Malgun Gothic", "Apple SD Gothic Neo")
DRIVER = Path("/proc/driver/nvidia/version")
HUB_SECONDS = 3.0
"""A machine without network must not wait: compute nodes often drop packets silently."""
LARGEST_ERROR = {"nf4": 0.2, "fp4": 0.3}
"""Relative error of a product. Of normal weights NF4 gives 0.09 to 0.1 and FP4 0.12 to 0.13; wrong kernels give
about 1 (bitsandbytes issue 2087)."""
INSTALL = "pip install -c constraints.txt ."


def examine(folder: Path, *, network: bool = True) -> list[Finding]:
    """All checks; only the last of the Hub asks the network, and waits three seconds at most."""
    return [
        *_versions(),
        *_driver(),
        _card(),
        *_bitsandbytes(),
        _embedded(),
        _disk(folder),
        _token(),
        *([_hub()] if network else []),
        _font(),
    ]


def _versions() -> list[Finding]:
    found = record.versions()
    seen = ", ".join(f"{name} {version}" for name, version in found.items())
    wrong = versions.too_old()
    return wrong or [Finding("버전 (versions)", "ok", seen)]


def _driver() -> list[Finding]:
    """The driver, and the CUDA that torch was built for; nothing on a machine without either."""
    import torch

    name = "드라이버 (driver)"
    driver = _driver_version()
    built = torch.version.cuda
    if driver is None:
        return []
    seen = f"NVIDIA {driver}, torch {torch.__version__} (CUDA {built or '-'})"
    if torch.cuda.is_available():
        return [Finding(name, "ok", seen)]
    if built is None:
        fix = "CUDA용 torch를 설치하세요 (this torch is for the CPU; install the one for CUDA)."
    else:
        fix = (
            "드라이버를 올리거나 그 CUDA에 맞는 torch를 설치하세요 (update the driver, or install a torch for it)."
        )
    return [Finding(name, "bad", f"{seen}: 카드를 쓸 수 없음 (no card can be used)", fix)]


def _driver_version() -> str | None:
    try:
        found = re.search(r"(\d+\.\d+(\.\d+)?)", DRIVER.read_text(encoding="utf-8"))
        return found[1] if found else "?"
    except OSError:
        # Windows and containers may have the tool alone
        tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    try:
        asked = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
        said = subprocess.run(asked, check=True, capture_output=True, text=True, timeout=10).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return None
    return said[0] if said else None


def _card() -> Finding:
    import torch

    if not torch.cuda.is_available():
        return Finding(
            "GPU",
            "note",
            "CUDA 카드가 없음: CPU로 돕니다 (no CUDA card: runs on the CPU)",
            "데모는 CPU로 충분합니다. 큰 모델에는 CUDA 카드가 필요합니다 (the demo needs none).",
        )
    properties = torch.cuda.get_device_properties(0)
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    free, whole = torch.cuda.mem_get_info(0)
    seen = (
        f"{properties.name} x {torch.cuda.device_count()}, {free / 2**30:.0f}/{whole / 2**30:.0f} GiB 남음 (free), "
        f"bfloat16 {'있음 (yes)' if bf16 else '없음 (no)'}"
    )
    if bf16:
        return Finding("GPU", "ok", seen)
    fix = "레시피에 quantization.bnb_4bit_compute_dtype: float16을 쓰세요 (set it in the recipe)."
    return Finding("GPU", "note", seen, fix)


def _bitsandbytes() -> list[Finding]:
    import torch

    found = [_four_bit(device) for device in ("cpu", *(["cuda"] if torch.cuda.is_available() else []))]
    if torch.cuda.is_available():
        found.append(_eight_bit())
    return found


def _four_bit(device: str) -> Finding:
    """A product and its gradient at the input, by both types of weights, with constants quantised too."""
    import bitsandbytes as bnb
    import torch

    name = f"bitsandbytes 4-bit ({device})"
    measured: list[tuple[str, float, float]] = []
    try:
        for kind in LARGEST_ERROR:
            generator = torch.Generator().manual_seed(0)
            weight = torch.randn(64, 128, generator=generator)
            x = torch.randn(8, 128, generator=generator)
            back = torch.randn(8, 64, generator=generator)
            layer = bnb.nn.Linear4bit(128, 64, bias=False, compute_dtype=torch.float32, quant_type=kind)
            layer.weight = bnb.nn.Params4bit(weight, requires_grad=False, quant_type=kind, compress_statistics=True)
            layer.to(device)
            there = x.to(device, copy=True).requires_grad_()
            y = layer(there)
            y.backward(back.to(device))
            assert there.grad is not None
            forward = _error(y.detach().cpu(), x @ weight.T)
            backward = _error(there.grad.cpu(), back @ weight)
            measured.append((kind, forward, backward))
    except (RuntimeError, OSError, AttributeError, NotImplementedError) as problem:
        text = (str(problem).strip().splitlines() or [type(problem).__name__])[0][:120]
        return Finding(name, "bad", text, f"bitsandbytes를 다시 설치하세요 (reinstall): {INSTALL}")
    good = all(0.0 < error < LARGEST_ERROR[kind] for kind, *errors in measured for error in errors)
    seen = ", ".join(f"{kind} {forward:.3f} {backward:.3f}" for kind, forward, backward in measured)
    seen += " (상대 오차, relative error of product and gradient)"
    return Finding(name, "ok" if good else "bad", seen, "" if good else INSTALL)


def _error(got: Tensor, wanted: Tensor) -> float:
    return float((got - wanted).norm() / wanted.norm())


def _eight_bit() -> Finding:
    """One step of the paged 8-bit AdamW against torch's own: the first step of both is the rate, by sign."""
    import bitsandbytes as bnb
    import torch

    name = "bitsandbytes 8-bit AdamW (cuda)"
    rate, size = 1e-2, 1 << 17  # smaller tensors are kept in 32 bits
    generator = torch.Generator().manual_seed(0)
    gradient = torch.randn(size, generator=generator).cuda()
    matrix = torch.nn.Parameter(torch.zeros(size, device="cuda"))
    try:
        optimizer = bnb.optim.PagedAdamW8bit([matrix], lr=rate, weight_decay=0.0)
        matrix.grad = gradient
        optimizer.step()
        error = _error(matrix.detach(), -rate * gradient.sign())
    except (RuntimeError, OSError, AttributeError) as problem:
        return Finding(name, "bad", str(problem).strip().splitlines()[0][:120], INSTALL)
    seen = f"한 단계의 상대 오차 {error:.3f} (relative error of a step)"
    return Finding(name, "ok" if error < 0.05 else "bad", seen, "" if error < 0.05 else INSTALL)


def _embedded() -> Finding:
    from koalpaca_tune.errors import KoalpacaError
    from koalpaca_tune.models import tokenizer

    try:
        vocabulary = tokenizer.load("embedded")
    except KoalpacaError as error:
        return Finding("내장 모델 (embedded base)", "bad", str(error), "패키지를 다시 설치하세요 (reinstall).")
    size = vocabulary.backend.get_vocab_size()
    return Finding("내장 모델 (embedded base)", "ok", f"토크나이저 {size:,}개 (tokenizer entries)")


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free / 2**30
    seen = f"{free:.0f} GiB 남음 (free)"
    if not os.access(folder, os.W_OK):
        fix = "쓸 수 있는 폴더에서 하세요 (work in a folder that can be written to)."
        return Finding("디스크 (disk)", "bad", f"{folder}: 쓸 수 없음 (not to be written to), {seen}", fix)
    state: State = "ok" if free > 30 else "note"
    fix = "" if state == "ok" else "12.8B 모델을 받으려면 약 26 GiB가 필요합니다 (12.8B needs 26 GiB)."
    return Finding("디스크 (disk)", state, seen, fix)


def _token() -> Finding:
    from huggingface_hub import get_token

    name = "Hub 토큰 (token)"
    if get_token() is None:
        return Finding(name, "note", "없음 (none)", "올리거나 허가 모델을 받으려면 (to push): hf auth login")
    return Finding(name, "ok", "있음, 값은 보이지 않음 (found, not shown)")


def _hub() -> Finding:
    """One request without the token, so that nothing secret can be in an error."""
    import httpx2
    from huggingface_hub import constants

    name = "Hugging Face Hub"
    if constants.HF_HUB_OFFLINE:
        return Finding(
            name, "note", "HF_HUB_OFFLINE=1", "받거나 올리려면 이 변수를 지우세요 (unset it to download)."
        )
    try:
        answer = httpx2.head(constants.ENDPOINT, timeout=HUB_SECONDS, follow_redirects=False)
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as problem:
        fix = "내장 모델과 로컬 폴더는 네트워크 없이 됩니다 (the embedded base and local folders need none)."
        return Finding(name, "note", f"닿지 않음 (not reached): {type(problem).__name__}", fix)
    if answer.status_code >= 500:
        return Finding(name, "note", f"HTTP {answer.status_code}", "나중에 다시 해 보세요 (try later).")
    return Finding(name, "ok", "닿음 (reached)")


def _font() -> Finding:
    from matplotlib import font_manager

    have = {font.name for font in font_manager.fontManager.ttflist}
    name = next((font for font in KOREAN_FONTS if font in have), None)
    if name is None:
        return Finding(
            "한글 글꼴 (Korean font)",
            "note",
            "이 컴퓨터에는 없음 (none here)",
            "그림의 글자는 보는 쪽의 글꼴로 나옵니다. 여기서 보려면 (to see them here): apt install fonts-nanum",
        )
    return Finding("한글 글꼴 (Korean font)", "ok", name)
