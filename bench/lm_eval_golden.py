"""Writes what lm-evaluation-harness asks of the rows in tests/evaluation/data/kobest_rows.json, word for word.

    python bench/lm_eval_golden.py        with the python of bench/lm_eval_venv.sh

The rows were written for the test, with the columns of KoBEST's files. lm-eval's own YAML and code build the
requests; the test holds ours against them (tests/evaluation/test_evaluation_shots.py), without lm-eval.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from kobest_rows import FOLDERS, rows_of
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._yaml_loader import load_yaml
from lm_eval_parity import lm_eval

DATA = Path(__file__).parent.parent / "tests" / "evaluation" / "data"
SHOTS = (0, 2)


def golden(name: str, root: Path) -> list[dict[str, Any]]:
    folder = Path(lm_eval.__file__).parent / "tasks" / "kobest"
    config = load_yaml(folder / f"kobest_{name}.yaml", resolve_func=True)
    found = []
    for shots in SHOTS:
        task = ConfigurableTask(config={**config, "custom_dataset": rows_of(name, root)})
        task.set_config(key="num_fewshot", value=shots)
        task.set_fewshot_seed(seed=1234)
        task.build_all_requests(limit=None, rank=0, world_size=1)
        by_item: dict[int, list[tuple[str, str]]] = {}
        for instance in task.instances:
            by_item.setdefault(instance.doc_id, []).append(tuple(instance.args))
        found += [{"shots": shots, "requests": by_item[n]} for n in sorted(by_item)]
    return found


def main() -> None:
    rows = json.loads((DATA / "kobest_rows.json").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for path, lines in rows.items():
            file = root / "kobest" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("".join("\t".join(line) + "\r\n" for line in lines), encoding="utf-8", newline="")
        texts = {name: golden(name, root) for name in FOLDERS}
    text = json.dumps(texts, ensure_ascii=False, indent=1)
    (DATA / "lm_eval_golden.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
