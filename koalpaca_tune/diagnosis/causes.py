"""The causes that `koalpaca diagnose` knows: how each shows, what to read of it, what to do next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from koalpaca_tune.diagnosis import fits
from koalpaca_tune.diagnosis.fits import Signals


@dataclass(frozen=True)
class Cause:
    """One explanation of a trail.

    Attributes:
        fit: 0 to 1, see `fits`.
        ko, en: what it is, in a few words.
        why_ko, why_en: one sentence of what happens.
        evidence: signals that speak for it, shown with their values where they are known.
        command: the next command; `{run}` is the run folder, `{train}` the training file, `{recipe}` run.yaml.
    """

    fit: Callable[[Signals], float]
    ko: str
    en: str
    why_ko: str
    why_en: str
    evidence: tuple[str, ...]
    command: str


AGAIN = "koalpaca train {recipe} out={run}-2"

CAUSES: dict[str, Cause] = {
    "float16-overflow": Cause(
        fits.float16_overflow,
        "float16 넘침",
        "float16 overflow",
        "float16으로 계산한 값이 65,504를 넘어 손실이 수가 아니게 되었습니다.",
        "A value computed in float16 went beyond 65,504, and the loss was no number any more.",
        ("recipe.float16", "record.float16", "curve.rows"),
        AGAIN + " quantization.bnb_4bit_compute_dtype=auto",
    ),
    "dead-adapter": Cause(
        fits.dead_adapter,
        "죽은 어댑터",
        "dead adapter",
        "어댑터의 B 행렬이 0에서 움직이지 않아 모델이 그대로입니다.",
        "The adapter's B matrices do not leave zero: the model stays what it was.",
        ("curve.adapter_zero", "curve.norm_zero", "curve.valid_moved"),
        "koalpaca train {recipe} out={run}-2 --dry-run",
    ),
    "quantization-not-applied": Cause(
        fits.quantization_not_applied,
        "적용되지 않은 양자화",
        "quantisation not applied",
        "레시피는 4비트라고 하지만 읽은 모델은 그렇지 않습니다.",
        "The recipe says 4 bits; the model that was loaded is something else.",
        ("record.linears_4bit", "record.linears_other"),
        "koalpaca doctor",
    ),
    "mask-everything": Cause(
        fits.mask_everything,
        "질문까지 학습",
        "mask: everything is learned",
        "답만 배워야 하는데 질문과 틀까지 배웠습니다.",
        "Questions and frame were learned too, not the answers alone.",
        ("curve.learned_share", "data.kept_learned_share"),
        "koalpaca data look {train} --tokens --count 3",
    ),
    "mask-empty": Cause(
        fits.mask_empty,
        "거의 빈 마스크",
        "mask: nearly nothing is learned",
        "답의 토큰이 대부분 가려져 배우는 것이 거의 없습니다.",
        "Most tokens of the answers are masked: there is next to nothing to learn.",
        ("curve.learned_share", "data.kept_learned_share", "record.nothing_share"),
        "koalpaca data look {train} --tokens --count 3",
    ),
    "end-not-learned": Cause(
        fits.end_not_learned,
        "끝을 배우지 않음 (pad/EOS)",
        "the end is not learned (pad/EOS)",
        "예시마다 끝 토큰이 가려져, 답을 멈출 줄 모르게 됩니다.",
        "The end token of each example is masked: the model will not know when to stop.",
        ("data.learned_missing", "data.end_learned"),
        "koalpaca data look {train} --tokens --count 3",
    ),
    "answers-cut": Cause(
        fits.answers_cut,
        "잘린 답",
        "answers are cut",
        "data.max_length보다 긴 예시가 잘려 답의 끝을 배우지 못합니다.",
        "Examples longer than data.max_length are cut, and the ends of their answers are not learned.",
        ("record.cut_share",),
        AGAIN + " data.max_length=1024",
    ),
    "decomposed-hangul": Cause(
        fits.decomposed_hangul,
        "풀어 쓴 한글 (NFD)",
        "decomposed Hangul (NFD)",
        "한글이 자모로 풀려 있어 토큰이 두 배가 되고, 손실은 다른 글의 손실입니다.",
        "Hangul stands in pieces: twice the tokens, and a loss of another text.",
        ("data.decomposed",),
        "koalpaca data prepare {train} --out prepared",
    ),
    "garbled-rows": Cause(
        fits.garbled_rows,
        "깨진 글",
        "garbled rows",
        "인코딩을 틀리게 읽은 기록이 섞여, 손실이 높고 들쭉날쭉합니다.",
        "Rows decoded wrongly are among the data: the loss is high and uneven.",
        ("data.garbled",),
        "koalpaca data prepare {train} --out prepared",
    ),
    "repeated-data": Cause(
        fits.repeated_data,
        "되풀이되는 자료",
        "repeated data",
        "같은 예시가 한 에폭 안에 여러 번 나와, 첫 에폭부터 외웁니다.",
        "The same examples come many times within an epoch: they are memorised in the first.",
        ("data.repeated", "data.most_repeated", "curve.last"),
        "koalpaca data prepare {train} --out prepared",
    ),
    "leak": Cause(
        fits.leak,
        "검증 자료가 학습 자료에 있음",
        "validation rows are in training",
        "검증 기록을 학습에서 보았으므로 검증 손실을 믿을 수 없습니다.",
        "Validation rows were seen in training: the validation loss cannot be believed.",
        ("data.valid_in_train",),
        "koalpaca data prepare {train} --out prepared",
    ),
    "length-order": Cause(
        fits.length_order,
        "길이순 배치",
        "batches sorted by length",
        "길이순으로 놓인 배치 때문에 손실이 톱니처럼 오르내립니다. 학습이 나빠진 것은 아닙니다.",
        "Batches come sorted by length, so that the loss saws. What is learned need not be worse.",
        ("curve.falling", "curve.order_length"),
        AGAIN,
    ),
    "source-order": Cause(
        fits.source_order,
        "섞이지 않은 자료",
        "data not shuffled",
        "자료가 덩어리째 이어져, 출처가 바뀌는 곳에서 손실이 뛰거나 떨어집니다.",
        "The data come block after block: the loss jumps or drops where one source ends.",
        ("curve.order_length", "curve.order_learned", "curve.drop"),
        AGAIN,
    ),
    "rate-too-low": Cause(
        fits.rate_too_low,
        "너무 낮은 학습률",
        "learning rate too low",
        "학습률이 너무 낮아 손실이 움직이지 않습니다.",
        "At this learning rate the loss does not move.",
        ("recipe.rate", "curve.begin", "curve.last", "curve.valid_moved"),
        AGAIN + " training.learning_rate=2.0e-4",
    ),
    "rate-too-high": Cause(
        fits.rate_too_high,
        "너무 높은 학습률",
        "learning rate too high",
        "학습률이 너무 높아 손실이 처음보다 높이 올라갔습니다.",
        "At this learning rate the loss went up, above where it began.",
        ("recipe.rate", "curve.first", "curve.highest", "curve.norm_highest"),
        AGAIN + " training.learning_rate=2.0e-4",
    ),
    "accumulation": Cause(
        fits.accumulation,
        "누적의 나눗셈",
        "accumulation scaling",
        "학습 손실이 처음부터 끝까지 검증 손실의 몇 배(또는 몇 분의 일)입니다. 누적한 손실을 잘못 나누었습니다.",
        "From first to last the training loss is a multiple (or a part) of the validation loss: the accumulated "
        "loss is divided wrongly.",
        ("curve.ratio_begin", "curve.ratio_last"),
        AGAIN + " engine.kind=plain",
    ),
    "memorisation": Cause(
        fits.memorisation,
        "외우기 (에폭 계단)",
        "memorisation (epoch staircase)",
        "에폭이 바뀔 때마다 학습 손실이 떨어지고 검증 손실은 따라오지 않습니다. 자료를 외우고 있습니다.",
        "The training loss steps down at each epoch and the validation loss does not follow: the data are "
        "memorised.",
        ("curve.epochs", "curve.stairs", "curve.last", "curve.valid_last", "curve.valid_best"),
        AGAIN + " training.max_steps=null training.epochs=1",
    ),
    "library-fault": Cause(
        fits.library_fault,
        "라이브러리 결함",
        "library fault",
        "학습률과 자료는 멀쩡한데 손실이 올라가 돌아오지 않거나, 결함이 알려진 판을 썼습니다.",
        "Rate and data are sound and the loss rises for good, or a version with a known fault was used.",
        ("record.bad_versions", "recipe.rate", "curve.highest", "curve.last"),
        "koalpaca doctor",
    ),
}
"""In the order in which they are looked at; of two that fit equally well, the first."""
