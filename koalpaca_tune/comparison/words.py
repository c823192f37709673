"""Numbers and facts of a comparison as a reader sees them, Korean first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from koalpaca_tune.comparison.compare import Comparison, Row, Side
from koalpaca_tune.comparison.outcomes import Unit
from koalpaca_tune.comparison.power import FEWEST
from koalpaca_tune.comparison.stats import COHEN_DZ, COHEN_G, Paired

VERDICTS = {
    "improved": ("나아짐", "improved"),
    "worse": ("나빠짐", "worse"),
    "no detectable change": ("변화 확인 안 됨", "no detectable change"),
}


NO_INTERVAL = "구간 추정 불가"
"""In place of an interval that cannot be estimated."""


TOO_FEW = ("문항이 모자람", "too few items")
"""The verdict of a measure with fewer than FEWEST pairs, which could not have shown any change."""


def value(number: float, unit: Unit) -> str:
    """0.457 as 45.7%, 2.81 bits and 7.25 points as they are."""
    return f"{number * 100:.1f}%" if unit == "share" else f"{number:.3f}" if unit == "bits" else f"{number:.2f}"


def change(number: float, unit: Unit) -> str:
    """A difference with its sign; shares in percentage points."""
    text = value(abs(number), unit).removesuffix("%")
    sign = "" if float(text) == 0 else "+" if number > 0 else "−"
    return f"{sign}{text}" + ("%p" if unit == "share" else "")


def interval(low: float, high: float, unit: Unit) -> str:
    """`[−13.6, +21.9]`, in the unit of the difference beside it."""
    return f"[{change(low, unit).removesuffix('%p')}, {change(high, unit).removesuffix('%p')}]"


def spread(paired: Paired, unit: Unit) -> str:
    """The interval of a difference, or that there is none: one item, or all changed alike, tells of no spread."""
    if paired.low is None or paired.high is None:
        return NO_INTERVAL
    return interval(paired.low, paired.high, unit)


def p_value(number: float) -> str:
    """Three decimals, or below the smallest of them."""
    return "<0.001" if number < 0.001 else f"{number:.3f}"


def effect(paired: Paired) -> tuple[str, str]:
    """`g +0.18` and `[−0.05, +0.36]`; a dash and nothing where it is the difference itself or cannot be told."""
    name = {COHEN_G: "g", COHEN_DZ: "dz"}.get(paired.effect_name)
    if name is None or paired.effect is None or paired.effect_low is None or paired.effect_high is None:
        return "–", ""
    return f"{name} {change(paired.effect, 'points')}", interval(paired.effect_low, paired.effect_high, "points")


def row(one: Row) -> dict[str, Any]:
    """A tested measure as texts for a table."""
    paired, unit = one.paired, one.unit
    known = paired.smallest is not None
    size, size_interval = effect(paired)
    said = TOO_FEW if paired.n < FEWEST and one.verdict == "no detectable change" else VERDICTS[one.verdict]
    return {
        "title": one.title + (" (낮을수록 좋음)" if one.lower_is_better else ""),
        "title_en": one.title_en + (" (lower is better)" if one.lower_is_better else ""),
        "before": value(paired.before, unit),
        "after": value(paired.after, unit),
        "change": change(paired.difference, unit),
        "interval": spread(paired, unit),
        "p": p_value(one.p_holm),
        "effect": size,
        "effect_interval": size_interval,
        "smallest": change(paired.smallest or 0.0, unit).replace("+", "±") if known else "–",
        "n": paired.n,
        "left_out": one.left_out,
        "corpus": None
        if one.corpus_before is None or one.corpus_after is None
        else f"{value(one.corpus_before, unit)} → {value(one.corpus_after, unit)}",
        "marks": list(_row_marks(one)),
        "verdict": said[0],
        "verdict_en": said[1],
        "kind": one.verdict.split()[0],
    }


def guessing(rows: Sequence[Row]) -> tuple[str, str] | None:
    """How many tasks the tuned model cannot do: "no detectable change" of those is no skill that was kept."""
    choices = [row for row in rows if row.chance is not None]
    count = sum("after" in (*row.at_chance, *row.collapsed) for row in choices)
    if not count:
        return None
    return (
        f"선택형 {len(choices)}가지 가운데 {count}가지에서는 후의 모델이 찍기와 구별되지 않거나 "
        "한 가지 답만 합니다.",
        f"On {count} of the {len(choices)} tasks with choices the tuned model is no better than guessing, or gives "
        "one answer to all.",
    )


def _row_marks(one: Row) -> Iterator[tuple[str, str, str]]:
    """What must be seen beside the numbers of a row: (Korean, English, plain or mixed)."""
    if one.chance is not None:
        yield f"찍으면 {one.chance * 100:.0f}%", f"guessing {one.chance * 100:.0f}%", "plain"
    if one.collapsed:
        yield (
            f"{_sides(one.collapsed, 0)}: 한 가지 답만 함",
            f"{_sides(one.collapsed, 1)}: one answer to all",
            "mixed",
        )
    if guessed := [side for side in one.at_chance if side not in one.collapsed]:
        yield f"{_sides(guessed, 0)}: 찍기와 구별 안 됨", f"{_sides(guessed, 1)}: no better than guessing", "mixed"
    total = one.paired.n + one.left_out
    if one.left_out * 2 > total:
        yield f"{total:,}개 가운데 {one.paired.n:,}개만", f"only {one.paired.n:,} of {total:,}", "mixed"


def _sides(sides: Sequence[str], language: int) -> str:
    names = {"before": ("전", "before"), "after": ("후", "after")}
    return ("·", ", ")[language].join(names[side][language] for side in sides)


def side(one: Side) -> dict[str, Any]:
    """A measure beside the tested ones as texts."""
    return {
        "title": one.title + (" (낮을수록 좋음)" if one.lower_is_better else ""),
        "title_en": one.title_en,
        "before": value(one.paired.before, one.unit),
        "after": value(one.paired.after, one.unit),
        "change": change(one.paired.difference, one.unit),
        "interval": spread(one.paired, one.unit),
        "p": p_value(one.paired.p),
        "n": one.paired.n,
    }


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
