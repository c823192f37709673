"""The limits of a recipe, held against what was measured."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from koalpaca_tune.config.quality import Quality
from koalpaca_tune.data.quality.signals import Signals
from koalpaca_tune.errors import Problem

Explain = Callable[[Any, Any, str], Problem]
"""From the value, the limit and the words that set the signal off (in brackets, or empty) to the problem."""

LIMITS: dict[str, tuple[str, Explain]] = {
    "drop_empty": ("empty", lambda value, limit, words: Problem("quality-empty", "the answer has no letter.")),
    "max_garbled": (
        "garbled",
        lambda value, limit, words: Problem(
            "quality-garbled", f"{value} runs of lost or wrongly decoded characters{words}, at most {limit}."
        ),
    ),
    "max_repetition": (
        "repetition",
        lambda value, limit, words: Problem(
            "quality-repetition", f"{value:.0%} of the answer's 4-grams are repeated, at most {limit:.0%}."
        ),
    ),
    "max_echo": (
        "echo",
        lambda value, limit, words: Problem(
            "quality-echo", f"the answer is the question again (likeness {value:.2f}, at most {limit:.2f})."
        ),
    ),
    "min_question_chars": (
        "question-chars",
        lambda value, limit, words: Problem(
            "quality-question-short", f"the question has {value} characters, at least {limit}."
        ),
    ),
    "min_answer_chars": (
        "shortest-answer-chars",
        lambda value, limit, words: Problem(
            "quality-answer-short", f"the answer has {value} characters, at least {limit}."
        ),
    ),
    "max_answer_chars": (
        "answer-chars",
        lambda value, limit, words: Problem(
            "quality-answer-long", f"the answer has {value:,} characters, at most {limit:,}."
        ),
    ),
    "max_length_ratio": (
        "length-ratio",
        lambda value, limit, words: Problem(
            "quality-length-ratio", f"the answer is {value:.1f} times as long as the question, at most {limit:g}."
        ),
    ),
    "min_hangul": (
        "hangul",
        lambda value, limit, words: Problem(
            "quality-hangul", f"{value:.0%} of the answer's letters are Hangul, at least {limit:.0%}."
        ),
    ),
    "min_question_hangul": (
        "question-hangul",
        lambda value, limit, words: Problem(
            "quality-question-hangul", f"{value:.0%} of the question's letters are Hangul, at least {limit:.0%}."
        ),
    ),
    "max_broken_jamo": (
        "broken-jamo",
        lambda value, limit, words: Problem(
            "quality-broken-jamo", f"{value} words with a stray jamo inside{words}, at most {limit}."
        ),
    ),
    "max_rare_syllables": (
        "rare-syllables",
        lambda value, limit, words: Problem(
            "quality-rare-syllables", f"{value} syllables outside KS X 1001{words}, at most {limit}."
        ),
    ),
    "max_hanja": (
        "hanja",
        lambda value, limit, words: Problem("quality-hanja", f"{value} leaked Hanja{words}, at most {limit}."),
    ),
    "max_foreign_hanja": (
        "foreign-hanja",
        lambda value, limit, words: Problem(
            "quality-foreign-hanja", f"{value} Chinese or Japanese characters{words}, at most {limit}."
        ),
    ),
    "max_kana": (
        "kana",
        lambda value, limit, words: Problem("quality-kana", f"{value} leaked kana{words}, at most {limit}."),
    ),
    "max_other_scripts": (
        "other-scripts",
        lambda value, limit, words: Problem(
            "quality-other-scripts", f"{value} letters of other scripts{words}, at most {limit}."
        ),
    ),
    "max_repeated_sentences": (
        "repeated-sentences",
        lambda value, limit, words: Problem(
            "quality-repeated-sentences", f"{value:.0%} of the sentences are repeated{words}, at most {limit:.0%}."
        ),
    ),
    "drop_truncated": (
        "truncated",
        lambda value, limit, words: Problem("quality-truncated", f"the answer stops before its end{words}."),
    ),
    "drop_mixed_speech": (
        "mixed-speech",
        lambda value, limit, words: Problem("quality-mixed-speech", f"the answer mixes 존댓말 and 반말{words}."),
    ),
    "max_particle_errors": (
        "particle-errors",
        lambda value, limit, words: Problem(
            "quality-particle-errors", f"{value} particles do not fit{words}, at most {limit}."
        ),
    ),
    "max_english_share": (
        "english-share",
        lambda value, limit, words: Problem(
            "quality-english-share", f"{value:.0%} of the Korean answer is Latin letters, at most {limit:.0%}."
        ),
    ),
    "max_english_words": (
        "english-words",
        lambda value, limit, words: Problem(
            "quality-english-words", f"{value} English words in a row{words}, at most {limit}."
        ),
    ),
    "drop_wrong_language": (
        "wrong-language",
        lambda value, limit, words: Problem(
            "quality-wrong-language", f"question and answer are in different languages{words}."
        ),
    ),
    "max_literal_phrases": (
        "literal-phrases",
        lambda value, limit, words: Problem(
            "quality-literal-phrases", f"{value} phrases of literal translation{words}, at most {limit}."
        ),
    ),
    "max_placeholders": (
        "placeholders",
        lambda value, limit, words: Problem(
            "quality-placeholders", f"{value} remains of a prompt format{words}, at most {limit}."
        ),
    ),
    "drop_refusal": (
        "refusal",
        lambda value, limit, words: Problem(
            "quality-refusal", f"the answer declines, or speaks as a language model{words}."
        ),
    ),
    "drop_missing_input": (
        "missing-input",
        lambda value, limit, words: Problem(
            "quality-missing-input", f"the question speaks of material that is not there{words}."
        ),
    ),
    "max_lost_numbers": (
        "lost-numbers",
        lambda value, limit, words: Problem(
            "quality-lost-numbers", f"{value:.0%} of the input's numbers are lost{words}, at most {limit:.0%}."
        ),
    ),
    "max_new_numbers": (
        "new-numbers",
        lambda value, limit, words: Problem(
            "quality-new-numbers", f"{value:.0%} of the numbers are not in the input{words}, at most {limit:.0%}."
        ),
    ),
    "max_lost_code": (
        "lost-code",
        lambda value, limit, words: Problem("quality-lost-code", f"{value} code blocks are lost, at most {limit}."),
    ),
}
"""Key of `quality` in a recipe -> its signal, and how a record beyond it is explained; the first one counts."""


def beyond(signals: Signals, limits: Quality) -> Problem | None:
    """The first limit that a record exceeds; None when it exceeds none."""
    for key, limit in _active(limits):
        name, explain = LIMITS[key]
        value: Any = signals.values[name]
        if value is None:
            continue
        if value < limit if key.startswith("min_") else value if limit is True else value > limit:
            words = signals.examples.get(name)
            return explain(value, limit, f" ({words})" if words else "")
    return None


@cache
def _active(limits: Quality) -> tuple[tuple[str, Any], ...]:
    """The limits that are set; a count of 0 is one."""
    chosen = ((key, getattr(limits, key)) for key in LIMITS)
    return tuple((key, limit) for key, limit in chosen if limit is not None and limit is not False)
