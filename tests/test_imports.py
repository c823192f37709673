"""Light imports: help and shipped recipes are there at once, without the heavy libraries."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "scipy", "matplotlib", "kiwipiepy")

REPORT = f"; import sys; print([name for name in {HEAVY!r} if name in sys.modules])"


@pytest.mark.parametrize(
    "code",
    [
        "import koalpaca_tune",
        "import koalpaca_tune.cli.main",
        "from click.testing import CliRunner; from koalpaca_tune.cli.main import cli; "
        "[CliRunner().invoke(cli, words, catch_exceptions=False) for words in "
        "(['--help'], ['train', '--help'], ['recipe', 'list'], ['recipe', 'show', 'demo'])]",
        "import koalpaca_tune.data.load, koalpaca_tune.tokens.encode, koalpaca_tune.templates.registry, "
        "koalpaca_tune.suites.tasks, koalpaca_tune.hub",
    ],
    ids=["package", "commands", "help and recipes", "pure rooms"],
)
def test_no_heavy_library_is_imported(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code + REPORT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
