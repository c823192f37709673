"""Adapter and base as one model: written, read back from the disk, and held against the unmerged pair.

The adapter of a 4-bit run learned to correct the 4-bit base; merging puts it on the full-precision one.
How far the two differ is measured and said, as is the rounding of the merge itself.
"""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from koalpaca_tune import jsonl
from koalpaca_tune.config.recipe import Base, Quantization
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.inference.language_model import TorchLanguageModel
from koalpaca_tune.models import adapter as adapters
from koalpaca_tune.models import base as bases
from koalpaca_tune.models import sources, tokenizer
from koalpaca_tune.records import Rendered
from koalpaca_tune.templates.template import content
from koalpaca_tune.tokens.encode import Encoder

RECORD = "record.json"
TEXTS = (
    "서울은 대한민국의 수도이며, 한강을 사이에 두고 남과 북으로 나뉜다.",
    "어제는 비가 많이 와서 하루 종일 집에서 책을 읽었습니다.",
    "### 질문: 감기에 걸리면 왜 열이 나나요?\n\n### 답변: 몸이 바이러스와 싸우느라 체온을 높이기 때문입니다.",
    "이 영화는 배우들의 연기가 훌륭했지만 이야기가 조금 지루했다.",
    "물 한 컵에 소금을 조금 넣고 끓인 다음, 국수를 넣어 삼 분 동안 삶으세요.",
    "그는 약속 시간보다 일찍 도착했는데도 아무도 만나지 못했다.",
)
"""Text of several kinds, on which logits are compared when none is given."""


@dataclass(frozen=True)
class Difference:
    """How far the logits of two models are apart, over every token and vocabulary entry.

    Attributes:
        largest, mean: absolute difference.
        same_argmax: share of positions at which both find the same token likeliest.
    """

    largest: float
    mean: float
    same_argmax: float

    def __str__(self) -> str:
        return f"최대 {self.largest:.3g}, 평균 {self.mean:.3g}, 같은 1위 토큰 {self.same_argmax:.1%}"


@dataclass(frozen=True)
class MergeReport:
    """What the merge changed.

    Attributes:
        out: the merged model's folder.
        dtype: element type of its weights.
        tokens: positions compared.
        effect: base without and with the adapter, for scale.
        merged: base with adapter against the merged model as read back from the disk.
        trained: the 4-bit base with adapter, as trained, against the merged model; None if not trained in 4 bits.
    """

    out: Path
    dtype: str
    tokens: int
    effect: Difference
    merged: Difference
    trained: Difference | None

    def lines(self) -> list[str]:
        """One line for each comparison."""
        lines = [
            f"로짓 비교: {self.tokens}개 위치, {self.dtype} (logits compared at {self.tokens} positions)",
            f"  어댑터의 효과 (base, adapter off and on): {self.effect}",
            f"  합치기 전과 후 (unmerged and merged): {self.merged}",
        ]
        if self.trained is not None:
            lines.append(f"  학습한 4비트 모델과 합친 모델 (4-bit as trained, and merged): {self.trained}")
        return lines

    def as_dict(self) -> dict[str, Any]:
        """For record.json; the folder is not part of it."""
        return {name: value for name, value in asdict(self).items() if name != "out"}


