"""Each measure as an `evaluate.Metric`, built without the network: `metric("korquad_f1").compute(...)`.

`evaluate.load` fetches a metric's code; this one is here. The library is optional (`pip install evaluate`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from koalpaca_tune.errors import KoalpacaError, did_you_mean
from koalpaca_tune.measures.registry import ANSWER, REFERENCE, TITLES


def metric(name: str) -> Any:
    """An `evaluate.Metric` of one measure.

    `compute(predictions=[...], references=[...])` gives the mean under the measure's name. References are one
    text, or a list of texts, for each prediction. For a measure of an answer alone they are the questions;
    `undecided` then says how many answers decided nothing, and the mean is over the others (None when there are
    none).

    Raises:
        KoalpacaError: no such measure (measure-unknown), or `evaluate` is not installed (evaluate-missing).
    """
    if name not in TITLES:
        raise KoalpacaError(
            "measure-unknown", f"there is no measure '{name}'.", fix=did_you_mean(name, list(TITLES))
        )
    try:
        import evaluate
        from datasets import Features, List, Value
    except ImportError:
        raise KoalpacaError(
            "evaluate-missing", "the library 'evaluate' is not installed.", fix="pip install evaluate"
        ) from None

    class Measure(evaluate.Metric):  # type: ignore[misc]
        """One measure of `koalpaca_tune.measures`."""

        def _info(self) -> Any:
            text = Value("string")
            one = Features({"predictions": text, "references": text})
            several = Features({"predictions": text, "references": List(text)})
            return evaluate.MetricInfo(
                description=f"{TITLES[name][1]} (koalpaca_tune)",
                citation="",
                inputs_description="predictions: answers; references: golds, or questions.",
                features=[several, one] if name in REFERENCE else one,
            )

        def _compute(self, predictions: Sequence[str], references: Sequence[Any]) -> dict[str, Any]:
            return mean(name, predictions, references)

    # nothing is kept on disk, so that a run leaves no trace in the user's cache
    return Measure(config_name=name, keep_in_memory=True)


def mean(name: str, answers: Sequence[str], references: Sequence[str | Sequence[str]]) -> dict[str, Any]:
    """The mean of a measure over answers, as `compute` of its metric gives it.

    Args:
        name: a measure.
        answers: what was written.
        references: for each answer its golds (one text or several), or its question.
    """
    pairs = zip(answers, references, strict=True)
    if name in REFERENCE:
        values = [REFERENCE[name](answer, [gold] if isinstance(gold, str) else gold) for answer, gold in pairs]
        return {name: sum(values) / len(values)}
    decided = [value for answer, question in pairs if (value := ANSWER[name](answer, str(question))) is not None]
    return {
        name: sum(decided) / len(decided) if decided else None,
        "undecided": len(answers) - len(decided),
    }
