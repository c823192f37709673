"""Modelfiles: the prompt that Ollama's template writes is ours.

Go itself is not here; a small evaluator of the few actions that we use stands for it. It was held against Go's own
text/template once (bench/ollama_templates.py, 48 prompts, all equal).
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.export import ollama
from koalpaca_tune.records import Conversation, Turn
from koalpaca_tune.templates.registry import TEMPLATES, find
from koalpaca_tune.templates.template import Markers

MARKERS = Markers("<s>", "</s>")
TALKS = (
    (Turn("user", "수도는?"),),
    (Turn("system", "짧게 {{ .Content }} 답하세요."), Turn("user", '"인용"과 \\n')),
    (Turn("user", "수도는?"), Turn("assistant", "서울."), Turn("user", "인구는?")),
    (Turn("system", "짧게."), Turn("user", "가"), Turn("assistant", "나"), Turn("user", "다")),
)
ACTION = re.compile(r'\{\{ ((?:"(?:[^"\\]|\\.)*"|[^"}])*) \}\}')


def written(source: str, turns: tuple[Turn, ...]) -> str:
    """The template's text; it must consist of actions alone."""
    assert ACTION.sub("", source) == ""
    actions = [found[1] for found in ACTION.finditer(source)]
    names: dict[str, Any] = {}
    messages = [{"Role": turn.role, "Content": turn.content} for turn in turns]

    def value(word: str, dot: dict[str, str]) -> Any:
        if word.startswith('"'):
            return json.loads(word)
        if word in ("true", "false"):
            return word == "true"
        return names[word] if word.startswith("$") else dot[word[1:]]

    def run(at: int, dot: dict[str, str], live: bool, out: list[str]) -> int:
        """From an action up to its block's end or else; returns where that is."""
        while at < len(actions):
            action = actions[at]
            if action == "end" or action.startswith("else"):
                return at
            if action == "range .Messages":
                end = at
                for message in messages:
                    end = run(at + 1, message, live, out)
                at = end + 1
                continue
            if action.startswith("if "):
                taken = False
                while action != "end":
                    test = action.removeprefix("else ").removeprefix("if ")
                    if action == "else":
                        yes = True
                    elif test.startswith("eq "):
                        yes = live and value(test.split()[1], dot) == json.loads(test.split()[2])
                    else:
                        yes = live and bool(value(test, dot))
                    at = run(at + 1, dot, live and yes and not taken, out)
                    taken = taken or yes
                    action = actions[at]
                at += 1
                continue
            if "=" in action and action.startswith("$"):
                name, word = re.split(r" :?= ", action, maxsplit=1)
                if live:
                    names[name] = value(word, dot)
            elif live:
                out.append(value(action, dot))
            at += 1
        return at

    out: list[str] = []
    run(0, {}, True, out)
    return "".join(out)


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("adds_bos", [False, True])
def test_the_prompt_is_ours(name: str, adds_bos: bool) -> None:
    source = ollama.source(name, MARKERS, adds_bos=adds_bos)
    begin = {"llama2": "<s>", "llama3": "<|begin_of_text|>"}.get(name, "") if adds_bos else ""
    for turns in TALKS:
        ours = find(name).render(Conversation(turns), MARKERS).text
        assert begin + written(source, turns) == ours


def test_the_whole_file() -> None:
    text = ollama.modelfile("./my.gguf", "llama3", MARKERS, adds_bos=True, context=8192)
    lines = text.splitlines()
    assert lines[0] == "FROM ./my.gguf"
    assert lines[1].startswith('TEMPLATE """{{ range .Messages }}')
    assert lines[2:] == ['PARAMETER stop "</s>"', 'PARAMETER stop "<|eot_id|>"', "PARAMETER num_ctx 8192"]


def test_the_tokenizers_own_template_cannot_be_written() -> None:
    with pytest.raises(KoalpacaError, match="cannot be written for Ollama") as caught:
        ollama.source("tokenizer", MARKERS, adds_bos=False)
    assert caught.value.problems[0].code == "export-template"
