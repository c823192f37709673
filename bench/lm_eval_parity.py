"""Whether the `lm-eval` profile scores what lm-evaluation-harness scores: every choice of every KoBEST item.

    python bench/lm_eval_parity.py ../shared/data                        100 items a task, 0 shots
    python bench/lm_eval_parity.py ../shared/data --all
    python bench/lm_eval_parity.py ../shared/data --shots 5 --show       examples as the profile draws them

Needs lm-eval 0.4.13, which is not among the extras: `bash bench/lm_eval_venv.sh` makes an environment with it.

lm-eval's side is its own: YAML, prompt code, `simple_evaluate` and HFLM in float32 on the CPU, batches of 8. Only
the rows come from elsewhere, since the set is on the Hub: a `custom_dataset` with the columns of skt/kobest_v1,
read by pandas with its default quoting, as a public copy of that set's loading script reads the same TSV files.
Our reader has no part in it, so a text that the two read differently is a difference. Our side is
`koalpaca_tune.evaluation` on the task files as shipped. Both load each base themselves: `embedded` (GPT-NeoX, no
BOS) and a random Llama made here (the embedded entries; BOS in front of every text).

For every choice: the same ids, the same first id of the answer, log-likelihoods at most 1e-4 apart. For every item:
the same pick, raw and per character, and the same right answer. For every task: the same accuracy, macro-F1 and
acc_norm. What differs is listed with the item's id, and the exit status is 1.

At N shots the examples are our own: the `lm-eval` profile's rule (suites/shots.py) on the training split. An
item longer than the base's context is cut at the left on both sides, as that profile says; lm-eval keeps one token
more (nothing is predicted from the last one), so those items are counted and only their texts compared, and the
metrics of their task are not. A refusal is a difference.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# the set would be looked for on the Hub, and with it a metric that is never called
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

try:
    import datasets
    import lm_eval
except ModuleNotFoundError as missing:
    sys.exit(f"there is no {missing.name} here. Run bash bench/lm_eval_venv.sh, and this with the python it names.")

import measure
import numpy as np
import torch
import transformers
from kobest_rows import NAMES, rows_of
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml
from tokenizers import processors

from koalpaca_tune.config.recipe import Base, Quantization
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.evaluation import metrics
from koalpaca_tune.evaluation.choices import Choices
from koalpaca_tune.evaluation.store import Line
from koalpaca_tune.inference.language_model import TorchLanguageModel
from koalpaca_tune.models import base as bases
from koalpaca_tune.models import sources, tokenizer
from koalpaca_tune.records import Encoded
from koalpaca_tune.runs.lengths import TokenLengths
from koalpaca_tune.suites import items, tasks
from koalpaca_tune.suites.asking import ChoiceProfile
from koalpaca_tune.suites.item import Item
from koalpaca_tune.suites.tasks import Task
from koalpaca_tune.tokens.encode import Encoder

TOLERANCE = 1e-4
BATCH = 8
CUT = "cut at the left"
LISTED = 12
"""Differences of a task that are printed; all are counted."""

METRICS = {"accuracy": "acc,none", "accuracy_norm": "acc_norm,none", "macro_f1": "f1,none"}
"""Our metric -> lm-eval's, with the name of its filter."""


@dataclass(frozen=True)
class Scored:
    """One item as one side scored it.

    Attributes:
        ids: token ids of prompt and answer, for each choice.
        begins: how many of them are the prompt, for each choice.
        logprobs: of each choice, summed over its tokens, in nats.
        characters: of each choice, as the side counts them.
        gold: index of the right choice.
    """

    ids: tuple[tuple[int, ...], ...]
    begins: tuple[int, ...]
    logprobs: tuple[float, ...]
    characters: tuple[int, ...]
    gold: int

    def pick(self, *, per_character: bool) -> int:
        scores = np.asarray(self.logprobs)
        return int(np.argmax(scores / np.asarray(self.characters) if per_character else scores))


@dataclass(frozen=True)
class Side:
    """One task on one side: texts asked, items scored (None: refused or cut), metrics by our names."""

    texts: list[tuple[str, ...]]
    items: list[Scored | None]
    metrics: dict[str, float]


def twin(folder: Path) -> str:
    """Writes a random Llama whose tokenizer has the embedded entries and puts BOS in front by itself."""
    words = tokenizer.load_pretrained(sources.EMBEDDED)
    words.add_special_tokens({"bos_token": "<|begin_of_text|>"})
    begin = words.convert_tokens_to_ids("<|begin_of_text|>")
    words.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", begin)]
    )
    config = transformers.LlamaConfig(
        vocab_size=len(words),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        initializer_range=0.08,
        tie_word_embeddings=False,
        bos_token_id=begin,
        eos_token_id=words.eos_token_id,
    )
    torch.manual_seed(1)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    words.model_max_length = 4096
    words.save_pretrained(folder)
    return str(folder)


