"""scripts/before_after: what is carried comes back whole, a base fits into its time, pages say what was found."""

from __future__ import annotations

import importlib.util
import json
import sys
import tarfile
from argparse import Namespace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

TOP = Path(__file__).resolve().parent.parent.parent
FOLDER = TOP / "scripts" / "before_after"


def script(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"before_after_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


carry, page = script(FOLDER / "carry.py"), script(FOLDER / "page.py")


# -------------------------------------------------------------------------------------------------- carry


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    for name in ("site/package/__pycache__", "prepared", "data/kobest"):
        (folder / name).mkdir(parents=True)
    (folder / "site/package/__init__.py").write_text("x = 1\n")
    (folder / "site/package/__pycache__/a.pyc").write_bytes(b"compiled here")
    (folder / "data/kobest/test.tsv").write_text("한글\n", encoding="utf-8")
    for name in carry.PREPARED:
        (folder / "prepared" / name).write_text(name)
    for name in carry.SMALL:
        (folder / name).write_bytes(name.encode())
    np.save(folder / "train.npy", np.random.default_rng(0).integers(0, 20_000, 5_001).astype(np.int16))
    return folder


def test_every_call_is_small_and_all_of_them_together_bring_all(work: Path, tmp_path: Path) -> None:
    carried, store = tmp_path / "carried", tmp_path / "store"
    carry.pack(work, carried, 4_000)
    calls = sorted(carried.iterdir())
    assert len(calls) > 2
    for call in calls:
        assert sum(part.stat().st_size for part in call.iterdir() if part.name != carry.MANIFEST) <= 4_000
    tokens = np.load(work / "train.npy")
    complete: list[str] = []
    for call in calls:  # one at a time, as calls come
        one = tmp_path / call.name
        (one / call.name).parent.mkdir(parents=True, exist_ok=True)
        call.rename(one / call.name)
        before, complete = complete, carry.receive(one, store)
        assert set(before) <= set(complete)
        if "tokens-1" in complete and "tokens-2" not in complete:
            assert np.array_equal(np.load(store / "train.npy"), tokens[:2_500])
    assert complete == ["site", "tokens-1", "tokens-2", "tuning"]
    assert np.array_equal(np.load(store / "train.npy"), tokens)
    assert (store / "data/kobest/test.tsv").read_text(encoding="utf-8") == "한글\n"
    assert not (store / "site/package/__pycache__").exists()
    assert {path.name for path in (store / "prepared").iterdir()} == set(carry.PREPARED)


def test_a_part_that_changed_on_the_way_is_refused(work: Path, tmp_path: Path) -> None:
    carry.pack(work, tmp_path / "carried", 1 << 20)
    part = tmp_path / "carried/call-1/tokens-2.1"
    part.write_bytes(part.read_bytes()[::-1])
    with pytest.raises(SystemExit, match="tokens-2 is not what was packed"):
        carry.receive(tmp_path / "carried", tmp_path / "store")


def test_results_are_gathered_without_weights_and_without_lines_twice(work: Path, tmp_path: Path) -> None:
    for name in ("seed-1/report.html", "seed-1/items.jsonl", "judged-1/base/items.jsonl", "tuned-1/run.yaml"):
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text("x")
    carry.gather(work, tmp_path / "out.tar.xz")
    with tarfile.open(tmp_path / "out.tar.xz") as tar:
        names = tar.getnames()
    assert names == ["judged-1/base/items.jsonl", "prepared/report.json", "seed-1/report.html", "tuned-1/run.yaml"]


def test_nothing_carried_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="holds no call-"):
        carry.receive(tmp_path, tmp_path / "store")


# --------------------------------------------------------------------------------------------------- base


@pytest.fixture(scope="module")
def base() -> ModuleType:
    return script(TOP / "scripts" / "embedded_base.py")


def test_steps_fill_the_time_but_for_a_reserve(base: ModuleType) -> None:
    assert base.steps_in(100.0, 0.1, 50) == 50 + 970  # 3 % spared
    assert base.steps_in(1.0, 0.1, 50) == 200  # the timed steps were taken at the full rate
    assert base.learning_rate(50, 200, 10, 0.7) == 1.0


def test_a_run_by_the_clock_finishes_its_schedule(base: ModuleType, tmp_path: Path) -> None:
    import torch

    rng = np.random.default_rng(0)
    for name, count in (("train", 4_000), ("held_out", 200)):
        np.save(tmp_path / f"{name}.npy", rng.integers(4, 32, count).astype(np.int16))
    (tmp_path / "held_out.json").write_text(json.dumps({"tokens": 200, "characters": 400}))
    sizes = {"vocab_size": 32, "width": 16, "layers": 1, "heads": 2, "inner": 32, "length": 16, "batch": 2}
    rates = {"muon_lr": 0.02, "embed_lr": 0.01, "vector_lr": 0.001, "weight_decay": 0.0}
    course = {"warmup": 10, "decay_share": 0.7, "log_every": 50, "check_every": 100, "tokens": 1e12}
    where = {"work": tmp_path, "device": "cpu", "compile": False, "seed": 1}
    base.command_train(Namespace(**sizes, **rates, **course, **where, minutes=0.01))
    facts = torch.load(tmp_path / "weights.pt")["facts"]
    assert facts["minutes"] == 0.01
    assert facts["tokens_seen"] == facts["steps"] * 2 * 16
    assert facts["steps"] >= 200
    assert facts["epochs"] == round(facts["steps"] * 32 / 4_000, 2)


