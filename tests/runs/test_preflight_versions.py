"""Releases that train wrongly without a word are named, where they can strike, with the reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch

from koalpaca_tune.config.recipe import Recipe
from koalpaca_tune.models import base
from koalpaca_tune.runs import versions
from koalpaca_tune.runs.finding import Finding
from koalpaca_tune.runs.versions import Circumstances

HOPPER, AMPERE = (9, 0), (8, 0)


def found(
    recipe: Recipe, installed: Mapping[str, str], *, fast: bool = True, card: tuple[int, int] | None = None
) -> list[Finding]:
    return versions.check(Circumstances(recipe, fast, card), installed)


def faults(*arguments: Any, **options: Any) -> list[Finding]:
    """Without the lines that say that a version is older than what this package asks for."""
    return [one for one in found(*arguments, **options) if "needed:" not in one.seen]


def test_what_the_tests_run_with_is_green(on_files: Callable[..., Recipe]) -> None:
    (one,) = versions.check(Circumstances(on_files(), True, None))
    assert one.state == "ok"
    assert "transformers 5." in one.seen


@pytest.mark.parametrize(
    ("version", "state"), [("0.35.4", ""), ("0.36.0", "bad"), ("0.37.2", "bad"), ("0.41.0", "bad"), ("0.41.1", "")]
)
def test_alpaca_lora_391_the_8_bit_optimizers_of_bitsandbytes_0_37(
    version: str, state: str, on_files: Callable[..., Recipe]
) -> None:
    installed = {"bitsandbytes": version}
    eight_bit = on_files(training={"optimizer": "paged_adamw_8bit"})
    assert [one.state for one in faults(eight_bit, installed) if "8비트" in one.seen] == ([state] if state else [])
    assert not [one for one in faults(on_files(), installed) if "8비트" in one.seen], "plain AdamW is not concerned"


def test_alpaca_lora_446_a_peft_that_saves_empty_adapters(on_files: Callable[..., Recipe]) -> None:
    (one,) = faults(on_files(), {"peft": "0.3.0"})
    assert (one.state, "443" in one.seen) == ("bad", True)


def test_packing_with_a_transformers_that_lets_documents_see_each_other(on_files: Callable[..., Recipe]) -> None:
    installed = {"transformers": "4.46.0"}
    assert [one.state for one in faults(on_files(), installed)] == ["bad"]
    assert faults(on_files(data={"packing": False}), installed) == []


@pytest.mark.parametrize(
    ("version", "fast", "card", "told"),
    [
        ("2.13.0", False, HOPPER, True),
        ("2.13.0+cu130", False, HOPPER, True),
        ("2.11.0", False, HOPPER, True),
        ("2.10.0", False, HOPPER, False),
        ("2.13.1", False, HOPPER, False),
        ("2.13.0", True, HOPPER, False),
        ("2.13.0", False, AMPERE, False),
        ("2.13.0", False, None, False),
    ],
)
def test_pytorch_196678_cudnn_attention_of_the_plain_engine_where_it_is_on(
    version: str, fast: bool, card: tuple[int, int] | None, told: bool, on_files: Callable[..., Recipe]
) -> None:
    here = Circumstances(on_files(), fast, card, cudnn=True)
    states = [one.state for one in versions.check(here, {"torch": version}) if "cuDNN" in one.seen]
    assert states == (["bad"] if told else [])


def test_pytorch_196678_trl_7181_loading_a_base_switches_cudnn_attention_off_and_preflight_says_so(
    on_files: Callable[..., Recipe],
) -> None:
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(True)
    try:
        recipe = on_files()
        base.load(recipe.base, recipe.quantization)
        on = torch.backends.cuda.cudnn_sdp_enabled()
        assert not on
        (one,) = versions.check(Circumstances(recipe, False, HOPPER, cudnn=on), {"torch": "2.13.0"})
        assert one.state == "ok"
        assert "어텐션에 cuDNN을 쓰지 않음" in one.seen
        (one,) = versions.check(Circumstances(recipe, True, HOPPER, cudnn=on), {"torch": "2.13.0"})
        assert "cuDNN" not in one.seen
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


def test_what_is_too_old_is_red_with_what_is_wanted(on_files: Callable[..., Recipe]) -> None:
    """The floor is that of the package's own metadata."""
    if not versions.requirements():
        pytest.skip("the package is not installed: run from a checkout")
    (one,) = [one for one in found(on_files(), {"transformers": "5.0.0"}) if "needed:" in one.seen]
    assert one.state == "bad"
    assert one.seen.startswith("transformers 5.0.0: >=5.")


def test_every_fault_has_a_reason_in_both_languages_and_a_way_out() -> None:
    for fault in versions.FAULTS:
        assert any("가" <= letter <= "힣" for letter in fault.why)
        assert "(" in fault.why
        assert fault.fix
