"""Several GPUs: one of them busy, a launcher's own ideas, sharded 4-bit weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from koalpaca_tune.config.recipe import Recipe
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.runs import preflight, resume
from koalpaca_tune.training.steps import deal

Make = Callable[..., Recipe]


def test_qlora_96_cards_that_nobody_uses_are_told_of(
    trained_neox: Any, make_ready: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`device_map="auto"` lays a base over all cards, of which one computes at a time."""
    (told,) = preflight.idle_cards(4, 1)
    assert (told.state, "1 of 4 used" in told.seen) == ("note", True)
    assert "--num_processes 4" in told.fix
    assert preflight.idle_cards(4, 4) == preflight.idle_cards(1, 1) == preflight.idle_cards(0, 1) == []
    ready = make_ready(trained_neox.recipe)
    assert told not in preflight.of_model(ready)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert told in preflight.of_model(ready)
    assert len({p.device for p in ready.trainer.model.parameters()}) == 1
    assert getattr(ready.loaded.model, "hf_device_map", None) in (None, {"": ready.loaded.device})


def test_axolotl_3839_one_process_is_not_wrapped_and_several_share_each_step(
    trained_neox: Any, make_ready: Any, tmp_path: Path
) -> None:
    """Data parallelism over a world of one; or every process with the same rows."""
    ready = make_ready(trained_neox.recipe)
    assert ready.trainer.objective is ready.trainer.engine
    assert trained_neox.record["world_size"] == 1
    rows = [(0,), (1, 2), (3,), (4,), (5,)]
    for ranks in (1, 2, 3):
        shares = deal(rows, ranks)
        assert sorted(row for share in shares for row in share) == rows
        assert len(shares) == ranks
    # the same recipe on another number of processes is another run, and says so
    two = {**trained_neox.record, "world_size": 2}
    with pytest.raises(KoalpacaError, match="started with 1 processes, there are 2 now") as caught:
        resume.check_contents(trained_neox.record, two, trained_neox.folder, ())
    assert caught.value.problems[0].code == "resume-differs"


@pytest.mark.parametrize(
    ("name", "what"), [("ACCELERATE_USE_FSDP", "FSDP"), ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed")]
)
def test_bitsandbytes_1092_transformers_24395_sharding_of_a_4bit_base_is_refused(
    pains_recipe: Make, make_ready: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, what: str
) -> None:
    """FSDP and ZeRO-3 flatten weights of one type: 4-bit bytes among bfloat16 fail, or are read as others."""
    monkeypatch.setenv(name, "true")
    with pytest.raises(KoalpacaError, match=f"{name}=true: the launcher asks for {what}") as caught:
        make_ready(pains_recipe(tmp_path / "run", quantization={"load_in_4bit": True}))
    assert caught.value.problems[0].code == "launch-option"
    monkeypatch.setenv(name, "false")
    assert make_ready(pains_recipe(tmp_path / "run")).accelerator.num_processes == 1
