"""Adapter and base as one model, in memory for one tensor at a time: written, read back, held against the pair.

An adapter of a 4-bit run learned beside the dequantised 4-bit weights. It can be added to those (`trained`), or to
the base's own (`base`), which is another model than the one that was trained and judged. How far the two differ is
measured and said, as is the rounding of the merge itself.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from koalpaca_tune import jsonl
from koalpaca_tune.config.recipe import Base, Quantization
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.inference.merging import record as records
from koalpaca_tune.inference.merging import shards, updates, weights
from koalpaca_tune.inference.merging.logits import Version, logits
from koalpaca_tune.inference.merging.report import MergeReport, Onto, difference
from koalpaca_tune.inference.merging.texts import texts as samples
from koalpaca_tune.inference.merging.trained import FourBit
from koalpaca_tune.inference.merging.updates import Update
from koalpaca_tune.inference.merging.weights import Weights
from koalpaca_tune.models import base as bases
from koalpaca_tune.models import sources, tokenizer
from koalpaca_tune.records import Rendered
from koalpaca_tune.templates import jinja
from koalpaca_tune.templates.template import content
from koalpaca_tune.tokens.encode import Encoder
from koalpaca_tune.tokens.vocabulary import Vocabulary

MARGIN = 64 << 20
"""Free bytes beyond the weights: tokenizer, headers, index."""


def merge(
    base: Base,
    adapter: Path,
    out: Path,
    *,
    dtype: str = "bfloat16",
    onto: Onto = "base",
    texts: Sequence[str] = (),
    say: Callable[[str], None] = lambda what: None,
    limit: int = shards.SHARD,
) -> MergeReport:
    """Merges an adapter of ours and writes a model that transformers loads, chat template included.

    Products are float32 and rounded once. Memory: a file's tensors (`limit`), a few copies of the largest matrix in
    float32, one block for the comparison, and the adapter. A merge that was stopped goes on at the next call.

    Args:
        base: the base that the adapter was trained on.
        adapter: the adapter's folder.
        out: a new or empty folder.
        dtype: element type of the merged weights: float32, bfloat16 or float16.
        onto: base for the base's own weights, trained for the dequantised ones that a 4-bit run learned beside.
        texts: what logits are compared on; empty for some of the package's samples.
        say: told each stage.
        limit: bytes of a file.

    Raises:
        KoalpacaError: not an adapter of ours (adapter-missing), another base (adapter-wrong-base) or one that is
            quantised (merge-base), `out` not empty (merge-out) or in use (merge-busy), no room (merge-space),
            unknown type (merge-dtype), `trained` without a 4-bit run (merge-onto), an adapter that does nothing
            (adapter-dead), or a merge in which it gets lost (merge-lost).
    """
    if dtype not in bases.DTYPES:
        raise KoalpacaError(
            "merge-dtype", f"'{dtype}' is no type of weights.", fix=f"One of {', '.join(bases.DTYPES)}."
        )
    record = records.read(adapter)
    four_bit = _four_bit(record)
    if onto == "trained" and four_bit is None:
        raise KoalpacaError(
            "merge-onto",
            "the adapter was not trained on a 4-bit base: there are no dequantised weights to add it to.",
            where=str(adapter),
            fix="Merge onto the base.",
        )
    _check_out(out)
    config, architecture = check_base(base, record, adapter)
    stored = weights.read(weights.fetch(base))
    _check_plain(stored.folder, base)
    plan = shards.layout(stored, bases.DTYPES[dtype], limit)
    added = updates.read(adapter, stored, architecture.body)
    vocabulary = tokenizer.load(base.path, base.revision)
    encoder = Encoder(vocabulary, vocabulary.template(record["template"]["name"]))
    rendered = [Rendered((content(text),)) for text in texts or samples()]
    ids = [one.ids for one in encoder.encode(rendered)]
    device = bases.default_device()
    ground = _grounds(architecture.linears, four_bit)
    key = {
        "base": record["base"]["fingerprint"],
        "adapter": records.digest(adapter),
        "dtype": dtype,
        "onto": onto,
        "limit": limit,
    }
    with shards.workplace(out, key) as aside:
        todo = shards.left(aside, plan)
        _check_space(out, sum(shard.size for shard in todo))
        changed = ground if onto == "trained" else _as_it_is
        shards.write(
            aside,
            plan,
            lambda name: _merged(
                stored,
                name,
                changed,
                added,
                bases.DTYPES[dtype],
                # what is only copied has nothing to do on a card
                device if _is_linear(name, architecture.linears) else torch.device("cpu"),
            ),
            lambda count: say(f"합치기 (merging): {count}/{len(plan)} 파일"),
        )
        shards.write_index(aside, plan)
        _write_rest(stored.folder, base, encoder, dtype, aside)
        say("다시 읽어 비교 (reading it back)")
        if ids != [one.ids for one in _again(aside, encoder).encode(rendered)]:
            raise KoalpacaError("merge-lost", "the tokenizer as written cuts text otherwise.", where=str(out))
        versions = [Version(stored, changed), Version(stored, changed, added), Version(weights.read(aside))]
        if four_bit is not None and onto == "base":
            versions.append(Version(stored, ground, added))
        plain, unmerged, merged, *trained = logits(config, architecture, versions, ids, device)
        beside = trained[0] if trained else unmerged
        report = MergeReport(
            out=out,
            dtype=dtype,
            onto=onto,
            tokens=sum(map(len, ids)),
            effect=difference(plain, unmerged),
            merged=difference(unmerged, merged),
            trained=None if four_bit is None else difference(beside, merged),
        )
        _check(report, adapter, out)
        jsonl.write_json(aside / records.RECORD, records.merged(record, base, report, key))
        shards.place(aside, out)
    return report


def _four_bit(record: dict[str, Any]) -> FourBit | None:
    quantization = Quantization(**record["recipe"]["quantization"])
    if not quantization.load_in_4bit:
        return None
    compute = record.get("proof", {}).get("compute_dtype") or quantization.bnb_4bit_compute_dtype
    return FourBit.of(quantization, compute if compute in bases.DTYPES else "float32")


def _check_out(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise KoalpacaError(
            "merge-out", "it exists and is not an empty folder.", where=str(out), fix="Give a new folder."
        )


def check_base(base: Base, record: dict[str, Any], adapter: Path) -> Any:
    """The base's config and family, once its fingerprint is the adapter's; before any weight is read."""
    config, architecture = bases.describe(base)
    here, there = sources.fingerprint(base.path, base.revision, config), record["base"]
    if here != there["fingerprint"]:
        revision = f" at revision {there['revision']}" if there["revision"] else ""
        raise KoalpacaError(
            "adapter-wrong-base",
            f"the adapter was trained on {there['path']}{revision} ({there['fingerprint']}), "
            f"this is {base.path} ({here}).",
            where=str(adapter),
            fix="Give the base that the adapter was trained on.",
        )
    return config, architecture


def _check_plain(folder: Path, base: Base) -> None:
    config = jsonl.read_json(folder / weights.CONFIG)
    if "auto_map" in config or "quantization_config" in config:
        raise KoalpacaError(
            "merge-base",
            "its config.json asks for code of its own, or for quantised weights: a merged folder has neither.",
            where=base.path,
            fix="Take a plain GPT-NeoX or Llama base in full precision.",
        )


def _check_space(out: Path, size: int) -> None:
    folder = next(parent for parent in out.absolute().parents if parent.is_dir())
    need, free = size + MARGIN, shutil.disk_usage(folder).free
    if need > free:
        raise KoalpacaError(
            "merge-space",
            f"the merged model takes {need / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free.",
            where=str(out),
            fix="Make room, or give --out on another disk.",
        )


def _as_it_is(name: str, weight: Tensor) -> Tensor:
    return weight


def _grounds(linears: Sequence[str], four_bit: FourBit | None) -> Callable[[str, Tensor], Tensor]:
    """Weights as the run had them: every linear of a block in 4 bits, everything else in the resident type."""

    def change(name: str, weight: Tensor) -> Tensor:
        if four_bit is None:
            return weight
        return four_bit.of_weight(weight) if _is_linear(name, linears) else weight.to(four_bit.resident)

    return change


def _is_linear(name: str, linears: Sequence[str]) -> bool:
    """Whether it is the matrix of a linear module of a block."""
    path, _, own = name.rpartition(".")
    return own == "weight" and path.rpartition(".")[2] in linears


def _merged(
    stored: Weights,
    name: str,
    ground: Callable[[str, Tensor], Tensor],
    added: dict[str, Update],
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """One tensor of the merged model, on the CPU.

    Raises:
        KoalpacaError: it is not finite in its type (merge-lost).
    """
    weight = ground(name, stored.tensor(name).to(device))
    update = added.get(name)
    weight = (weight if update is None else update.on(weight.float())).to(dtype).cpu()
    if not bool(weight.isfinite().all()):
        raise KoalpacaError(
            "merge-lost",
            f"'{name}' is too large for {str(dtype).removeprefix('torch.')}, or not a number.",
            fix="Take bfloat16.",
        )
    return weight


def _write_rest(folder: Path, base: Base, encoder: Encoder, dtype: str, aside: Path) -> None:
    """Config, tokenizer with its chat template, generation settings."""
    config = jsonl.read_json(folder / weights.CONFIG)
    # older readers know the type by its older name
    jsonl.write_json(aside / weights.CONFIG, {**config, "dtype": dtype, "torch_dtype": dtype})
    vocabulary = encoder.vocabulary
    words = tokenizer.load_pretrained(base.path, base.revision)
    source = jinja.source(encoder.template.name, vocabulary.markers, adds_bos=vocabulary.adds_bos)
    if source is not None:
        words.chat_template = source
    # GPT-NeoX and Llama take no token types; a tokenizer that makes them stops `generate` (KoAlpaca#7)
    words.model_input_names = ["input_ids", "attention_mask"]
    words.save_pretrained(aside)
    transformers.GenerationConfig(
        bos_token_id=vocabulary.id(vocabulary.bos) if vocabulary.bos else None,
        eos_token_id=vocabulary.stop_ids(encoder.template),
        pad_token_id=vocabulary.pad_id,
    ).save_pretrained(aside)


def _again(aside: Path, encoder: Encoder) -> Encoder:
    vocabulary: Vocabulary = tokenizer.load(str(aside))
    return Encoder(vocabulary, vocabulary.template(encoder.template.name))


def _check(report: MergeReport, adapter: Path, out: Path) -> None:
    if report.effect.largest == 0.0:
        raise KoalpacaError("adapter-dead", "the adapter changes no logit of its base.", where=str(adapter))
    if not report.merged.mean < report.effect.mean:
        raise KoalpacaError(
            "merge-lost",
            f"merging in {report.dtype} changes logits by {report.merged.mean:.3g} on average, the adapter itself "
            f"by {report.effect.mean:.3g}: it would be lost.",
            where=str(out),
            fix="koalpaca merge BASE ADAPTER --out merged --dtype float32.",
        )
