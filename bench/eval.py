"""How fast we score beside lm-evaluation-harness: one model, the same requests, one run.

    python bench/eval.py ../shared/data                                  the embedded base, on the CPU
    python bench/eval.py carry/eval --shape polyglot-ko-5.8b --limit 250 random weights in NF4, on a card
    python bench/eval.py ../shared/data --tiny                           the same way on the CPU, a minute

Needs lm-eval 0.4.13 (`bash bench/lm_eval_venv.sh`; for a card: `bash bench/eval_site.sh`). The folder holds kobest/
and, with --shape, polyglot_tokenizer/.

The requests are lm-eval's: its own KoBEST tasks build them, few-shot examples included, from the rows of
bench/lm_eval_parity.py. Both sides get (context, continuation) as text and give log-likelihoods; what is timed is
`HFLM.loglikelihood` and `TorchLanguageModel.score`, tokenizing included, on one model in memory with the same
threads. Sides take turns; of each the fastest turn counts, and of lm-eval the fastest batch size of each task.
Items that do not fit into the base's context are left out on both sides.

    asked      tokens of all requests
    theirs     tokens that lm-eval computes: requests that differ in their last token alone are one, padding aside
    ours       tokens that we compute
    apart      largest difference of a log-likelihood, in nats
    picks      items of which both pick the same choice
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

try:
    import datasets
    import lm_eval
except ModuleNotFoundError as missing:
    sys.exit(f"there is no {missing.name} here. Run bash bench/lm_eval_venv.sh, and this with the python it names.")

import measure
import shapes
import torch
import transformers
from kobest_rows import NAMES, rows_of
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from koalpaca_tune.config.recipe import Base, Quantization
from koalpaca_tune.inference import prefixes
from koalpaca_tune.inference.language_model import TorchLanguageModel
from koalpaca_tune.inference.scoring import Scorer
from koalpaca_tune.models import base as bases
from koalpaca_tune.models import sources, tokenizer
from koalpaca_tune.records import Encoded, Rendered
from koalpaca_tune.templates.template import content
from koalpaca_tune.tokens.encode import Encoder

GOALS = {"cpu": 3.0, "cuda": 4.0}


@dataclass(frozen=True)
class Request:
    """What is asked: a continuation of a context, and of which item it is a choice."""

    item: int
    context: str
    continuation: str

    def rendered(self) -> Rendered:
        """For us: the space at the end of a context belongs to the continuation, as lm-eval itself moves it."""
        context = self.context.rstrip(" ")
        moved = self.context[len(context) :] + self.continuation
        return Rendered((content(context), content(moved, learn=True)))

    def instance(self, n: int) -> Instance:
        """For lm-eval."""
        return Instance("loglikelihood", {}, (self.context, self.continuation), n)


class Asked(Exception):  # noqa: N818
    """lm-eval has asked; what it would do with answers is not wanted."""


class Recorder(LM):
    """Notes what lm-eval would ask a model."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[Request] = []

    def loglikelihood(self, requests: list[Instance], **kwargs: Any) -> list[tuple[float, bool]]:
        self.requests += [Request(one.doc_id, *one.args) for one in requests]
        raise Asked

    def loglikelihood_rolling(self, requests: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    def generate_until(self, requests: Any, **kwargs: Any) -> Any:
        raise NotImplementedError


def asked(name: str, root: Path, shots: int, limit: int | None, sampler: str) -> list[Request]:
    """The requests of a task, as lm-eval builds them."""
    folder, task = Path(lm_eval.__file__).parent / "tasks" / "kobest", f"kobest_{name}"
    config = load_yaml(folder / f"{task}.yaml", resolve_func=True) | {"fewshot_config": {"sampler": sampler}}
    recorder = Recorder()
    with suppress(Asked):
        lm_eval.simple_evaluate(
            model=recorder,
            tasks=[ConfigurableTask(config={**config, "custom_dataset": rows_of(name, root)})],
            num_fewshot=shots,
            limit=limit,
            bootstrap_iters=0,
            task_manager=TaskManager(include_path=folder, include_defaults=False),
        )
    return recorder.requests


def fitting(requests: Sequence[Request], lm: TorchLanguageModel) -> tuple[list[Request], list[Encoded]]:
    """Those of items whose choices all fit into the context, with their ids."""
    room = lm.model.config.max_position_embeddings
    encoded = list(lm.encoder.encode([one.rendered() for one in requests]))
    long = {one.item for one, ids in zip(requests, encoded, strict=True) if len(ids.ids) > room}
    kept = [(one, ids) for one, ids in zip(requests, encoded, strict=True) if one.item not in long]
    return [one for one, _ in kept], [ids for _, ids in kept]


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def timed(work: Callable[[], Any], clock: str) -> tuple[float, Any]:
    """Seconds, and what came of it."""
    measure.synchronize()
    began = CLOCKS[clock]()
    found = work()
    measure.synchronize()
    return CLOCKS[clock]() - began, found


def theirs(lm: HFLM, requests: Sequence[Request], size: int, clock: str) -> tuple[float, list[float] | None]:
    """lm-eval at a batch size; infinity where memory runs out."""
    lm.batch_size_per_gpu = size
    instances = [one.instance(n) for n, one in enumerate(requests)]
    try:
        seconds, found = timed(lambda: lm.loglikelihood(instances, disable_tqdm=True), clock)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return float("inf"), None
    return seconds, [float(logprob) for logprob, _ in found]


def picks(requests: Sequence[Request], scores: Sequence[float]) -> list[int]:
    """The likeliest choice of each item."""
    choices: dict[int, list[float]] = {}
    for one, score in zip(requests, scores, strict=True):
        choices.setdefault(one.item, []).append(score)
    return [max(range(len(found)), key=found.__getitem__) for found in choices.values()]


def row(
    name: str, shots: int, lms: dict[str, TorchLanguageModel], there: HFLM, given: argparse.Namespace
) -> tuple[float, float]:
    """One task at so many shots: a line of the table. Returns seconds here and there."""
    lm = lms["ours"]
    requests, encoded = fitting(asked(name, given.data_root, shots, given.limit, given.sampler), lm)
    items = len({one.item for one in requests})
    rendered = [one.rendered() for one in requests]
    best = {key: float("inf") for key in lms} | {size: float("inf") for size in given.batch_sizes}
    scores: dict[Any, list[float] | None] = {}
    # what a card compiles, and what an allocator grows by, is not counted
    for one in lms.values():
        one.score(rendered[: given.warm])
    for size in given.batch_sizes:
        theirs(there, requests[: given.warm], size, given.clock)
    for _ in range(given.repeats):
        for key, one in lms.items():
            seconds, found = timed(lambda one=one: one.score(rendered), given.clock)
            best[key], scores[key] = min(best[key], seconds), [score.logprob for score in found]
        for size in given.batch_sizes:
            seconds, scores[size] = theirs(there, requests, size, given.clock)
            best[size] = min(best[size], seconds)
    fastest = min(given.batch_sizes, key=lambda size: best[size])
    mine, other = scores["ours"], scores[fastest]
    assert mine is not None
    assert other is not None
    apart = max(abs(a - b) for a, b in zip(mine, other, strict=True))
    same = sum(a == b for a, b in zip(picks(requests, mine), picks(requests, other), strict=True))
    scorer = lm._scorer()
    assert isinstance(scorer, Scorer), "the engine cannot compute this base"
    computed = sum(lot.tokens for lot in prefixes.lots(encoded, scorer.budget))
    single = sum(map(len, {ids.ids[:-1] for ids in encoded}))
    ratio = best[fastest] / best["ours"]
    goal = GOALS[lm.loaded.device.type]
    extra = "".join(f"  {key} {best[key]:.2f} s" for key in lms if key != "ours")
    sizes = " ".join(f"{size}: {best[size]:.2f}" for size in given.batch_sizes)
    rates = [
        f"{who} {seconds:7.2f} s {items / seconds:7.1f} items/s {len(requests) / seconds:7.1f} req/s"
        for who, seconds in (("ours", best["ours"]), ("lm-eval", best[fastest]))
    ]
    print(
        f"{name:9} {shots} shots {items:5} items {len(requests):5} requests  tokens: asked "
        f"{sum(len(ids.ids) for ids in encoded):8} theirs {single:8} ours {computed:8}  {'  '.join(rates)} "
        f"(batch {sizes})  {ratio:5.2f} x, goal {goal:g}: {'reached' if ratio >= goal else 'missed'}  "
        f"apart {apart:.1e}  picks {same}/{items}{extra}",
        flush=True,
    )
    return best["ours"], best[fastest]


def loaded_base(given: argparse.Namespace) -> tuple[bases.Loaded, Any]:
    """The model in memory, and its tokenizer as transformers has it."""
    if given.shape is None:
        loaded = bases.load(Base(path=sources.EMBEDDED), Quantization(load_in_4bit=False), torch.device("cpu"))
        return loaded, tokenizer.load_pretrained(sources.EMBEDDED)
    loaded = shapes.build(given.shape, bases.default_device())
    words = tokenizer.load_pretrained(str(given.data_root / "polyglot_tokenizer"))
    loaded.vocabulary = tokenizer.vocabulary(words, "polyglot")
    return loaded, words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_root", type=Path, help="folder that holds kobest/")
    parser.add_argument(
        "--shape", choices=shapes.SHAPES, help="random weights in NF4, in place of the embedded base"
    )
    parser.add_argument("--tiny", action="store_true", help="a tiny shape with polyglot's tokenizer, 12 items")
    parser.add_argument("--limit", type=int, default=100, help="items of each task; 0: all")
    parser.add_argument("--shots", type=int, nargs="+", default=(0, 5))
    parser.add_argument(
        "--sampler",
        choices=("default", "first_n"),
        default="default",
        help="lm-eval's, of examples: drawn anew for each item, or the same ones for all",
    )
    parser.add_argument("--tasks", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--batch-sizes", type=int, nargs="+", help="of lm-eval; 1 4 8 16 32, on a card 16 64 256")
    parser.add_argument("--repeats", type=int, default=2, help="turns of each side")
    parser.add_argument("--threads", type=int, default=2, help="on the CPU")
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="cpu: seconds of all threads, where others use the machine"
    )
    parser.add_argument("--warm", type=int, default=64, help="requests before a task is timed")
    parser.add_argument(
        "--plain", action="store_true", help="and our scoring by transformers, without shared prefixes"
    )
    given = parser.parse_args()
    if given.tiny:
        shapes.SHAPES["tiny"] = shapes.Shape("gpt_neox", 64, 2, 4, 256, 30080, 4, 0.25)
        given.shape, given.limit, given.repeats, given.warm = "tiny", 12, 1, 4
    if not (given.data_root / "kobest").is_dir():
        parser.error(f"there is no folder {given.data_root / 'kobest'}: give the one that holds kobest/.")
    cuda = given.shape is not None and torch.cuda.is_available()
    given.batch_sizes = given.batch_sizes or ((16, 64, 256) if cuda else (1, 4, 8, 16, 32))
    given.limit = given.limit or None
    torch.set_num_threads(given.threads)
    logging.disable(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    loaded, words = loaded_base(given)
    encoder = Encoder(loaded.vocabulary, loaded.vocabulary.template("koalpaca"))
    lms = {"ours": TorchLanguageModel(loaded.model, loaded, encoder)}
    if given.plain:
        lms["plain"] = TorchLanguageModel(loaded.model, loaded, encoder, engine="plain")
    there = HFLM(pretrained=loaded.model, tokenizer=words, batch_size=1, add_bos_token=False)
    facts = measure.facts()
    where = facts["gpu"] if cuda else f"{given.threads} threads, {os.cpu_count()} cores"
    print(f"{facts['date']} UTC, {where}, lm-eval {lm_eval.__version__}, {facts['versions']}")
    print(f"{given.shape or 'embedded'}, {loaded.compute_dtype}; python {' '.join(sys.argv)}", flush=True)
    ours, others = 0.0, 0.0
    for shots in given.shots:
        for name in given.tasks:
            here, other = row(name, shots, lms, there, given)
            ours, others = ours + here, others + other
    peak = lms["ours"].peak_memory / 2**30
    print(f"all: ours {ours:.1f} s, lm-eval {others:.1f} s, {others / ours:.2f} x; our peak memory {peak:.2f} GiB")


if __name__ == "__main__":
    main()