def merge(
    base: Base,
    adapter: Path,
    out: Path,
    *,
    dtype: str = "bfloat16",
    texts: Sequence[str] = TEXTS,
    say: Callable[[str], None] = lambda what: None,
) -> MergeReport:
    """Merges an adapter of ours into its base, in full precision, and writes a model that transformers loads.

    Works on the card when the base fits into it, else on the CPU.

    Args:
        base: the base that the adapter was trained on.
        adapter: the adapter's folder.
        out: a new or empty folder.
        dtype: element type of the merged weights: float32, bfloat16 or float16.
        texts: what logits are compared on; empty for the built-in sentences.
        say: told each stage.

    Raises:
        KoalpacaError: not an adapter of ours (adapter-missing), another base (adapter-wrong-base), `out` not
            empty (merge-out), no room (merge-space), unknown type (merge-dtype), an adapter that does
            nothing (adapter-dead), or a merge in which it gets lost (merge-lost).
    """
    if dtype not in bases.DTYPES:
        raise KoalpacaError(
            "merge-dtype", f"'{dtype}' is no type of weights.", fix=f"One of {', '.join(bases.DTYPES)}."
        )
    record = _record(adapter)
    _check_out(out)
    config = _check_base(base, record, adapter)
    size = _size(config, dtype)
    _check_space(out, size)
    rendered = [Rendered((content(text),)) for text in texts or TEXTS]
    template = record["template"]["name"]
    trained = None
    if record["recipe"]["quantization"]["load_in_4bit"]:
        say("학습할 때의 4비트 모델 (the 4-bit base, as trained)")
        trained = _tuned(base, Quantization(**record["recipe"]["quantization"]), None, adapter, template).logits(
            rendered
        )
        _free()
    say("합치기 (merging)")
    lm = _tuned(base, _full(dtype), _device(size), adapter, template)
    ids = [one.ids for one in lm.encoder.encode(rendered)]
    with lm.without_adapter():
        plain = lm.logits(rendered)
    unmerged = lm.logits(rendered)
    effect = _difference(plain, unmerged)
    if effect.largest == 0.0:
        raise KoalpacaError("adapter-dead", "the adapter changes no logit of its base.", where=str(adapter))
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        _write(lm, base, dtype, aside)
        device = lm.loaded.device
        del lm, plain
        _free()
        say("다시 읽어 비교 (reading it back)")
        again = _open(Base(path=str(aside)), _full(dtype), device, template)
        if ids != [one.ids for one in again.encoder.encode(rendered)]:
            raise KoalpacaError("merge-lost", "the tokenizer as written cuts text otherwise.", where=str(out))
        merged = again.logits(rendered)
        report = MergeReport(
            out=out,
            dtype=dtype,
            tokens=sum(len(logits) for logits in merged),
            effect=effect,
            merged=_difference(unmerged, merged),
            trained=None if trained is None else _difference(trained, merged),
        )
        if not report.merged.mean < effect.mean:
            raise KoalpacaError(
                "merge-lost",
                f"merging in {dtype} changes logits by {report.merged.mean:.3g} on average, the adapter itself "
                f"by {effect.mean:.3g}: it would be lost.",
                where=str(out),
                fix="Merge with --dtype float32.",
            )
        jsonl.write_json(aside / RECORD, _merged_record(record, base, report))
        aside.replace(out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return report


def _record(adapter: Path) -> dict[str, Any]:
    if not (adapter / RECORD).is_file():
        raise KoalpacaError(
            "adapter-missing",
            f"there is no {RECORD} in the folder.",
            where=str(adapter),
            fix="Give the 'adapter' folder of a run (runs/NAME/adapter).",
        )
    return jsonl.read_json(adapter / RECORD)


def _check_out(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise KoalpacaError(
            "merge-out", "it exists and is not an empty folder.", where=str(out), fix="Give a new folder."
        )


def _check_base(base: Base, record: dict[str, Any], adapter: Path) -> Any:
    """The base's config, once its fingerprint is the adapter's; before any weight is loaded."""
    located = sources.locate(base.path)
    with sources.Reading(base.path):
        config = transformers.AutoConfig.from_pretrained(located, revision=base.revision, trust_remote_code=False)
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
    return config


def _size(config: Any, dtype: str) -> int:
    """Bytes of the merged weights."""
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    parameters: int = sum(parameter.numel() for parameter in model.parameters())
    return parameters * bases.DTYPES[dtype].itemsize


def _check_space(out: Path, size: int) -> None:
    folder = next(parent for parent in out.absolute().parents if parent.is_dir())
    # the tokenizer and the shards' headers come on top
    need, free = size + (64 << 20), shutil.disk_usage(folder).free
    if need > free:
        raise KoalpacaError(
            "merge-space",
            f"the merged model takes {need / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free.",
            where=str(out),
            fix="Make room, or give --out on another disk.",
        )


def _device(size: int) -> torch.device:
    """The card, when the weights leave it a fifth of its free memory for states and logits."""
    device = bases.default_device()
    if device.type == "cuda" and size * 1.25 > torch.cuda.mem_get_info(device)[0]:
        return torch.device("cpu")
    return device


def _full(dtype: str) -> Quantization:
    """Full precision with a given type of weights.

    A recipe cannot say this (training takes the device's type), so the validator that keeps idle keys out
    of recipes is passed by. float16 is computed in float32: attention scores of GPT-NeoX overflow it.
    """
    return Quantization(load_in_4bit=False).model_copy(update={"bnb_4bit_compute_dtype": dtype})


def _open(base: Base, quantization: Quantization, device: torch.device | None, template: str) -> TorchLanguageModel:
    loaded = bases.load(base, quantization, device)
    return TorchLanguageModel(
        loaded.model, loaded, Encoder(loaded.vocabulary, loaded.vocabulary.template(template))
    )


def _tuned(
    base: Base, quantization: Quantization, device: torch.device | None, adapter: Path, template: str
) -> TorchLanguageModel:
    lm = _open(base, quantization, device, template)
    lm.model = adapters.load(lm.loaded, adapter)
    return lm


def _write(lm: TorchLanguageModel, base: Base, dtype: str, folder: Path) -> None:
    """Merges in memory (the model is changed) and writes weights, tokenizer and generation settings."""
    try:
        model = lm.model.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise KoalpacaError(
            "merge-lost", f"the merged weights are not finite ({error}).", fix="The adapter is broken; train again."
        ) from error
    model.to(bases.DTYPES[dtype])
    if not all(bool(parameter.isfinite().all()) for parameter in model.parameters()):
        raise KoalpacaError("merge-lost", f"a merged weight is too large for {dtype}.", fix="Take bfloat16.")
    vocabulary = lm.encoder.vocabulary
    model.generation_config = transformers.GenerationConfig(
        bos_token_id=vocabulary.id(vocabulary.bos) if vocabulary.bos else None,
        eos_token_id=vocabulary.stop_ids(lm.encoder.template),
        pad_token_id=vocabulary.pad_id,
    )
    model.save_pretrained(folder, max_shard_size="5GB")
    tokenizer.load_pretrained(base.path, base.revision).save_pretrained(folder)


def _merged_record(record: dict[str, Any], base: Base, report: MergeReport) -> dict[str, Any]:
    """What later commands and readers need; folders of this machine are left out."""
    path = Path(base.path).name if sources.is_local(base.path) else base.path
    return {
        "kind": "merged",
        "name": record["name"],
        "base": {**record["base"], "path": path},
        "template": record["template"],
        "tokenizer": record["tokenizer"],
        "merge": report.as_dict(),
    }


def _difference(before: Sequence[Tensor], after: Sequence[Tensor]) -> Difference:
    largest, total, count, same, positions = 0.0, 0.0, 0, 0, 0
    for a, b in zip(before, after, strict=True):
        apart = (a - b).abs()
        largest = max(largest, float(apart.max()))
        total += float(apart.sum(dtype=torch.float64))
        count += apart.numel()
        same += int((a.argmax(-1) == b.argmax(-1)).sum())
        positions += len(a)
    return Difference(largest, total / count, same / positions)


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
