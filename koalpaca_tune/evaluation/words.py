"""Numbers and facts of a comparison as a reader sees them, Korean first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from koalpaca_tune import korean
from koalpaca_tune.evaluation.compare import TITLES, Comparison, Row, Unit
from koalpaca_tune.evaluation.jobs import MEASURES

VERDICTS = {
    "improved": ("나아짐", "improved"),
    "worse": ("나빠짐", "worse"),
    "no detectable change": ("변화 확인 안 됨", "no detectable change"),
}


def value(number: float, unit: Unit) -> str:
    """0.457 as 45.7%, or 2.81 bits as they are."""
    return f"{number * 100:.1f}%" if unit == "share" else f"{number:.3f}"


def change(number: float, unit: Unit) -> str:
    """A difference with its sign; shares in percentage points."""
    text = f"{abs(number) * 100:.1f}" if unit == "share" else f"{abs(number):.3f}"
    sign = "" if float(text) == 0 else "+" if number > 0 else "−"
    return f"{sign}{text}" + ("%p" if unit == "share" else "")


def interval(low: float, high: float, unit: Unit) -> str:
    """`[−13.6, +21.9]`, in the unit of the difference beside it."""
    return f"[{change(low, unit).removesuffix('%p')}, {change(high, unit).removesuffix('%p')}]"


def p_value(number: float) -> str:
    """Three decimals, or below the smallest of them."""
    return "<0.001" if number < 0.001 else f"{number:.3f}"


def row(one: Row) -> dict[str, Any]:
    """A tested measure as texts for a table."""
    paired, unit = one.paired, one.unit
    known = paired.smallest is not None
    return {
        "title": one.title + (" (낮을수록 좋음)" if one.lower_is_better else ""),
        "title_en": one.title_en,
        "before": value(paired.before, unit),
        "after": value(paired.after, unit),
        "change": change(paired.difference, unit),
        "interval": interval(paired.low, paired.high, unit),
        "p": p_value(one.p_holm),
        "smallest": change(paired.smallest or 0.0, unit).replace("+", "±") if known else "–",
        "n": paired.n,
        "verdict": VERDICTS[one.verdict][0],
        "verdict_en": VERDICTS[one.verdict][1],
        "kind": one.verdict.split()[0],
    }


def warnings(comparison: Comparison) -> Iterator[tuple[str, str]]:
    """What a reader must know before believing a number, in Korean and English."""
    before, after = comparison.pair.before, comparison.pair.after
    if before.identity == after.identity:
        yield "전과 후가 같은 모델입니다.", "Before and after are the same model."
    other = sorted(
        key
        for key in {*before.identity, *after.identity} - {"adapter"}
        if before.identity.get(key) != after.identity.get(key)
    )
    if other:
        names = ", ".join(other)
        yield (
            f"어댑터 말고도 다른 설정이 있습니다: {names}. 차이가 어댑터 때문이라고만 할 수 없습니다.",
            f"More than the adapter differs ({names}): a difference may not be the adapter's.",
        )
    measured = {row.measure for row in comparison.rows}
    if any(task.before["kind"] == "generation" for task in comparison.pair.tasks):
        for name in MEASURES:
            if name not in measured:
                title, title_en = TITLES[name]
                yield (
                    f"{title}: 전과 후 모두에서 판단할 수 있는 답이 없어 견주지 못했습니다.",
                    f"{title_en}: no question has a decidable answer on both sides, so it was not compared.",
                )
    for word, word_en, result in (("전", "before", before), ("후", "after", after)):
        for task in result.tasks:
            collapse = task.get("collapse")
            if collapse:
                share = f"{collapse['share'] * 100:.0f}%"
                if collapse["answer"]:
                    said, said_en = f"‘{collapse['answer']}’", f"“{collapse['answer']}”"
                else:
                    said, said_en = f"{collapse['index'] + 1}번 선택지", f"choice {collapse['index'] + 1}"
                particle = korean.particle(collapse["answer"] or "선택지", "을/를")
                yield (
                    f"{task['title']} ({word}): 문항의 {share}에서 {said}{particle} 골랐습니다. "
                    "한 가지 답만 하는 모델도 점수는 나옵니다.",
                    f"{task['title_en']} ({word_en}): {said_en} was chosen for {share} of the items; "
                    "a constant answer looks like a score.",
                )
            if task.get("empty"):
                yield (
                    f"{task['title']} ({word}): {task['items']}개 가운데 {task['empty']}개가 빈 답입니다.",
                    f"{task['title_en']} ({word_en}): {task['empty']} of {task['items']} answers are empty.",
                )


def identities(comparison: Comparison) -> list[dict[str, Any]]:
    """Both identities, key by key, with whether they differ."""
    before = dict(_flat("", comparison.pair.before.identity))
    after = dict(_flat("", comparison.pair.after.identity))
    return [
        {
            "key": key,
            "before": before.get(key, "–"),
            "after": after.get(key, "–"),
            "differs": before.get(key) != after.get(key),
        }
        for key in dict.fromkeys([*before, *after])
    ]


def _flat(name: str, one: object) -> Iterator[tuple[str, str]]:
    if isinstance(one, Mapping) and one:
        for key, inner in one.items():
            yield from _flat(f"{name}.{key}" if name else str(key), inner)
    else:
        yield name, "없음" if one is None else str(one)


def marks(line: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Short marks beside a written answer: (text, good or bad or plain)."""
    found = [("끝맺음", "good") if line["stop_rate"] else (f"{line['tokens']}토큰에서 끊김", "bad")]
    if not line["text"].strip():
        found.append(("빈 답", "bad"))
    if line["repetition"] >= 0.3:
        found.append((f"되풀이 {line['repetition'] * 100:.0f}%", "bad"))
    if line["speech_consistency"] is False:
        found.append(("높임 섞임", "bad"))
    if line["hangul_share"] is not None and line["hangul_share"] < 0.5:
        found.append((f"한글 {line['hangul_share'] * 100:.0f}%", "bad"))
    found.append((f"일치 {line['morpheme_f1'] * 100:.0f}%", "plain"))
    return found
