"""What a card says of the training: settings as they took effect, and what the loop measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from koalpaca_tune.hub.facts import NOT_KNOWN, UNKNOWN, Fact

PRECISIONS = {"nf4": "NF4", "fp4": "FP4"}


def quantization(proof: Mapping[str, Any]) -> tuple[str, str]:
    """How the base was really loaded, as the modules themselves said; in Korean and in English."""
    if proof.get("linears_8bit"):
        count, threshold = proof["linears_8bit"], proof.get("threshold")
        return (
            f"8비트 LLM.int8, 문턱 {threshold}; 8비트 모듈 {count:,}개",
            f"8-bit LLM.int8, threshold {threshold}; {count:,} 8-bit modules",
        )
    if not proof["linears_4bit"]:
        types = ", ".join(proof["dtypes"])
        return f"양자화하지 않음 ({types})", f"not quantised ({types})"
    kind, count = PRECISIONS.get(proof["quant_type"], str(proof["quant_type"])), proof["linears_4bit"]
    ko, en = ("이중 양자화", "double quantisation")
    if not proof["double_quant"]:
        ko, en = f"{ko} 없음", f"no {en}"
    return (
        f"4비트 {kind}, {ko}, 연산 {proof['compute_dtype']}; 4비트 모듈 {count:,}개",
        f"4-bit {kind}, {en}, computed in {proof['compute_dtype']}; {count:,} 4-bit modules",
    )


def settings(record: Mapping[str, Any], config: Mapping[str, Any] | None) -> list[Fact]:
    """What was trained and how: as the adapter's own config has it, as proved, as the recipe says.

    Args:
        record: of the run.
        config: adapter_config.json; None: every weight was trained.
    """
    recipe, training = record["recipe"], record["recipe"]["training"]
    trainable = record.get("trainable") or {}
    modules = ", ".join(f"{name} {count:,}" for name, count in trainable.items())
    epochs, steps = training["epochs"], training["max_steps"]
    length = (
        (f"{epochs:g} 에폭", f"{epochs:g} epochs")
        if epochs is not None
        else (f"{steps:,} 단계", f"{steps:,} steps")
    )
    learned = sum(trainable.values())
    rate, warm = f"{training['learning_rate']:g}, {training['schedule']}", training["warmup_steps"]
    optimizer = f"{training['optimizer']}, weight decay {training['weight_decay']:g}"
    norm, longest = training["max_grad_norm"], recipe["data"]["max_length"]
    packed = recipe["data"]["packing"]
    return [
        *_method(config),
        Fact(
            "학습한 파라미터",
            f"{learned:,}개 ({modules})" if trainable else UNKNOWN,
            "Trained parameters",
            f"{learned:,} ({modules})" if trainable else NOT_KNOWN,
        ),
        Fact(
            "양자화 (로드한 뒤 확인)",
            quantization(record["proof"])[0],
            "Quantisation (as proved after loading)",
            quantization(record["proof"])[1],
        ),
        Fact("길이", length[0], "Length", length[1]),
        Fact(
            "배치",
            f"한 단계에 {training['batch_size']}행 (GPU마다)",
            "Batch",
            f"{training['batch_size']} rows a step (on each GPU)",
        ),
        Fact("학습률", f"{rate}, 예열 {warm} 단계", "Learning rate", f"{rate}, {warm} steps of warm-up"),
        Fact(
            "최적화",
            f"{optimizer}, 기울기 한도 {norm:g}",
            "Optimiser",
            f"{optimizer}, gradient norm at most {norm:g}",
        ),
        Fact(
            "가장 긴 예제",
            f"{longest:,} 토큰, 묶기 {'함' if packed else '안 함'}",
            "Longest example",
            f"{longest:,} tokens, {'packed' if packed else 'not packed'}",
        ),
        Fact("난수 씨앗", str(recipe["seed"]), "Seed"),
    ]


def _method(config: Mapping[str, Any] | None) -> list[Fact]:
    if config is None:
        return [Fact("방법", "모든 가중치를 학습 (full fine-tuning)", "Method", "every weight is trained")]
    lora = f"r {config['r']}, alpha {config['lora_alpha']}, dropout {config['lora_dropout']:g}"
    return [
        Fact("LoRA", lora),
        Fact("LoRA 대상", ", ".join(sorted(config["target_modules"])), "LoRA targets"),
    ]


def another_model(merge: Mapping[str, Any] | None) -> float | None:
    """How often the merged model and the one that was trained and judged in 4 bits find the same token likeliest.

    None where they are the same model but for rounding, or nothing was merged.
    """
    found = (merge or {}).get("merge")
    if not isinstance(found, dict) or found.get("onto") == "trained" or found.get("trained") is None:
        return None
    return float(found["trained"]["same_argmax"])


def merging(merge: Mapping[str, Any] | None) -> list[Fact]:
    """How the adapter was merged and what that changed, as `koalpaca merge` measured it."""
    found = (merge or {}).get("merge")
    if not isinstance(found, dict):
        return []
    trained = found.get("onto") == "trained"
    share = found["merged"]["mean"] / found["effect"]["mean"]
    same = found["merged"]["same_argmax"]
    return [
        Fact(
            "합치기",
            f"{found['dtype']}, {'학습한 그대로의 4비트 값' if trained else '온전한 정밀도의 기반 모델'}에",
            "Merged",
            f"{found['dtype']}, into {'the 4-bit values as trained' if trained else 'the full-precision base'}",
        ),
        Fact(
            "합치며 달라진 로짓",
            f"어댑터 효과의 {share:.2%}, 같은 1위 토큰 {same:.1%} ({found['tokens']:,}개 위치)",
            "Change of logits by merging",
            f"{share:.2%} of the adapter's effect, same likeliest token {same:.1%} ({found['tokens']:,} positions)",
        ),
    ]


def outcome(record: Mapping[str, Any]) -> list[Fact]:
    """What the training loop measured, and on what."""
    found = record.get("result") or {}
    machine = record.get("machine") or {}

    def shown(name: str, name_en: str, key: str, form: str, unit: str = "", unit_en: str = "") -> Fact:
        value = found.get(key)
        if value is None:
            return Fact(name, UNKNOWN, name_en, NOT_KNOWN)
        return Fact(name, form.format(value) + unit, name_en, form.format(value) + (unit_en or unit))

    device = machine.get("device")
    versions = ", ".join(f"{k} {v}" for k, v in (record.get("versions") or {}).items())
    return [
        shown("단계", "Steps", "steps", "{:,}"),
        shown("학습 손실 (끝 10%)", "Training loss (last 10%)", "loss", "{:.4f}"),
        shown("검증 손실", "Validation loss", "valid_loss", "{:.4f}"),
        shown("시간", "Time", "seconds", "{:,.0f}", "초", " s"),
        shown("속도", "Speed", "tokens_per_second", "{:,.0f}", " 토큰/초", " tokens/s"),
        shown("최대 GPU 메모리", "Peak GPU memory", "peak_memory_gib", "{:.2f}", " GiB"),
        Fact("장치", str(device or UNKNOWN), "Device", str(device or NOT_KNOWN)),
        Fact("버전", versions or UNKNOWN, "Versions", versions or NOT_KNOWN),
    ]
