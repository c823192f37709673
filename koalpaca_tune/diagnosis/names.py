"""What signals and odd things are called where a person reads them: Korean, English, how the number is written."""

from __future__ import annotations

SIGNALS: dict[str, tuple[str, str, str]] = {
    "recipe.float16": ("레시피의 float16", "float16 in the recipe", "{:.0f}"),
    "recipe.rate": ("학습률", "learning rate", "{:.2e}"),
    "record.float16": ("실제로 float16", "really float16", "{:.0f}"),
    "record.linears_4bit": ("4비트 선형층", "4-bit linear modules", "{:.0f}"),
    "record.linears_other": ("4비트가 아닌 선형층", "linear modules not in 4 bits", "{:.0f}"),
    "record.nothing_share": ("배울 것이 없는 예시", "examples with nothing to learn", "{:.0%}"),
    "record.cut_share": ("잘린 예시", "examples cut", "{:.0%}"),
    "record.bad_versions": ("결함이 알려진 판", "versions with a known fault", "{:.0f}"),
    "curve.rows": ("기록된 줄", "rows of metrics", "{:.0f}"),
    "curve.adapter_zero": ("0인 B 행렬", "B matrices at zero", "{:.0%}"),
    "curve.norm_zero": ("기울기가 0인 줄", "rows without any gradient", "{:.0%}"),
    "curve.valid_moved": ("검증 손실이 움직인 폭", "how far the validation loss moved", "{:.4g}"),
    "curve.learned_share": ("실제로 배운 토큰", "tokens really learned", "{:.0%}"),
    "curve.falling": ("길이가 한쪽으로 가는 이웃", "neighbours whose length goes one way", "{:.0%}"),
    "curve.order_length": ("이웃한 단계의 길이 상관", "correlation of neighbouring lengths", "{:.2f}"),
    "curve.order_learned": (
        "이웃한 단계의 배우는 비율 상관",
        "correlation of neighbouring learned shares",
        "{:.2f}",
    ),
    "curve.drop": ("가장 큰 하락", "largest drop", "{:.2f}"),
    "curve.first": ("첫 손실", "first loss", "{:.3f}"),
    "curve.begin": ("처음의 손실", "loss in the beginning", "{:.3f}"),
    "curve.last": ("마지막 손실", "loss in the end", "{:.3f}"),
    "curve.highest": ("가장 높은 손실", "highest loss", "{:.3f}"),
    "curve.norm_highest": ("가장 큰 기울기", "largest gradient norm", "{:.3g}"),
    "curve.ratio_begin": ("학습/검증 손실, 처음", "training over validation loss, begin", "{:.2f}"),
    "curve.ratio_last": ("학습/검증 손실, 끝", "training over validation loss, end", "{:.2f}"),
    "curve.epochs": ("에폭", "epochs", "{:.2f}"),
    "curve.stairs": ("에폭마다 떨어진 비율", "fall at each epoch", "{:.0%}"),
    "curve.valid_last": ("마지막 검증 손실", "validation loss in the end", "{:.3f}"),
    "curve.valid_best": ("가장 낮은 검증 손실", "lowest validation loss", "{:.3f}"),
    "data.kept_learned_share": ("배워야 할 토큰", "tokens to be learned", "{:.0%}"),
    "data.learned_missing": ("예시마다 빠진 배울 토큰", "learned tokens missing per example", "{:.2f}"),
    "data.end_learned": ("끝을 배우는 예시", "examples whose end is learned", "{:.0%}"),
    "data.decomposed": ("풀어 쓴 한글이 든 기록", "rows with decomposed Hangul", "{:.0%}"),
    "data.garbled": ("깨진 기록", "garbled rows", "{:.1%}"),
    "data.repeated": ("되풀이되는 기록", "rows that repeat others", "{:.0%}"),
    "data.most_repeated": ("가장 많이 되풀이된 횟수", "times that the commonest row comes", "{:.0f}"),
    "data.valid_in_train": ("학습 자료에 든 검증 기록", "validation rows in training", "{:.0%}"),
}

ODD: dict[str, tuple[str, str]] = {
    "loss-not-finite": ("손실이 수가 아니게 됨", "the loss was no number"),
    "loss-above-start": ("손실이 처음보다 훨씬 높아짐", "the loss went well above where it began"),
    "loss-spike": ("손실이 튐", "the loss jumped"),
    "loss-rising": ("손실이 올라감", "the loss rises"),
    "loss-drop": ("손실이 갑자기 떨어짐", "the loss dropped suddenly"),
    "loss-jump": ("손실의 수준이 한 번에 올라감", "the level of the loss rose at once"),
    "gradient-norm": ("기울기가 갑자기 커지거나 0", "the gradient norm jumped, or is zero"),
    "dead-adapter": ("움직이지 않는 B 행렬", "B matrices that do not move"),
    "valid-gap": ("검증 손실이 학습 손실과 벌어짐", "the validation loss parts from the training loss"),
    "valid-worse": ("검증 손실이 처음보다 나빠짐", "the validation loss is worse than at first"),
}

VERDICTS: dict[str, tuple[str, str]] = {
    "healthy": ("건강함", "healthy"),
    "none": ("이상하지만 아는 까닭이 아님", "something is wrong, and none of the known causes fits"),
    "too-short": ("판단하기에 짧음", "too short to judge"),
}
