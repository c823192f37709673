"""`koalpaca doctor`: what this machine can do, found out by doing it."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from koalpaca_tune.runs import record

KOREAN_FONTS = ("NanumGothic", "Noto Sans CJK KR", "Noto Sans KR", "Malgun Gothic", "Apple SD Gothic Neo")
State = Literal["ok", "note", "bad"]


@dataclass(frozen=True)
class Finding:
    """One check: what was looked at, how it is, what was seen, what to do."""

    name: str
    state: State
    seen: str
    fix: str = ""


def examine(folder: Path) -> list[Finding]:
    """All checks; none of them needs the network."""
    return [_versions(), _card(), *_four_bit(), _embedded(), _disk(folder), _hub(), _font()]


def _versions() -> Finding:
    found = record.versions()
    missing = [name for name, version in found.items() if version == "not installed"]
    seen = ", ".join(f"{name} {version}" for name, version in found.items())
    if missing:
        return Finding("버전 (versions)", "bad", seen, "pip install -c constraints.txt .")
    return Finding("버전 (versions)", "ok", seen)


def _card() -> Finding:
    import torch

    if not torch.cuda.is_available():
        return Finding(
            "GPU",
            "note",
            "CUDA 카드가 없음: CPU로 돕니다 (no CUDA card: runs on the CPU)",
            "데모는 CPU로 충분합니다. 큰 모델에는 CUDA 카드가 필요합니다.",
        )
    properties = torch.cuda.get_device_properties(0)
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    seen = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, bfloat16 {'있음' if bf16 else '없음'}"
    if bf16:
        return Finding("GPU", "ok", seen)
    return Finding("GPU", "note", seen, "레시피에 quantization.bnb_4bit_compute_dtype: float16을 쓰세요.")


def _four_bit() -> list[Finding]:
    import bitsandbytes as bnb
    import torch

    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    findings = []
    for device in devices:
        name = f"bitsandbytes 4-bit ({device})"
        try:
            torch.manual_seed(0)
            layer = torch.nn.Linear(128, 64, bias=False)
            quantised = bnb.nn.Linear4bit(128, 64, bias=False, compute_dtype=torch.float32, quant_type="nf4")
            quantised.load_state_dict(layer.state_dict())
            quantised.to(device)
            x = torch.randn(8, 128)
            exact, got = layer(x), quantised(x.to(device)).cpu()
            error = float(((got - exact).norm() / exact.norm()).detach())
        except (RuntimeError, OSError, AttributeError) as problem:
            findings.append(
                Finding(name, "bad", str(problem).splitlines()[0][:120], "bitsandbytes를 다시 설치하세요.")
            )
            continue
        good = 0.0 < error < 0.2
        findings.append(
            Finding(
                name,
                "ok" if good else "bad",
                f"NF4 곱셈의 상대 오차 {error:.3f} (relative error of a product)",
                "" if good else "constraints.txt의 버전을 쓰세요.",
            )
        )
    return findings


def _embedded() -> Finding:
    from koalpaca_tune.errors import KoalpacaError
    from koalpaca_tune.models import tokenizer

    try:
        vocabulary = tokenizer.load("embedded")
    except KoalpacaError as error:
        return Finding("내장 모델 (embedded base)", "bad", str(error), "패키지를 다시 설치하세요.")
    size = vocabulary.backend.get_vocab_size()
    return Finding("내장 모델 (embedded base)", "ok", f"토크나이저 {size:,}개 (tokenizer entries)")


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free / 2**30
    state: State = "ok" if free > 30 else "note"
    return Finding(
        "디스크 (disk)",
        state,
        f"{free:.0f} GiB 남음 (free)",
        "" if state == "ok" else "12.8B 모델을 받으려면 약 26 GiB가 필요합니다.",
    )


def _hub() -> Finding:
    from huggingface_hub import get_token

    if os.environ.get("HF_HUB_OFFLINE") == "1":
        return Finding("Hugging Face Hub", "note", "HF_HUB_OFFLINE=1", "받거나 올리려면 이 변수를 지우세요.")
    if get_token() is None:
        return Finding("Hugging Face Hub", "note", "토큰 없음 (no token)", "올리려면: hf auth login")
    return Finding("Hugging Face Hub", "ok", "토큰 있음 (token found, not shown)")


def _font() -> Finding:
    from matplotlib import font_manager

    have = {font.name for font in font_manager.fontManager.ttflist}
    name = next((font for font in KOREAN_FONTS if font in have), None)
    if name is None:
        return Finding(
            "한글 글꼴 (Korean font)",
            "note",
            "이 컴퓨터에는 없음 (none here)",
            "그림의 글자는 보는 쪽의 글꼴로 나옵니다. 여기서 보려면: apt install fonts-nanum",
        )
    return Finding("한글 글꼴 (Korean font)", "ok", name)
