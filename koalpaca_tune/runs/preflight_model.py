"""Preflight of what is in memory: every module is asked what it is, nothing is believed."""

from __future__ import annotations

from collections import Counter
from typing import Any

from koalpaca_tune.config.recipe import Lora
from koalpaca_tune.models.forward import causal
from koalpaca_tune.runs.finding import Finding
from koalpaca_tune.runs.train import Ready

HALF = ("float16",)
"""Norms, embeddings and head in it overflow: GPT-NeoX attention scores, and the residual stream."""


def check(ready: Ready) -> list[Finding]:
    """All of it: a walk over the modules, no computing."""
    return [
        _base(ready),
        _eight_bit(ready) if ready.recipe.quantization.load_in_8bit else _four_bit(ready),
        _types(ready),
        _device(ready),
        _lora(ready, ready.recipe.lora) if ready.recipe.lora is not None else _whole(ready),
        *_fused(ready),
        _entries(ready),
    ]


def _base(ready: Ready) -> Finding:
    # whatever cannot be loaded whole was refused already (base-load, base-incomplete, architecture-unknown)
    model_type = ready.loaded.model.config.model_type
    return Finding("베이스 (base)", "ok", f"{ready.recipe.base.path}, {model_type}, {ready.loaded.fingerprint}")


def _four_bit(ready: Ready) -> Finding:
    name = "4비트 (4-bit)"
    proof, config = ready.loaded.proof, ready.loaded.model.config
    asked = ready.recipe.quantization
    expected = config.num_hidden_layers * len(ready.loaded.architecture.linears)
    if not asked.load_in_4bit:
        return Finding(name, "ok", f"아님, 바란 대로 (not 4-bit, as asked); {proof.linears_other:,} linear modules")
    seen = (
        f"{proof.linears_4bit:,}/{expected:,} {proof.quant_type}, "
        f"double {'예 (yes)' if proof.double_quant else '아니오 (no)'}, compute {proof.compute_dtype}"
    )
    fix = "constraints.txt의 판을 쓰세요 (use the versions of constraints.txt)."
    wrong = (
        proof.linears_4bit != expected
        or proof.quant_type != asked.bnb_4bit_quant_type
        or proof.double_quant != asked.bnb_4bit_use_double_quant
    )
    return Finding(name, "bad", seen, fix) if wrong else Finding(name, "ok", seen)


def _eight_bit(ready: Ready) -> Finding:
    name = "8비트 (8-bit)"
    proof, config = ready.loaded.proof, ready.loaded.model.config
    expected = config.num_hidden_layers * len(ready.loaded.architecture.linears)
    seen = f"{proof.linears_8bit:,}/{expected:,} LLM.int8, threshold {proof.threshold:g}"
    if proof.linears_8bit != expected or proof.threshold != ready.recipe.quantization.llm_int8_threshold:
        fix = "constraints.txt의 판을 쓰세요 (use the versions of constraints.txt)."
        return Finding(name, "bad", seen, fix)
    if proof.threshold:
        seen += ": 함께 계산하는 글에 따라 조금씩 다름 (results depend a little on what is computed together)"
    return Finding(name, "ok", seen)


def _types(ready: Ready) -> Finding:
    """Of norms, embeddings, head and what is trained: the four that a library may have changed by itself."""
    name, trained = "자료형 (dtypes)", "trained weights" if ready.recipe.full else "adapter"
    model = causal(ready.trainer.model)
    norms = {
        _type(p) for module in model.modules() if "norm" in type(module).__name__.lower() for p in _own(module)
    }
    found = {
        "norms": norms,
        "embeddings": {_type(model.get_input_embeddings().weight)},
        "head": {_type(model.get_output_embeddings().weight)},
        trained: {_type(p) for p in ready.trainer.parameters},
    }
    kinds = {"/".join(sorted(types)): ", ".join(p for p in found if found[p] == types) for types in found.values()}
    seen = "; ".join(f"{parts} {kind}" for kind, parts in kinds.items())
    if found[trained] != {"float32"} or any(kind in HALF for types in found.values() for kind in types):
        fix = "float16은 넘칩니다. quantization.bnb_4bit_compute_dtype=auto로 두세요 (float16 overflows: use auto)."
        return Finding(name, "bad", seen, fix)
    return Finding(name, "ok", seen)


def _device(ready: Ready) -> Finding:
    """One device per process: spread over several, or left without memory, a base trains slowly or not at all."""
    name = "장치 (device)"
    devices = Counter(str(p.device) for p in ready.trainer.model.parameters())
    seen = f"{', '.join(devices)}; 프로세스 {ready.accelerator.num_processes} (processes)"
    if len(devices) != 1 or "meta" in devices:
        return Finding(name, "bad", seen, "모든 가중치가 한 장치에 있어야 합니다 (weights are not all there).")
    return Finding(name, "ok", seen)


