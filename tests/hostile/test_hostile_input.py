"""Any input is taken or refused with one clear error, whatever reads it (bench/hostile.py tries many more)."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
import targets_files
import targets_hub
import targets_models
import targets_runs
import targets_text
from breakage import attempt
from hypothesis import given, settings
from hypothesis import strategies as st

Target = Callable[[Random, Path], None]

QUICK: dict[str, Target] = {**targets_text.TARGETS, **targets_files.TARGETS}
QUICK |= {name: targets_models.TARGETS[name] for name in ("adapter", "recorded")}
QUICK |= {name: targets_runs.TARGETS[name] for name in ("trail", "stored")}
SLOW = {name: targets_models.TARGETS[name] for name in ("words", "template")}
# cards have pictures
SLOW |= targets_hub.TARGETS
# "sheet" has no limit of memory: a process of its own is what bench/hostile.py gives it
SLOW |= {name: targets_runs.TARGETS[name] for name in ("book", "results", "compared")}


def tried(target: Target, chance: Random) -> None:
    with tempfile.TemporaryDirectory() as above:
        folder = Path(above) / "run"
        folder.mkdir()
        outcome = attempt(lambda: target(chance, folder))
        assert not outcome.failure
        assert [path.name for path in Path(above).iterdir()] == ["run"], "something was written beside the folder"


@pytest.mark.parametrize("name", list(QUICK))
@given(st.randoms(use_true_random=False, note_method_calls=False))
@settings(max_examples=25)
def test_any_input_is_taken_or_refused_with_one_error(name: str, chance: Random) -> None:
    tried(QUICK[name], chance)


@pytest.mark.parametrize("name", list(SLOW))
@given(st.integers(0, 2**32 - 1))
@settings(max_examples=8)
def test_what_takes_longer_to_read_is_taken_or_refused_with_one_error(name: str, seed: int) -> None:
    tried(SLOW[name], Random(seed))


@pytest.mark.parametrize("template", [*targets_models.TEMPLATES, *targets_models.HUGE])
def test_no_chat_template_reaches_beyond_its_messages(template: str) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    from koalpaca_tune.templates import chat
    from koalpaca_tune.templates.template import Markers

    def apply(messages: list[dict[str, str]], generate: bool) -> str:
        (text,), _ = render_jinja_template([messages], chat_template=template, add_generation_prompt=generate)
        return str(text)

    shown: list[str] = []

    def render() -> None:
        rendered = chat.tokenizer_own(apply, ("<|endoftext|>",))(targets_models.TALK, Markers(None, "x"))
        shown.append(rendered.text)

    outcome = attempt(render)
    assert not outcome.failure
    assert outcome.code in ("", "template-refused", "template-prefix")
    assert not any(secret in text for text in shown for secret in ("class", "uid=", "root:", "function", "49"))
