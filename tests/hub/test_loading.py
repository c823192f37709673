"""The Python on a card is run, and answers as this toolkit does: same prompt, same stops, same weights."""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path
from typing import Any

import pytest

from koalpaca_tune.hub import card


@pytest.mark.parametrize(
    ("family", "template", "four_bit"),
    [("gpt_neox", "koalpaca", True), ("llama", "llama3", False), ("llama", "koalpaca", False)],
)
def test_code_of_the_card_answers_as_we_do(
    family: str,
    template: str,
    four_bit: bool,
    tiny_bases: dict[str, str],
    record: dict[str, Any],
    tmp_path: Path,
) -> None:
    import torch

    from koalpaca_tune.config.recipe import Base, Lora, Quantization
    from koalpaca_tune.inference.answer import answers, question
    from koalpaca_tune.inference.language_model import TorchLanguageModel
    from koalpaca_tune.models import adapter, base
    from koalpaca_tune.tokens.encode import Encoder

    folder = tiny_bases[family]
    loaded = base.load(Base(path=folder), Quantization(load_in_4bit=four_bit), torch.device("cpu"))
    targets = {"gpt_neox": ["query_key_value"], "llama": ["q_proj", "v_proj"]}[family]
    model = adapter.attach(loaded, Lora(targets=targets), "someone/tiny").eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter.normal_(std=0.1)
    adapter.save(model, tmp_path / "adapter")
    lm = TorchLanguageModel(model, loaded, Encoder(loaded.vocabulary, loaded.vocabulary.template(template)))
    ours = answers(lm, [question(card.QUESTION)], 16)[0]

    record["base"].update(path="someone/tiny", revision=None, model_type=family)
    record["proof"] = loaded.proof.as_dict()
    record["template"]["name"] = template
    code = card.loading(record, None)
    assert ("load_in_4bit=True" in code) == four_bit
    here = {"'someone/tiny'": repr(folder), "'./adapter'": repr(str(tmp_path / "adapter")), "=256": "=16"}
    for there, name in here.items():
        assert there in code
        code = code.replace(there, name)
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(code.replace('"auto"', '"cpu"'), "card", "exec"), {})
    assert ours.text
    assert shown.getvalue().strip().rstrip("\ufffd").strip() == ours.text