def _whole(ready: Ready) -> Finding:
    """Every weight learns, and no adapter is in the way."""
    name = "모든 가중치 (all weights)"
    model, trainer = ready.trainer.model, ready.trainer
    there = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in trainer.parameters)
    seen = f"{trained:,} parameters, {len(trainer.parameters):,} matrices"
    seen += ", float32 사본으로 (through float32 copies)" if trainer.trained.beside else ""
    frozen = [path for path, p in model.named_parameters() if not p.requires_grad]
    adapted = [path for path, module in model.named_modules() if hasattr(module, "lora_A")]
    if trained != there or frozen or adapted:
        fix = "모두 학습해야 합니다 (all of them must learn)."
        return Finding(name, "bad", f"{seen}; of {there:,}; frozen: {frozen[:1]}, LoRA: {adapted[:1]}", fix)
    return Finding(name, "ok", seen)


def _lora(ready: Ready, lora: Lora) -> Finding:
    """Attached to every named target in every block, to nothing else, and nothing else learns."""
    name, model = "LoRA", ready.trainer.model
    layers = ready.loaded.model.config.num_hidden_layers
    attached: Counter[str] = Counter()
    transposed: list[str] = []
    expected = 0
    for path, module in model.named_modules():
        if hasattr(module, "lora_A") and hasattr(module, "base_layer"):
            attached[path.rsplit(".", 1)[-1]] += 1
            expected += lora.r * (module.in_features + module.out_features)
            if getattr(module, "fan_in_fan_out", False):
                transposed.append(path)
    others = [path for path, p in model.named_parameters() if p.requires_grad and ".lora_" not in path]
    trained = sum(p.numel() for p in ready.trainer.parameters)
    seen = f"{len(lora.targets)} targets x {layers} blocks, r {lora.r}, alpha {lora.alpha}, {trained:,} parameters"
    lacking = [target for target in lora.targets if attached[target] != layers]
    if lacking or set(attached) - set(lora.targets):
        counts = ", ".join(f"{target} {count}" for target, count in attached.items())
        fix = "peft의 판을 보세요 (check the version of peft)."
        return Finding(name, "bad", f"{seen}; 붙은 곳 (attached): {counts}", fix)
    if transposed:
        fix = "linear 층에는 false여야 합니다 (must be false for linear layers)."
        return Finding(name, "bad", f"fan_in_fan_out: {transposed[0]}", fix)
    if trained != expected or others:
        fix = "어댑터만 학습해야 합니다 (only the adapter may learn)."
        return Finding(name, "bad", f"{seen}; expected {expected:,}; also learns: {others[:1]}", fix)
    return Finding(name, "ok", seen)


def _fused(ready: Ready) -> list[Finding]:
    """`query_key_value` of GPT-NeoX holds q, k, v of one head, then of the next; not all q, all k, all v."""
    config = ready.loaded.model.config
    if config.model_type != "gpt_neox":
        return []
    name = "query_key_value"
    heads, width = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    module: Any = next(m for path, m in ready.loaded.model.named_modules() if path.endswith("query_key_value"))
    seen = f"머리마다 q, k, v (head by head): {heads} x 3 x {width}"
    if module.out_features != heads * 3 * width:
        return [Finding(name, "bad", f"{seen} != {module.out_features}", "config.json을 보세요 (see config.json).")]
    return [Finding(name, "ok", seen)]


def _entries(ready: Ready) -> Finding:
    """An id beyond the embedding is an illegal memory access on a card, long after."""
    name = "어휘 (vocabulary)"
    rows = ready.loaded.model.get_input_embeddings().weight.shape[0]
    vocabulary = ready.examples.encoder.vocabulary
    entries = vocabulary.backend.get_vocab_size()
    largest = max(max(one.ids) for one in ready.trainer.train)
    largest = max(largest, vocabulary.pad_id)
    seen = f"토크나이저 {entries:,}, 임베딩 {rows:,} (entries, rows)"
    if largest >= rows:
        fix = "베이스의 토크나이저를 쓰세요 (use the base's own tokenizer)."
        return Finding(name, "bad", f"{seen}; id {largest:,}", fix)
    return Finding(name, "ok", seen)


def _own(module: Any) -> Any:
    return module.parameters(recurse=False)


def _type(tensor: Any) -> str:
    return str(tensor.dtype).removeprefix("torch.")
