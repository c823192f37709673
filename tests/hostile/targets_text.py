"""What reads text that a person wrote: recipes, overrides, preparations, task files, suites, patterns."""

from __future__ import annotations

from pathlib import Path
from random import Random

from breakage import NASTY, WORDS, changed, changed_lines

from koalpaca_tune import patterns, resources
from koalpaca_tune.config import load
from koalpaca_tune.config.check import keys
from koalpaca_tune.config.recipe import Recipe
from koalpaca_tune.suites import tasks

PREPARATION = """\
inputs:
  - path: a.csv
    weight: 0.5
  - {path: hf:a/b, revision: main, columns: {question: 질문, answer: 답}}
clean: [nfc, spaces]
duplicates:
  threshold: 0.8
"""


def _seeds(folder: Path) -> list[str]:
    return [path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.yaml"))]


RECIPES = _seeds(resources.RECIPES)
TASKS, SUITES = _seeds(resources.EVAL / "tasks"), _seeds(resources.EVAL / "suites")
KEYS = list(keys(Recipe))


_NASTY = [one.decode("utf-8", "surrogateescape") for one in NASTY]


def _write(path: Path, seed: str, chance: Random, others: list[str]) -> None:
    """Mostly lines are changed; what is changed byte by byte is seldom read further than its first error."""
    if chance.random() < 0.15:
        path.write_bytes(changed(seed.encode(), chance, [other.encode() for other in others]))
    else:
        path.write_bytes(changed_lines(seed, chance, others).encode("utf-8", "surrogatepass"))


def _name(seed: str) -> str:
    return seed.split("name:")[1].split("\n")[0].strip()


def recipe(chance: Random, folder: Path) -> None:
    """A shipped recipe, changed."""
    path = folder / "recipe.yaml"
    _write(path, chance.choice(RECIPES), chance, RECIPES)
    load.load(str(path))


def override(chance: Random, folder: Path) -> None:
    """`key=value` of the command line."""
    given = [f"{chance.choice(KEYS)}={chance.choice((*WORDS, *_NASTY))}" for _ in range(chance.randint(1, 3))]
    load.load("demo", given)


def preparation(chance: Random, folder: Path) -> None:
    """A preparation's file."""
    path = folder / "preparation.yaml"
    _write(path, PREPARATION, chance, [PREPARATION])
    load.preparation(path)


def task(chance: Random, folder: Path) -> None:
    """A task file of one's own, and the items that it asks for."""
    seed = chance.choice(TASKS)
    path = folder / (_name(seed) + ".yaml")
    _write(path, seed, chance, TASKS)
    tasks.load_task(path)


def suite(chance: Random, folder: Path) -> None:
    """A suite of one's own."""
    seed = chance.choice(SUITES)
    path = folder / (_name(seed) + ".yaml")
    _write(path, seed, chance, SUITES)
    tasks.load_suite(str(path))


def pattern(chance: Random, folder: Path) -> None:
    """A prompt's pattern: what it cannot be is said with what to do, as the models of task files expect."""
    text = changed(b"{question}\n{word:\xec\x9d\xb4/\xea\xb0\x80} {{x}}", chance).decode("utf-8", "replace")
    try:
        names = patterns.fields(text)
        patterns.fill(text, dict.fromkeys(names, "{x.__class__}"))
    except ValueError as error:
        if " | " not in str(error):
            raise


TARGETS = {
    "recipe": recipe,
    "override": override,
    "preparation": preparation,
    "task": task,
    "suite": suite,
    "pattern": pattern,
}
"""What is broken -> one try."""
