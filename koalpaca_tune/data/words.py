"""The Korean words for what a preparation reports."""

from __future__ import annotations

from collections.abc import Mapping

from koalpaca_tune.data.cleaning import clean, privacy
from koalpaca_tune.data.quality.signals import SIGNALS

STEPS: Mapping[str, str] = clean.DESCRIPTIONS
"""Cleaning step -> Korean."""

KINDS: Mapping[str, str] = {str(kind): korean for kind, korean in privacy.DESCRIPTIONS.items()}
"""Kind of personal data -> Korean."""

REASONS = {
    "row-empty": "질문이나 답변이 비어 있음",
    "row-fields": "칸 수가 머리글과 다름",
    "row-quotes": "큰따옴표가 맞지 않음",
    "row-json": "JSON이 아닌 줄",
    "row-encoding": "글자가 깨져 읽을 수 없음",
    "row-type": "값이 글이 아님(숫자, 목록 등)",
    "row-shape": "필요한 열이나 메시지 형식이 아님",
    "row-turns": "대화의 차례가 맞지 않음",
    "row-size": "한 줄이 너무 김",
    "row-text": "아는 형식의 대화 글이 아님",
    "row-citation": "인용한 번호의 자료가 없음",
    "row-preference": "선호 쌍이 한 질문의 두 답이 아님",
    "row-tool": "도구를 부르는 대화",
    "row-weight": "배우지 말라고 표시한 답이 있음",
    "row-label": "과제에 없는 정답 이름",
    "row-truncated": "압축 파일이 끊겨 뒤를 읽지 못함",
    "row-file": "폴더 안의 파일 하나를 읽지 못함",
    # most are called like the signal that they limit
    **{f"quality-{name}": f"한계를 넘음: {signal.korean}" for name, signal in SIGNALS.items()},
    "quality-question-short": "질문이 너무 짧음",
    "quality-answer-short": "답변이 너무 짧음",
    "quality-answer-long": "답변이 너무 긺",
    "quality-speech": "바라지 않는 말투",
    "contaminated": "평가 문항과 겹침",
    "duplicate-exact": "같은 기록이 앞에 있음",
    "duplicate-normalised": "띄어쓰기나 문장 부호만 다른 기록이 앞에 있음",
    "duplicate-near": "거의 같은 기록이 앞에 있음",
    "mix-weight": "출처의 가중치만큼만 씀",
    "mix-cap": "출처의 상한을 넘음",
}
"""Why a row is not in the set: code -> Korean. Every code of rejected.jsonl is here."""


ENCODINGS = {"utf-8-sig": "UTF-8(BOM)", "cp949": "CP949(EUC-KR)"}
DELIMITERS = {"comma": "쉼표", "tab": "탭", "semicolon": "세미콜론", "pipe": "세로줄"}
