"""What a reader must know before believing a number: answers that look like a score and are none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from koalpaca_tune import korean
from koalpaca_tune.comparison import counted, stats, titles
from koalpaca_tune.comparison.notice import Notice
from koalpaca_tune.comparison.outcomes import Outcome
from koalpaca_tune.comparison.pairing import Pair, TaskPair
from koalpaca_tune.comparison.scoring import Audit
from koalpaca_tune.evaluation import metrics
from koalpaca_tune.evaluation.store import Line

SAME_TEXT = 0.8
"""Share of equal written answers that is called a collapse."""
CUT = 0.05
"""Share of answers cut by the length limit that is worth saying."""
LEAN = 0.10
"""Excess of an option over the right answers that is worth saying, when it is significant."""
LEAN_ALPHA = 0.01


@dataclass(frozen=True, slots=True)
class _Side:
    """One side of one task."""

    about: Mapping[str, Any]
    lines: Sequence[Line]
    word: str
    word_en: str

    @property
    def title(self) -> str:
        return f"{self.about['title']} ({self.word})"

    @property
    def title_en(self) -> str:
        return f"{self.about['title_en']} ({self.word_en})"


def warnings(
    both: Pair,
    tested: Sequence[tuple[TaskPair, Outcome]],
    missing: Sequence[tuple[TaskPair, str]],
    audits: Sequence[Audit],
) -> Iterator[Notice]:
    """All warnings, the gravest first.

    Args:
        tested: measures that are compared.
        missing: measures that no item has on both sides.
        audits: of the choice tasks.
    """
    yield from _identities(both)
    sides = [
        _Side(about, lines, word, word_en)
        for task in both.tasks
        for about, lines, word, word_en in (
            (task.before, task.lines_before, "전", "before"),
            (task.after, task.lines_after, "후", "after"),
        )
    ]
    # the tuned side first: that is the one to be used
    for check in (_collapsed, _same_text, _failed, _empty, _cut):
        for side in [*sides[1::2], *sides[::2]]:
            yield from check(side)
    for task, outcome in tested:
        yield from counted.left_out(task, outcome)
    yield from contamination({task.name: _contaminated(task) for task in both.tasks}, both.tasks)
    yield from _unchecked(both)
    yield from counted.duplicates(both)
    yield from counted.ambiguous(both)
    for audit in audits:
        yield from _depends(audit)
    for side in sides:
        yield from _leaning(side)
    for side in sides:
        yield from _cut_left(side)
    for task, measure in missing:
        title, title_en = titles.of_row(task.before, measure)
        yield Notice(
            "not-compared",
            f"{title}: 전과 후 모두에서 판단할 수 있는 답이 없어 견주지 못했습니다.",
            f"{title_en}: no question has a decidable answer on both sides, so it was not compared.",
        )


def contamination(counts: Mapping[str, int], tasks: Sequence[TaskPair]) -> Iterator[Notice]:
    """Tasks whose items the training data hold, whole or in part.

    Args:
        counts: task -> items that overlap with a record of the training data.
    """
    for task in tasks:
        count = counts.get(task.name, 0)
        if count:
            items = len(task.lines_before)
            yield Notice(
                "contamination",
                f"{task.before['title']}: 문항 {items:,}개 가운데 {count:,}개가 학습 데이터와 겹칩니다. "
                "나아졌다면 외운 것일 수 있습니다.",
                f"{task.before['title_en']}: {count:,} of the {items:,} items overlap with the training data; an "
                "improvement may be memory.",
            )


def _contaminated(task: TaskPair) -> int:
    return max(int(side.get("contaminated") or 0) for side in (task.before, task.after))


def _unchecked(both: Pair) -> Iterator[Notice]:
    sides = [side for task in both.tasks for side in (task.before, task.after)]
    if any("contaminated" in side and side["contaminated"] is None for side in sides):
        yield Notice(
            "contamination-unknown",
            "학습에 쓴 파일이 그대로 있지 않아, 평가 문항이 학습 데이터에 들었는지 보지 못했습니다.",
            "The file that was trained on is not here as it was: whether it holds the items could not be checked.",
        )


def _identities(both: Pair) -> Iterator[Notice]:
    before, after = both.before.identity, both.after.identity
    if before == after:
        yield Notice("same-model", "전과 후가 같은 모델입니다.", "Before and after are the same model.")
    other = sorted(key for key in {*before, *after} - {"adapter"} if before.get(key) != after.get(key))
    if other:
        names = ", ".join(other)
        yield Notice(
            "other-settings",
            f"어댑터 말고도 다른 설정이 있습니다: {names}. 차이가 어댑터 때문이라고만 할 수 없습니다.",
            f"More than the adapter differs ({names}): a difference may not be the adapter's.",
        )


def _collapsed(side: _Side) -> Iterator[Notice]:
    if side.about["kind"] != "choice":
        return
    found = metrics.collapse(side.lines, str(side.about["primary"]))
    if found is None:
        return
    share = f"{found['share'] * 100:.0f}%"
    said, said_en = _option(found["answer"], found["index"])
    particle = korean.particle(found["answer"] or "선택지", "을/를")
    f1 = f"{found['macro_f1']:.3f}", f"{found['constant_macro_f1']:.3f}"
    yield Notice(
        "collapse",
        f"{side.title}: 문항의 {share}에서 {said}{particle} 골랐습니다. 한 가지 답만 하는 모델도 점수는 나옵니다 "
        f"(매크로 F1 {f1[0]}, 한 가지 답만 하면 {f1[1]}).",
        f"{side.title_en}: {said_en} was chosen for {share} of the items; a constant answer looks like a score "
        f"(macro-F1 {f1[0]}, a constant answer's {f1[1]}).",
    )


def _same_text(side: _Side) -> Iterator[Notice]:
    texts = [" ".join(line["text"].split()) for line in side.lines if "text" in line and line["text"].strip()]
    if len(texts) < 8:
        return
    text, count = Counter(texts).most_common(1)[0]
    golds = Counter(gold for line in side.lines for gold in set(line.get("golds") or ()))
    share = count / len(texts)
    if share < SAME_TEXT or (golds and max(golds.values()) / len(side.lines) >= share - 0.1):
        return
    short = text if len(text) <= 40 else text[:39] + "…"
    some = len(texts) < len(side.lines)
    of, of_en = ("비지 않은 답", "answers that are not empty") if some else ("답", "answers")
    yield Notice(
        "collapse",
        f"{side.title}: {of}의 {share * 100:.0f}%가 똑같습니다 (‘{short}’).",
        f"{side.title_en}: {share * 100:.0f}% of the {of_en} are the same (“{short}”).",
    )


def _failed(side: _Side) -> Iterator[Notice]:
    failed = sum("error" in line for line in side.lines)
    if failed:
        total = len(side.lines)
        yield Notice(
            "judge-errors",
            f"{side.title}: {total}개 가운데 {failed}개를 채점하지 못했습니다. 0점으로 치지 않고, 짝에서 뺐습니다.",
            f"{side.title_en}: {failed} of {total} answers could not be judged; they are left out of the pairs, "
            "not counted as zero.",
        )


def _empty(side: _Side) -> Iterator[Notice]:
    empty = sum("text" in line and not line["text"].strip() for line in side.lines)
    if empty:
        total = len(side.lines)
        yield Notice(
            "empty",
            f"{side.title}: {total}개 가운데 {empty}개가 빈 답입니다.",
            f"{side.title_en}: {empty} of {total} answers are empty.",
        )


def _cut(side: _Side) -> Iterator[Notice]:
    # whether an answer ends by itself is measured and shown for held-out questions; elsewhere it spoils the score
    if side.about["kind"] != "answer":
        return
    total = len(side.lines)
    cut = sum(not line.get("stopped", True) for line in side.lines)
    if cut > CUT * total:
        yield Notice(
            "cut",
            f"{side.title}: {total}개 가운데 {cut}개가 길이 제한에서 끊겼습니다. 점수가 낮아졌을 수 있습니다.",
            f"{side.title_en}: {cut} of {total} answers were cut by the length limit; their scores may suffer.",
        )


def _cut_left(side: _Side) -> Iterator[Notice]:
    cut = sum("cut_left" in line for line in side.lines)
    if cut:
        total = len(side.lines)
        yield Notice(
            "cut-left",
            f"{side.title}: {total}개 가운데 {cut}개의 질문이 너무 길어 앞을 잘랐습니다.",
            f"{side.title_en}: {cut} of {total} prompts were too long and lost their beginning.",
        )


def _depends(audit: Audit) -> Iterator[Notice]:
    if not audit.depends:
        return
    words = {
        "improved": ("나아짐", "improved"),
        "worse": ("나빠짐", "worse"),
        "no detectable change": ("변화 확인 안 됨", "no detectable change"),
    }
    one = ", ".join(f"{titles.of_measure(way.metric)[0]} {words[way.verdict][0]}" for way in audit.scorings)
    two = ", ".join(f"{titles.of_measure(way.metric)[1]} {words[way.verdict][1]}" for way in audit.scorings)
    yield Notice(
        "scoring",
        f"{audit.title}: 선택지에 점수를 매기는 방법에 따라 판정이 다릅니다 ({one}).",
        f"{audit.title_en}: the verdict depends on how the choices are scored ({two}).",
    )


def _leaning(side: _Side) -> Iterator[Notice]:
    if side.about["kind"] != "choice" or metrics.collapse(side.lines, str(side.about["primary"])) is not None:
        return
    found = leaning(side.lines, str(side.about["primary"]))
    if found is None:
        return
    index, picked, gold = found
    texts = {line["choices"][index].strip() for line in side.lines if index < len(line["choices"])}
    said, said_en = _option(texts.pop() if len(texts) == 1 else None, index)
    yield Notice(
        "leaning",
        f"{side.title}: {said} 쪽으로 기웁니다. 정답은 {gold * 100:.0f}%인데 {picked * 100:.0f}%에서 골랐습니다.",
        f"{side.title_en}: leans to {said_en}: right for {gold * 100:.0f}% of the items, chosen for "
        f"{picked * 100:.0f}%.",
    )


def leaning(lines: Sequence[Line], metric: str) -> tuple[int, float, float] | None:
    """The option that is chosen clearly more often than it is right.

    For each option, the items where it is picked wrongly against those where it is missed: McNemar's exact test,
    Holm over the options. Items are their own controls, so a model that is right is not called biased.

    Returns:
        (index, share of picks, share of right answers) of the largest excess, when it is at least ten points and
        p < 0.01; else None.
    """
    pick, gold = metrics.picks(lines, metric), metrics.answers(lines)
    options = np.union1d(pick, gold)
    over = [int(((pick == one) & (gold != one)).sum()) for one in options]
    under = [int(((pick != one) & (gold == one)).sum()) for one in options]
    p = stats.holm([stats.mcnemar(a, b) for a, b in zip(under, over, strict=True)])
    place = int(np.argmax(np.asarray(over) - np.asarray(under)))
    excess = (over[place] - under[place]) / len(lines)
    if excess < LEAN or p[place] >= LEAN_ALPHA:
        return None
    index = int(options[place])
    return index, float((pick == index).mean()), float((gold == index).mean())


def _option(text: str | None, index: int) -> tuple[str, str]:
    return (f"‘{text}’", f"“{text}”") if text else (f"{index + 1}번 선택지", f"choice {index + 1}")
