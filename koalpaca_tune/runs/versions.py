"""Installed versions against what this package asks for, and against releases that are known to train wrongly.

A release is listed here where it fails silently: the run goes on, and what it learns is wrong. What raises an
error by itself needs no row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from koalpaca_tune.config.recipe import Recipe
from koalpaca_tune.runs.finding import Finding, State

DISTRIBUTION = "koalpaca-tune"
NAME = "버전 (versions)"
SHOWN = ("torch", "transformers", "peft", "bitsandbytes")


@dataclass(frozen=True)
class Circumstances:
    """What a fault may depend on.

    Attributes:
        recipe: of the run.
        fast: whether our own blocks compute it.
        capability: of the card, or None on the CPU.
        cudnn: whether torch may compute attention with cuDNN.
    """

    recipe: Recipe
    fast: bool
    capability: tuple[int, int] | None
    cudnn: bool = False

    @property
    def masked_cudnn(self) -> bool:
        """Whether torch would give cuDNN attention with a mask to compute: the plain engine, on Hopper or newer."""
        return not self.fast and self.capability is not None and self.capability[0] >= 9


@dataclass(frozen=True)
class Fault:
    """Releases that train wrongly.

    Attributes:
        package, releases: which, as a PEP 440 specifier.
        state: bad, or note where it strikes only some.
        why: Korean, then English.
        fix: what to do.
        strikes: whether it can, in a run.
    """

    package: str
    releases: str
    state: State
    why: str
    fix: str
    strikes: Callable[[Circumstances], bool] = lambda _: True


FAULTS = (
    # bitsandbytes issues 152, 227 and 659: one indented block made the map of the 8-bit states wrong from 0.36.0
    # on; a maintainer's word in 227: fixed by 0.41.1. alpaca-lora issue 391 (loss 0 after 15 steps) had 0.37.2.
    Fault(
        "bitsandbytes",
        ">=0.36.0,<0.41.1",
        "bad",
        "8비트 옵티마이저가 잘못 계산해 손실이 튀거나 NaN이 됩니다 (its 8-bit optimizers diverge)",
        "bitsandbytes 0.48 이상을 쓰거나 training.optimizer=adamw (upgrade, or use adamw).",
        lambda here: here.recipe.training.optimizer == "paged_adamw_8bit",
    ),
    # qlora issue 38, peft issue 286: releases before 0.4.0 have no 4-bit LoRA layer, and saved adapters of 443
    # bytes with nothing in them
    Fault(
        "peft",
        "<0.4.0",
        "bad",
        "4비트 LoRA가 없고, 빈 어댑터(443바이트)를 저장합니다 (no 4-bit LoRA; it saves empty adapters)",
        "pip install -c constraints.txt .",
    ),
    # transformers PR 39194 (merged July 2025): until then positions that restart did not keep the documents of a
    # row apart under SDPA attention
    Fault(
        "transformers",
        "<4.54",
        "bad",
        "한 행에 담은 예시들이 서로를 봅니다 (documents packed in a row see each other)",
        "pip install -c constraints.txt .",
        lambda here: here.recipe.data.packing,
    ),
    # pytorch issue 196678 and trl issue 7181: from 2.11 on (2.13.0 is the newest tried there) the default SDPA
    # backend on H100 and H200 is cuDNN, whose backward pass with a mask gives NaN in the gradient of q where a row
    # is an odd multiple of 64 tokens and scores are strongly negative. `models.base.load` switches it off, since
    # transformers' modules pass masks; our fast engine passes none.
    Fault(
        "torch",
        ">=2.11,<=2.13.0",
        "bad",
        "plain 엔진의 어텐션에 cuDNN이 켜져 있어 NaN 기울기가 날 수 있습니다 "
        "(cuDNN attention is on: the plain engine's gradients may be NaN)",
        "torch.backends.cuda.enable_cudnn_sdp(False), 또는 engine.kind=fast (or the fast engine).",
        lambda here: here.masked_cudnn and here.cudnn,
    ),
)


def check(here: Circumstances, installed: Mapping[str, str] | None = None) -> list[Finding]:
    """One line with the versions that matter, and one for each that is too old or known to fail here.

    Args:
        here: the run.
        installed: package -> version, in place of what is installed.
    """
    found = too_old(installed)
    for fault in FAULTS:
        version = _version(fault.package, installed)
        if version and SpecifierSet(fault.releases).contains(version, prereleases=True) and fault.strikes(here):
            found.append(Finding(NAME, fault.state, f"{fault.package} {version}: {fault.why}", fault.fix))
    seen = ", ".join(f"{name} {_version(name, installed) or '-'}" for name in SHOWN)
    if here.masked_cudnn and not here.cudnn:
        seen += "; 어텐션에 cuDNN을 쓰지 않음 (attention without cuDNN: pytorch issue 196678)"
    return found or [Finding(NAME, "ok", seen)]


def too_old(installed: Mapping[str, str] | None = None) -> list[Finding]:
    """What is not installed, or outside of what this package asks for."""
    found: list[Finding] = []
    for package, wanted in requirements().items():
        version = _version(package, installed)
        if version is None:
            found.append(
                Finding(NAME, "bad", f"{package} 없음 (not installed)", "pip install -c constraints.txt .")
            )
        elif not wanted.contains(version, prereleases=True):
            seen = f"{package} {version}: {wanted}이어야 함 (needed: {wanted})"
            found.append(Finding(NAME, "bad", seen, "pip install -c constraints.txt ."))
    return found


def requirements() -> dict[str, SpecifierSet]:
    """What this package asks for; without the extras."""
    try:
        lines = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        # run from a checkout that was never installed
        return {}
    wanted = [Requirement(line) for line in lines]
    return {one.name: one.specifier for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})}


def _version(package: str, installed: Mapping[str, str] | None) -> str | None:
    if installed is not None and package in installed:
        # torch's local part (+cu130) says nothing here
        return installed[package]
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
