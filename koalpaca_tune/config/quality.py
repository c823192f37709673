"""Limits on what the quality signals measure; null or false: counted and reported, nothing is dropped."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from koalpaca_tune.config.check import Strict

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=0)]
Length = Annotated[int, Field(gt=0)]


class Quality(Strict):
    """Limits per record; a record beyond one of them goes to rejected.jsonl with the reason.

    By default only what is worthless for certain is dropped: garbled characters, loops, the question as answer, an
    answer without a letter.
    """

    min_question_chars: Length | None = Field(None, description="Fewest characters of a question.")
    min_answer_chars: Length | None = Field(None, description="Fewest characters of an answer.")
    max_answer_chars: Length | None = Field(None, description="Most characters of an answer.")
    max_length_ratio: Annotated[float, Field(gt=0.0)] | None = Field(
        None, description="An answer at most this many times as long as its question and context."
    )
    drop_empty: bool = Field(True, description="Answers of dots and dashes only.")
    min_hangul: Share | None = Field(None, description="Smallest share of Hangul among an answer's letters.")
    min_question_hangul: Share | None = Field(None, description="Smallest share of Hangul in a question.")
    max_garbled: Count | None = Field(0, description="Most runs of characters lost or decoded wrongly.")
    max_broken_jamo: Count | None = Field(None, description="Most words with a stray consonant or vowel inside.")
    max_rare_syllables: Count | None = Field(None, description="Most different syllables outside KS X 1001.")
    max_hanja: Count | None = Field(None, description="Most Hanja outside brackets and quotes.")
    max_foreign_hanja: Count | None = Field(
        None, description="Most Chinese or Japanese characters not used in Korea."
    )
    max_kana: Count | None = Field(None, description="Most kana outside brackets and quotes.")
    max_other_scripts: Count | None = Field(None, description="Most letters of Cyrillic, Arabic, Thai and so on.")
    max_repetition: Share | None = Field(0.8, description="Largest share of repeated character 4-grams.")
    max_repeated_sentences: Share | None = Field(None, description="Largest share of sentences said before.")
    max_echo: Share | None = Field(0.99, description="Largest likeness of an answer to its question; 1: the same.")
    drop_truncated: bool = Field(False, description="Answers that stop before their end.")
    drop_mixed_speech: bool = Field(False, description="Answers that mix 존댓말 and 반말.")
    max_particle_errors: Count | None = Field(None, description="Most particles that do not fit (나무은, 사람를).")
    max_english_share: Share | None = Field(None, description="Largest share of Latin letters in a Korean answer.")
    max_english_words: Count | None = Field(None, description="Longest run of English words in a Korean answer.")
    drop_wrong_language: bool = Field(False, description="Answers in another language than the question, unasked.")
    max_literal_phrases: Count | None = Field(None, description="Most phrases of literal translation (번역투).")
    max_placeholders: Count | None = Field(None, description="Most remains of a prompt format (<noinput>, 출력:).")
    drop_refusal: bool = Field(False, description="Answers that decline, or speak as a language model.")
    drop_missing_input: bool = Field(False, description="Questions about 'the text below' without one.")
    max_lost_numbers: Share | None = Field(None, description="Largest share of numbers lost in a rewriting.")
    max_new_numbers: Share | None = Field(
        None, description="Largest share of numbers that the input does not have."
    )
    max_lost_code: Count | None = Field(None, description="Most code blocks lost in a rewriting.")


class Speech(Strict):
    """What to do with the speech level (존댓말, 반말) of answers."""

    keep: list[Literal["하십시오체", "해요체", "해체", "해라체"]] | None = Field(
        None, min_length=1, description="Levels that an answer may have; null: all."
    )
    label: bool = Field(False, description="Write each answer's level into the system turn.")