def theirs(lm: HFLM, name: str, root: Path, limit: int | None, shots: int) -> Side:
    """A task through lm-eval itself."""
    folder, task = Path(lm_eval.__file__).parent / "tasks" / "kobest", f"kobest_{name}"
    manager = TaskManager(include_path=folder, include_defaults=False)
    config = load_yaml(folder / f"{task}.yaml", resolve_func=True)
    found = lm_eval.simple_evaluate(
        model=lm,
        tasks=[ConfigurableTask(config={**config, "custom_dataset": rows_of(name, root)})],
        num_fewshot=shots,
        limit=limit,
        bootstrap_iters=0,
        task_manager=manager,
    )
    texts, scored = [], []
    for sample in sorted(found["samples"][task], key=lambda sample: sample["doc_id"]):
        pairs = [(context, answer) for context, answer in sample["arguments"]]
        encoded = [lm._encode_pair(*pair) for pair in pairs]
        gold = sample["target"]
        # after the space that lm-eval puts between question and answer
        choices = [answer[1:] for _, answer in pairs]
        texts.append(tuple(context + answer for context, answer in pairs))
        scored.append(
            Scored(
                tuple(tuple(before + after) for before, after in encoded),
                tuple(len(before) for before, _ in encoded),
                tuple(float(logprob) for logprob, _ in sample["filtered_resps"]),
                tuple(len(choice) for choice in choices),
                choices.index(gold) if gold in choices else int(gold),
            )
        )
    result = found["results"][task]
    return Side(texts, list(scored), {ours: result[key] for ours, key in METRICS.items() if key in result})


def ours(lm: TorchLanguageModel, task: Task, asked: Sequence[Item]) -> tuple[Side, dict[str, list[str]]]:
    """A task through our evaluation; and by what befell them, the ids of items that are refused or cut."""
    profile = task.asked
    assert isinstance(profile, ChoiceProfile)
    lengths = TokenLengths(lm.encoder, lm.model.config.max_position_embeddings)
    work = Choices(task.file, profile, tuple(asked), lm, lm.encoder.render, lengths)  # type: ignore[arg-type]
    befell: dict[str, list[str]] = {}
    taken, encoded = [], []
    for n, item in enumerate(asked):
        try:
            encoded.append(list(lm.encoder.encode(work.texts(n))))
            taken.append(n)
        except KoalpacaError as error:
            befell.setdefault(error.problems[0].code, []).append(item.id)
            encoded.append([])
    lines = work.lines(taken) if taken else []
    by_id = {line["id"]: line for line in lines}
    scored: list[Scored | None] = []
    for item, rows in zip(asked, encoded, strict=True):
        line = by_id.get(item.id)
        if line is not None and "cut_left" in line:
            befell.setdefault(CUT, []).append(item.id)
        scored.append(None if line is None or "cut_left" in line else _scored(rows, line))
    # of all items, or they are of others than lm-eval's
    found = {} if befell else {str(name): metrics.CHOICE[name](lines) for name in task.file.metrics}  # type: ignore[attr-defined]
    texts = [tuple(request.text for request in work.texts(n)) for n in range(len(asked))]
    return Side(texts, scored, found), befell


def _scored(rows: Sequence[Encoded], line: Line) -> Scored:
    return Scored(
        tuple(row.ids for row in rows),
        tuple(len(row.ids) - row.learned for row in rows),
        tuple(line["logprobs"]),
        tuple(line["characters"]),
        line["answer"],
    )


def differences(asked: Sequence[Item], here: Side, there: Side) -> list[str]:
    """Every difference, as one line."""
    found = []
    if len(here.items) != len(there.items):
        found.append(f"{len(here.items)} items here, {len(there.items)} there")
    for n, (item, one, two) in enumerate(zip(asked, here.items, there.items, strict=False)):
        if here.texts[n] != there.texts[n]:
            pair = next((a, b) for a, b in zip(here.texts[n], there.texts[n], strict=False) if a != b)
            at = next((k for k, (a, b) in enumerate(zip(*pair, strict=False)) if a != b), min(map(len, pair)))
            around = " | ".join(repr(text[max(0, at - 12) : at + 12]) for text in pair)
            found.append(f"{item.id}: text, at character {at}: {around}")
        if one is None or two is None:
            continue
        if one.gold != two.gold:
            found.append(f"{item.id}: right answer {one.gold} here, {two.gold} there")
        for k in range(len(one.logprobs)):
            if one.ids[k] != two.ids[k]:
                found.append(f"{item.id}: ids of choice {k} ({len(one.ids[k])} here, {len(two.ids[k])} there)")
            elif one.begins[k] != two.begins[k]:
                found.append(f"{item.id}: choice {k} begins at {one.begins[k]} here, {two.begins[k]} there")
            apart = one.logprobs[k] - two.logprobs[k]
            if abs(apart) > TOLERANCE:
                found.append(f"{item.id}: choice {k}, {one.logprobs[k]:.5f} here, {two.logprobs[k]:.5f} there")
        for per_character in (False, True):
            picks = one.pick(per_character=per_character), two.pick(per_character=per_character)
            if picks[0] != picks[1]:
                which = "pick per character" if per_character else "pick"
                found.append(f"{item.id}: {which} {picks[0]} here, {picks[1]} there")
        if one.characters != two.characters:
            found.append(f"{item.id}: characters {one.characters} here, {two.characters} there")
    for name, value in here.metrics.items():
        if name not in there.metrics:
            found.append(f"{name} is not there")
        elif abs(value - there.metrics[name]) > 1e-9:
            found.append(f"{name} {value:.6f} here, {there.metrics[name]:.6f} there")
    return found