def test_a_smaller_share_of_the_articles_is_part_of_a_larger_one(base: ModuleType) -> None:
    articles = [base.Article(str(n), "", "") for n in range(4_000)]
    few, more = ({a.id for a in articles if base.is_chosen(a, share)} for share in (0.05, 0.5))
    assert few < more
    assert 120 < len(few) < 280
    assert all(base.is_chosen(article, 1.0) for article in articles)
    held_out = [article for article in articles if base.is_held_out(article)]
    assert 0 < sum(base.is_chosen(article, 0.5) for article in held_out) < len(held_out)


def test_articles_only_leaves_the_reviews_out_and_says_what_was_read(base: ModuleType, tmp_path: Path) -> None:
    import pyarrow as pa

    data, work = tmp_path / "data", tmp_path / "work"
    (data / "kowiki").mkdir(parents=True)
    (data / "nsmc").mkdir()
    rows = [{"id": str(n), "title": f"제목 {n}", "text": f"제목 {n}\n글 {n}의 내용입니다."} for n in range(300)]
    with pa.output_stream(str(data / "kowiki/kowiki.jsonl.zst"), compression="zstd") as stream:
        stream.write("".join(json.dumps(row) + "\n" for row in rows).encode())
    (data / "nsmc/train.tsv").write_text("id\tdocument\tlabel\n1\t재미있어요\t1\n", encoding="utf-8")
    args = Namespace(data=data, work=work, vocab_size=300, seed=1, share=1.0, articles_only=True)
    base.command_tokenizer(args)
    base.command_encode(args)
    held = json.loads((work / "held_out.json").read_text())["documents"]
    assert held > 0
    assert json.loads((work / "train.json").read_text())["documents"] == 300 - held
    assert list(base.learned_from(work, tmp_path / "elsewhere")) == ["kowiki/kowiki.jsonl.zst"]
    args.articles_only = False
    base.command_encode(args)
    assert json.loads((work / "train.json").read_text())["documents"] == 300 - held + 1
    assert list(base.learned_from(work, data)) == ["kowiki/kowiki.jsonl.zst", "nsmc/train.tsv"]


# ------------------------------------------------------------------------------------ suite, recipe, mixture


def test_the_suite_asks_in_words_that_the_mixture_does_not_use() -> None:
    import yaml

    from koalpaca_tune.config import load
    from koalpaca_tune.suites.tasks import load_suite

    load.preparation(FOLDER / "preparation.yaml")
    load.load(str(FOLDER / "recipe.yaml"))
    suite = load_suite(str(FOLDER / "suite.yaml"))
    asked = [task for task in suite.tasks if task.name.startswith("ask-")]
    assert len(asked) == 6
    taught = {
        phrasing["ask"].split("{", 1)[0]
        for name in ("kobest", "nsmc")
        for task in yaml.safe_load((TOP / f"data/sources/{name}.yaml").read_text())["tasks"].values()
        for phrasing in task["phrasings"]
    }
    for task in asked:
        assert task.asked.form == "question"
        assert not [lead for lead in taught if lead and str(task.asked.prompt).startswith(lead)]


# --------------------------------------------------------------------------------------------------- page


def row(task: str, verdict: str, difference: float, unit: str = "share", less: bool = False) -> dict[str, Any]:
    paired = {
        "before": 0.5,
        "difference": difference,
        "low": difference - 0.02,
        "high": difference + 0.02,
        "n": 1000,
    }
    return {
        "task": task, "measure": "accuracy", "title": f"과제 {task}", "title_en": f"task {task}", "unit": unit,
        "lower_is_better": less, "paired": paired, "verdict": verdict,
    }  # fmt: skip


def seed(name: str, rows: list[dict[str, Any]]) -> Any:
    notice = {"code": "collapse", "korean": "모두 ‘예’입니다.", "english": "All are yes."}
    by_key = {(one["task"], one["measure"]): one for one in rows}
    run = {"result": {"steps": 5, "seconds": 61.4, "loss": 1.25, "valid_loss": 1.5}}
    return page.Seed(name, {"rows": rows, "warnings": [notice]}, by_key, run)


def test_verdicts_are_said_together_only_where_every_seed_says_so() -> None:
    same, worse, better = "no detectable change", "worse", "improved"
    seeds = [
        seed("1", [row("a", better, 0.1), row("b", worse, -0.1), row("c", same, 0.0), row("d", better, 0.05)]),
        seed("2", [row("a", better, 0.2), row("b", worse, -0.1), row("c", same, 0.0), row("d", same, 0.01)]),
    ]
    groups = page.agreement(seeds)
    assert {kind: [task for task, _ in keys] for kind, keys in groups.items()} == {
        "improved": ["a"], "worse": ["b"], "no detectable change": ["c"], "differ": ["d"],
    }  # fmt: skip
    english = "\n".join(page.findings(seeds, ko=False))
    assert "agree on 3 of 4 measures" in english
    assert "(1): task d" in english
    lines = list(page.table(seeds, ko=False))
    assert (
        lines[2]
        == "| task a (`a`) | 1,000 | 50.0 | +10.0 (+8.0 … +12.0) | improved | +20.0 (+18.0 … +22.0) | improved |"
    )
    assert list(page.warned(seeds, ko=False)) == ["- All are yes. (seed 1, 2)"]


def test_bits_are_no_shares_and_less_of_them_is_better() -> None:
    one = row("w", "improved", -0.25, unit="bits", less=True)
    assert page.change(one) == "-0.250 (-0.270 … -0.230)"
    assert page.name(one, ko=True) == "과제 w ↓"
