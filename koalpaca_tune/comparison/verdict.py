"""What a comparison says, in words. Skills and fit are said apart: one does not prove the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from koalpaca_tune import korean

Verdict = Literal["improved", "worse", "no detectable change"]
Overall = Literal["improved", "mixed", "worse", "no detectable improvement"]


def verdict_of(gain: float, p: float, alpha: float) -> Verdict:
    """The word for one measure.

    Args:
        gain: the difference, turned so that more is better.
        p: adjusted p-value.
    """
    if p >= alpha or gain == 0:
        return "no detectable change"
    return "improved" if gain > 0 else "worse"


@dataclass(frozen=True, slots=True)
class Finding:
    """One tested measure and what was found."""

    title: str
    title_en: str
    group: Literal["skill", "fit"]
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Said:
    """The verdict on a comparison.

    Attributes:
        overall, skills, fit: the word for all measures, for the choice tasks, for the held-out data; None where
            nothing was measured.
        headline, headline_en: a few words.
        korean, english: one or two sentences.
    """

    overall: Overall
    skills: Overall | None
    fit: Overall | None
    headline: str
    headline_en: str
    korean: str
    english: str


_HEADLINES: dict[Overall, tuple[str, str]] = {
    "improved": ("나아졌습니다", "Improved"),
    "mixed": ("나아진 것도, 나빠진 것도 있습니다", "Mixed"),
    "worse": ("나빠졌습니다", "Worse"),
    "no detectable improvement": ("나아졌다는 근거가 없습니다", "No detectable improvement"),
}
_FIT_ONLY = ("검증 데이터에서만 나아졌습니다", "Improved on held-out data only")


def say(findings: Sequence[Finding]) -> Said:
    """Puts the findings of all tested measures into words."""
    skills = [finding for finding in findings if finding.group == "skill"]
    fit = [finding for finding in findings if finding.group == "fit"]
    overall, skill_word, fit_word = _overall(findings), _overall(skills), _overall(fit)
    parts = [
        _part("능력 평가", "skill tasks", skills, skill_word),
        _part("검증 데이터", "held-out data", fit, fit_word),
    ]
    said = [part for part in parts if part is not None]
    korean_text = " ".join(one for one, _ in said)
    english_text = " ".join(two for _, two in said)
    if skills and fit and skill_word == "no detectable improvement" and fit_word in ("improved", "mixed"):
        better = _names(fit, "improved")
        korean_text = (
            f"검증 데이터에서는 {better[0]} 나아졌지만{_but(fit)}, "
            f"능력 평가 {len(skills)}가지에서는 달라진 것을 확인하지 못했습니다."
        )
        english_text = (
            f"On held-out data {better[1]} improved{_but_en(fit)}, but none of the {len(skills)} skill tasks "
            "changed detectably."
        )
    if not said:
        korean_text, english_text = "견줄 것이 없습니다.", "There is nothing to compare."
    word = overall or "no detectable improvement"
    fit_only = word == "improved" and skill_word == "no detectable improvement"
    headline = _FIT_ONLY if fit_only else _HEADLINES[word]
    return Said(word, skill_word, fit_word, *headline, korean_text, english_text)


def _overall(findings: Sequence[Finding]) -> Overall | None:
    if not findings:
        return None
    better = any(finding.verdict == "improved" for finding in findings)
    worse = any(finding.verdict == "worse" for finding in findings)
    if better and worse:
        return "mixed"
    return "improved" if better else "worse" if worse else "no detectable improvement"


def _part(
    place: str, place_en: str, findings: Sequence[Finding], overall: Overall | None
) -> tuple[str, str] | None:
    count = len(findings)
    if overall is None:
        return None
    if overall == "no detectable improvement":
        return (
            f"{place} {count}가지에서는 달라진 것을 확인하지 못했습니다.",
            f"None of the {count} measures on {place_en} changed detectably."
            if count > 1
            else f"The one measure on {place_en} did not change detectably.",
        )
    better, worse = _names(findings, "improved"), _names(findings, "worse")
    if overall == "mixed":
        return (
            f"{place}에서는 {better[0]} 나아지고 {worse[0]} 나빠졌습니다.",
            f"On {place_en}, {better[1]} improved and {worse[1]} got worse.",
        )
    if overall == "improved":
        return f"{place}에서는 {better[0]} 나아졌습니다.", f"On {place_en}, {better[1]} improved."
    return f"{place}에서는 {worse[0]} 나빠졌습니다.", f"On {place_en}, {worse[1]} got worse."


def _but(fit: Sequence[Finding]) -> str:
    worse = _names(fit, "worse")
    return f" {worse[0]} 나빠졌고" if worse[1] else ""


def _but_en(fit: Sequence[Finding]) -> str:
    worse = _names(fit, "worse")
    return f" and {worse[1]} got worse" if worse[1] else ""


def _names(findings: Iterable[Finding], verdict: Verdict) -> tuple[str, str]:
    """The titles with this verdict: in Korean with 이 or 가 behind the last, in English."""
    chosen = [finding for finding in findings if finding.verdict == verdict]
    if not chosen:
        return "", ""
    titles = ", ".join(f"‘{finding.title}’" for finding in chosen)
    english = ", ".join(f"“{finding.title_en}”" for finding in chosen)
    return titles + korean.particle(chosen[-1].title, "이/가"), english