def row(name: str, here: Side, there: Side, found: Sequence[str], refused: dict[str, list[str]]) -> str:
    """One line of the table."""
    both = [(a, b) for a, b in zip(here.items, there.items, strict=True) if a is not None and b is not None]
    apart = [abs(x - y) for a, b in both for x, y in zip(a.logprobs, b.logprobs, strict=True)]
    tokens = sum(len(ids) for a, _ in both for ids in a.ids)
    shown = "  ".join(
        f"{metric} {value:.4f} / {there.metrics.get(metric, float('nan')):.4f}"
        for metric, value in here.metrics.items()
    )
    left = "".join(f"; {len(ids)} not compared ({code})" for code, ids in refused.items())
    largest = f"{max(apart):.1e}" if apart else "-"
    return (
        f"{name:10} {len(both):5} items {len(apart):5} choices {tokens:8} tokens  largest |difference| {largest}  "
        f"{shown}  differences: {len(found)}{left}"
    )


def judge(base: str, label: str, given: argparse.Namespace) -> int:
    """Both sides on one base; returns how many differences there are."""
    limit = None if given.all else given.limit
    loaded = bases.load(Base(path=base), Quantization(load_in_4bit=False), torch.device("cpu"))
    encoder = Encoder(loaded.vocabulary, loaded.vocabulary.template("koalpaca"))
    lm = TorchLanguageModel(loaded.model, loaded, encoder)
    harness = HFLM(pretrained=sources.locate(base), dtype="float32", device="cpu", batch_size=BATCH)
    kind = f"{loaded.model.config.model_type}, {loaded.proof.dtypes}"
    print(f"\n{label}: {kind}; {given.shots} shots; ours / lm-eval's")
    total = 0
    for name in given.tasks:
        task = tasks.load_task(tasks.shipped()[f"kobest-{name}"])
        task = tasks.with_shots(tasks.asked_by(task, "lm-eval", "bench"), given.shots, "bench")
        asked: Sequence[Item] = items.load(task, given.data_root).items[:limit]
        there = theirs(harness, name, given.data_root, limit, given.shots)
        here, refused = ours(lm, task, asked)
        found = differences(asked, here, there)
        for code, ids in refused.items():
            if code != CUT or len(ids) == len(asked):
                found.append(f"{len(ids)} of {len(asked)} items refused: {code}")
        print(row(name, here, there, found, refused), flush=True)
        for line in found[:LISTED]:
            print(f"    {line}")
        if len(found) > LISTED:
            print(f"    and {len(found) - LISTED} more")
        for code, ids in refused.items():
            print(f"    {code}: {', '.join(ids[:LISTED])}{' ...' if len(ids) > LISTED else ''}")
        if given.show:
            print(f"    first text there: {there.texts[0][0]!r}")
        total += len(found)
    return total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_root", type=Path, help="folder that holds kobest/")
    parser.add_argument("--limit", type=int, default=100, help="items of each task, from the first")
    parser.add_argument("--all", action="store_true", help="every item")
    parser.add_argument("--shots", type=int, default=0)
    parser.add_argument("--tasks", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--bases", nargs="+", choices=("embedded", "llama"), default=("embedded", "llama"))
    parser.add_argument("--show", action="store_true", help="print the first text of each task there")
    given = parser.parse_args()
    if not (given.data_root / "kobest").is_dir():
        parser.error(f"there is no folder {given.data_root / 'kobest'}: give the one that holds kobest/.")
    torch.set_num_threads(1)
    # every task says that it cannot load the metric f1 from the Hub; for choices it never calls it
    logging.disable(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    facts = measure.facts()
    print(f"{facts['date']} UTC, lm-eval {lm_eval.__version__}, {facts['versions']}")
    total = 0
    with tempfile.TemporaryDirectory() as folder:
        for label in given.bases:
            base = sources.EMBEDDED if label == "embedded" else twin(Path(folder))
            total += judge(base, label, given)
    print(f"\n{total} differences" if total else "\nno difference")
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
