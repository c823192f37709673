"""Python that a base brings along: never run unasked; asked for by name and pinned, it is run as it was pinned."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from koalpaca_tune import jsonl
from koalpaca_tune.cli.main import cli
from koalpaca_tune.config.recipe import Base, Quantization, Recipe
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.hub import card
from koalpaca_tune.inference import scoring
from koalpaca_tune.models import base, base_code, sources
from koalpaca_tune.records import Conversation
from koalpaca_tune.runs import adapters, preflight
from koalpaca_tune.runs import train as runs

CODE = """
from transformers import LlamaForCausalLM

from .louder import mark

mark()


class Louder(LlamaForCausalLM):
    loud = True
"""
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FULL = Quantization(load_in_4bit=False)


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Code that transformers copies and imports stays in the test's folder, and leaves sys.modules again."""
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "transformers_modules"]:
        del sys.modules[name]


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    """What the base's code writes when it is run."""
    return tmp_path / "ran"


@pytest.fixture
def with_code(tiny_bases: dict[str, str], tmp_path: Path, ran: Path) -> Path:
    """A base's folder as the Hub has them: config with auto_map, weights, tokenizer, and two Python files."""
    folder = tmp_path / "with-code"
    shutil.copytree(tiny_bases["llama"], folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_louder.Louder"}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "modeling_louder.py").write_text(CODE, encoding="utf-8")
    mark = f"def mark() -> None:\n    open({str(ran)!r}, 'a').write('x')\n"
    (folder / "louder.py").write_text(mark, encoding="utf-8")
    return folder


@pytest.fixture
def on_hub(with_code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The same as a Hub name whose commit lies in the cache; what is not there cannot be had."""
    import huggingface_hub.constants
    import transformers.utils.hub

    cache = tmp_path / "cache"
    there = cache / "models--kim--louder"
    (there / "refs").mkdir(parents=True)
    (there / "refs/main").write_text(COMMIT, encoding="utf-8")
    shutil.copytree(with_code, there / "snapshots" / COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(transformers.utils.hub.constants, "HF_HUB_CACHE", str(cache))
    return "kim/louder"


def refused(one: Base) -> str:
    with pytest.raises(KoalpacaError) as caught:
        base.load(one, FULL)
    (problem,) = caught.value.problems
    assert problem.code == "base-code"
    assert "\n" not in str(problem)
    return str(problem)


@pytest.mark.parametrize("model_type", ["llama", "no-such-type"])
@pytest.mark.parametrize("name", ["AutoConfig", "AutoModelForCausalLM"])
def test_a_base_with_code_is_refused_in_one_line_and_nothing_of_it_is_run(
    with_code: Path, ran: Path, tmp_path: Path, model_type: str, name: str
) -> None:
    config = json.loads((with_code / "config.json").read_text(encoding="utf-8"))
    config |= {"model_type": model_type, "auto_map": {name: "modeling_louder.Louder"}}
    (with_code / "config.json").write_text(json.dumps(config), encoding="utf-8")
    said = refused(Base(path=str(with_code)))
    assert "modeling_louder.Louder" in said
    # the line names the pin, so that it need not be worked out by hand
    assert f"base.code_sha256={base_code.digest(with_code)}" in said
    assert not ran.exists()
    assert not (tmp_path / "modules").exists()


def test_code_of_a_hub_name_is_refused_with_its_commit(on_hub: str, ran: Path) -> None:
    assert f"base.revision={COMMIT}" in refused(Base(path=on_hub))
    assert not ran.exists()


def test_a_pinned_folder_is_loaded_with_its_own_code(with_code: Path, ran: Path) -> None:
    pin = base_code.digest(with_code)
    loaded = base.load(Base(path=str(with_code), trust_remote_code=True, code_sha256=pin), FULL)
    assert loaded.model.loud
    assert ran.read_text(encoding="utf-8") == "x"


def test_a_pinned_commit_is_loaded_with_its_own_code(on_hub: str, ran: Path) -> None:
    loaded = base.load(Base(path=on_hub, trust_remote_code=True, revision=COMMIT), FULL)
    assert loaded.model.loud
    assert loaded.revision == COMMIT
    assert ran.exists()


@pytest.mark.parametrize("name", ["louder.py", "modeling_louder.py", "new.py", "deep/er.py"])
def test_a_folder_whose_code_changed_is_refused(with_code: Path, ran: Path, name: str) -> None:
    pinned = Base(path=str(with_code), trust_remote_code=True, code_sha256=base_code.digest(with_code))
    (with_code / name).parent.mkdir(exist_ok=True)
    with (with_code / name).open("a", encoding="utf-8") as file:
        file.write("# one more\n")
    assert "not those that were pinned" in refused(pinned)
    assert not ran.exists()


def test_a_branch_that_is_called_like_a_commit_pins_nothing(on_hub: str, tmp_path: Path, ran: Path) -> None:
    name = "f" * 40
    (tmp_path / "cache/models--kim--louder/refs" / name).write_text(COMMIT, encoding="utf-8")
    with pytest.raises(KoalpacaError):
        base.load(Base(path=on_hub, trust_remote_code=True, revision=name), FULL)
    assert not ran.exists()


def test_the_newest_commit_of_a_hub_name_is_known_and_is_part_of_the_fingerprint(
    on_hub: str, tmp_path: Path
) -> None:
    there = tmp_path / "cache/models--kim--louder"
    assert sources.commit(on_hub, None) == COMMIT
    before = sources.fingerprint(on_hub, None, None)
    assert before == sources.fingerprint(on_hub, COMMIT, None), "asked for by name or not, it is the same base"
    later = COMMIT[::-1]
    (there / "snapshots" / COMMIT).rename(there / "snapshots" / later)
    (there / "refs/main").write_text(later, encoding="utf-8")
    assert sources.commit(on_hub, None) == later
    assert sources.fingerprint(on_hub, None, None) != before
    assert sources.commit("embedded", None) is None


def test_code_of_another_repository_is_refused(with_code: Path, ran: Path) -> None:
    config = json.loads((with_code / "config.json").read_text(encoding="utf-8"))
    config["auto_map"] = {"AutoModelForCausalLM": "evil/code--modeling_louder.Louder"}
    (with_code / "config.json").write_text(json.dumps(config), encoding="utf-8")
    pin = base_code.digest(with_code)
    said = refused(Base(path=str(with_code), trust_remote_code=True, code_sha256=pin))
    assert "another repository (evil/code--modeling_louder.Louder)" in said
    assert not ran.exists()


def test_trust_in_a_base_without_code_has_no_effect_and_is_refused(tiny: str) -> None:
    said = refused(Base(path=tiny, trust_remote_code=True, code_sha256="0" * 64))
    assert "brings no Python code" in said


def test_each_kind_of_base_has_its_own_pin(with_code: Path, on_hub: str, ran: Path) -> None:
    assert "base.code_sha256=" in refused(Base(path=str(with_code), trust_remote_code=True, revision=COMMIT))
    pinned = Base(path=on_hub, trust_remote_code=True, code_sha256="0" * 64)
    assert f"base.revision={COMMIT}" in refused(pinned)
    assert not ran.exists()


@pytest.mark.parametrize(
    "given",
    [
        {"trust_remote_code": True},
        {"trust_remote_code": True, "revision": "main"},
        {"trust_remote_code": True, "revision": COMMIT[:7]},
        {"trust_remote_code": True, "revision": COMMIT.upper()},
        {"trust_remote_code": True, "revision": COMMIT + "\n"},
        {"trust_remote_code": True, "revision": COMMIT, "code_sha256": "0" * 64},
        {"trust_remote_code": True, "code_sha256": "0" * 63},
        {"code_sha256": "0" * 64},
    ],
    ids=range(8),
)
def test_trust_without_a_pin_and_a_pin_without_trust_are_errors_of_the_recipe(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Base(path="kim/louder", **given)


def test_a_run_tells_the_code_in_preflight_record_and_card(
    with_code: Path, conversations: list[Conversation], tmp_path: Path
) -> None:
    jsonl.write(tmp_path / "train.jsonl", (one.as_dict() for one in conversations))
    pin = base_code.digest(with_code)
    recipe = Recipe.model_validate(
        {
            "name": "louder",
            "out": str(tmp_path / "run"),
            "base": {"path": str(with_code), "trust_remote_code": True, "code_sha256": pin},
            "quantization": {"load_in_4bit": False},
            "lora": {"r": 2, "alpha": 4, "targets": ["q_proj"]},
            "data": {"train": str(tmp_path / "train.jsonl"), "max_length": 128},
            "training": {"max_steps": 2, "batch_size": 4, "learning_rate": 0.01, "log_every": 1},
            "engine": {"kind": "plain"},
        }
    )
    (note,) = [one for one in preflight.of_recipe(recipe) if one.state == "note" and "code" in one.name]
    assert pin in note.seen
    ready = runs.make_ready(recipe, runs.read_examples(recipe))
    assert ready.loaded.model.loud
    entry = runs.run(ready, Path(recipe.folder), resume=False)
    assert (entry["recipe"]["base"]["trust_remote_code"], entry["recipe"]["base"]["code_sha256"]) == (True, pin)
    adapter = tmp_path / "run/adapter"
    text = card.write(adapter, None, repo=None, license=None, data_licenses=[]).read_text(encoding="utf-8")
    assert pin in text
    assert "trust_remote_code=True" in text

    # the record may be a stranger's: it says how the code was pinned, not that it may be run here
    with pytest.raises(KoalpacaError) as caught:
        adapters.choose(str(with_code), adapter, None, None)
    assert caught.value.problems[0].code == "base-code"
    model = adapters.open_model(adapters.choose(str(with_code), adapter, None, None, trust_remote_code=True))
    assert scoring.obstacle_of(model.model, model.loaded) == "it brings Python code of its own"

    asked = ["generate", str(with_code), "안녕?", "--adapter", str(adapter), "--max-new-tokens", "2"]
    told = CliRunner().invoke(cli, asked)
    assert (told.exit_code, "error [base-code]" in told.output) == (2, True)
    answered = CliRunner().invoke(cli, [*asked, "--trust-remote-code"])
    assert answered.exit_code == 0, answered.output


def test_the_engines_own_blocks_do_not_stand_in_for_the_bases_code(
    with_code: Path, conversations: list[Conversation], tmp_path: Path
) -> None:
    from types import SimpleNamespace

    recipe: Any = SimpleNamespace(base=Base(path="a/b", trust_remote_code=True, revision=COMMIT))
    prepared = SimpleNamespace(fast=True, words=lambda: "fast")
    ready: Any = SimpleNamespace(recipe=recipe, trainer=SimpleNamespace(prepared=prepared))
    assert preflight.engine(ready).state == "bad"
    prepared.fast = False
    assert preflight.engine(ready).state == "ok"


@pytest.fixture
def command(with_code: Path, tmp_path: Path) -> Callable[[str], Any]:
    def run(name: str) -> Any:
        return CliRunner().invoke(cli, [name, str(with_code), "안녕?"])

    return run


def test_a_command_on_a_base_with_code_ends_in_one_line(command: Callable[[str], Any], ran: Path) -> None:
    told = command("generate")
    assert told.exit_code == 2
    assert "error [base-code]" in told.output
    assert "Traceback" not in told.output
    assert not ran.exists()
