"""Every measure by name: what task files, results and reports know of `koalpaca_tune.measures`.

REFERENCE measures hold an answer against references, the best of which counts; ANSWER measures look at an answer
and its question. Whether a model stopped by itself is no measure of text: the harness has it from the model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from koalpaca_tune.measures import chrf, exact, korquad, language, letters, overlap, particles, repetition, speech
from koalpaca_tune.measures import translation as translated

Reference = Callable[[str, Sequence[str]], float]
Answer = Callable[[str, str], float | None]
Evidence = Callable[[str, str], tuple[str, ...]]


def _best(score: Callable[[str, str], float]) -> Reference:
    return lambda answer, golds: max(score(answer, gold) for gold in golds)


REFERENCE: dict[str, Reference] = {
    "exact": _best(exact.exact),
    "exact_korean": _best(exact.exact_korean),
    "korquad_exact": _best(korquad.exact),
    "korquad_f1": _best(korquad.f1),
    "chrf": _best(chrf.score),
    "morpheme_f1": _best(overlap.morpheme_f1),
    "rouge_1": _best(overlap.morpheme_f1),
    "rouge_2": _best(lambda answer, gold: overlap.rouge_n(answer, gold, 2)),
    "rouge_l": _best(overlap.rouge_l),
    "bleu": _best(overlap.bleu),
}
"""Name -> (answer, at least one reference) -> 0..1, the best of the references. ROUGE-1's F1 is morpheme F1."""

EVIDENCE: dict[str, Evidence] = {
    "loop": lambda answer, question: repetition.loops(answer),
    "script_mix": letters.foreign,
    "hanja_leak": letters.hanja_leaks,
    "broken_syllable": letters.broken,
    "particle_error": lambda answer, question: tuple(
        f"{wrong.written} → {wrong.fitting}" for wrong in particles.errors(answer)
    ),
    "translation_tone": lambda answer, question: translated.toned(answer),
}
"""Name of a defect -> (answer, question) -> the words that show it; empty when the answer does not have it."""


def _defect(name: str) -> Answer:
    find = EVIDENCE[name]
    return lambda answer, question: float(bool(find(answer, question))) if _has_letters(answer) else None


def _has_letters(answer: str) -> bool:
    return any(map(str.isalnum, answer)) or "\ufffd" in answer


def _number(value: bool | None) -> float | None:
    return None if value is None else float(value)


ANSWER: dict[str, Answer] = {
    "loop": _defect("loop"),
    "repetition": lambda answer, question: repetition.repetition(answer),
    "distinct_1": lambda answer, question: repetition.distinct(answer, 1),
    "distinct_2": lambda answer, question: repetition.distinct(answer, 2),
    "script_mix": _defect("script_mix"),
    "hanja_leak": _defect("hanja_leak"),
    "broken_syllable": _defect("broken_syllable"),
    "speech_consistency": lambda answer, question: _number(speech.consistent(answer)),
    "speech_match": lambda answer, question: _number(speech.suits(answer, question)),
    "particle_error": _defect("particle_error"),
    "translation_tone": _defect("translation_tone"),
    "language_mismatch": lambda answer, question: _number(language.mismatch(answer, question)),
}
"""Name -> (answer, question) -> value; None when the text does not decide it (an empty answer decides nothing)."""

BY_KIWI: frozenset[str] = frozenset({"exact_korean", "morpheme_f1", "rouge_1", "rouge_2", "rouge_l", "bleu"})
"""Of REFERENCE, those that Kiwi has a part in: another version of it may decide otherwise."""

YES_NO: frozenset[str] = frozenset(
    {"exact", "exact_korean", "korquad_exact", *EVIDENCE, "speech_consistency", "speech_match", "language_mismatch"}
)
"""Measures whose values are 0 and 1."""

LOWER_IS_BETTER: frozenset[str] = frozenset({*EVIDENCE, "repetition", "language_mismatch"})
"""Measures of what an answer should not have."""

TITLES: dict[str, tuple[str, str]] = {
    "exact": ("완전 일치", "Exact match"),
    "exact_korean": ("완전 일치 (한국어 정규화)", "Exact match, Korean normalisation"),
    "korquad_exact": ("완전 일치 (KorQuAD)", "Exact match (KorQuAD)"),
    "korquad_f1": ("글자 F1 (KorQuAD)", "Character F1 (KorQuAD)"),
    "chrf": ("chrF", "chrF"),
    "morpheme_f1": ("형태소 F1", "Morpheme F1"),
    "rouge_1": ("ROUGE-1 (형태소)", "ROUGE-1 (morphemes)"),
    "rouge_2": ("ROUGE-2 (형태소)", "ROUGE-2 (morphemes)"),
    "rouge_l": ("ROUGE-L (형태소)", "ROUGE-L (morphemes)"),
    "bleu": ("BLEU (형태소)", "BLEU (morphemes)"),
    "loop": ("같은 말의 되풀이", "Loops"),
    "repetition": ("글자 반복", "Repetition"),
    "distinct_1": ("형태소의 다양성", "Distinct-1 (morphemes)"),
    "distinct_2": ("형태소 쌍의 다양성", "Distinct-2 (morphemes)"),
    "script_mix": ("섞여 든 다른 언어", "Other scripts and languages mixed in"),
    "hanja_leak": ("섞여 든 한자", "Leaked Hanja"),
    "broken_syllable": ("깨진 글자", "Broken syllables"),
    "speech_consistency": ("말투의 일관성", "Speech level kept"),
    "speech_match": ("질문에 맞는 말투", "Speech level suits the question"),
    "particle_error": ("조사 오류", "Particle errors"),
    "translation_tone": ("번역투", "Translation tone"),
    "language_mismatch": ("다른 언어로 한 답변", "Another language than asked"),
}
"""Name -> title in Korean and in English, for every measure."""
