"""The 21 instructions by id: which arguments each takes, and its rule."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Literal

from koalpaca_tune.instructions import formats, keywords, language, lengths, text
from koalpaca_tune.instructions.lengths import Relation, compared

Kind = Literal["text", "texts", "count", "relation", "language"]
Rule = Callable[..., bool]
"""(answer in NFC, the arguments in the order of their names) -> whether it was followed."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One type: its arguments, named as in the data set, with what each holds; and its rule."""

    arguments: Mapping[str, Kind]
    holds: Rule


def _at_least(counted: Callable[[str], int]) -> Rule:
    return lambda answer, count: counted(answer) >= count


def _exactly(counted: Callable[[str], int]) -> Rule:
    return lambda answer, count: counted(answer) == count


def _related(counted: Callable[[str], int]) -> Rule:
    return lambda answer, threshold, relation: compared(counted(answer), relation, threshold)


def _frequency(answer: str, keyword: str, frequency: int, relation: Relation) -> bool:
    return compared(keywords.occurrences(answer, keyword), relation, frequency)


def _sections(answer: str, mark: str, count: int) -> bool:
    return formats.sections(answer, mark) >= count


INSTRUCTIONS: dict[str, Instruction] = {
    "keywords:existence": Instruction({"keywords": "texts"}, keywords.has_all),
    "keywords:frequency": Instruction(
        {"keyword": "text", "frequency": "count", "relation": "relation"}, _frequency
    ),
    "keywords:forbidden_words": Instruction({"forbidden_words": "texts"}, keywords.uses_none),
    "language:response_language": Instruction({"language": "language"}, language.is_in),
    "length_constraints:number_sentences": Instruction(
        {"num_sentences": "count", "relation": "relation"}, _related(text.sentences)
    ),
    "length_constraints:number_words": Instruction(
        {"num_words": "count", "relation": "relation"}, _related(text.words)
    ),
    "length_constraints:number_paragraphs": Instruction({"num_paragraphs": "count"}, lengths.divided),
    "length_constraints:nth_paragraph_first_word": Instruction(
        {"num_paragraphs": "count", "nth_paragraph": "count", "first_word": "text"}, lengths.nth_begins
    ),
    "detectable_content:number_placeholders": Instruction(
        {"num_placeholders": "count"}, _at_least(formats.placeholders)
    ),
    "detectable_content:postscript": Instruction({"postscript_marker": "text"}, formats.has_postscript),
    "detectable_format:number_bullet_lists": Instruction({"num_bullets": "count"}, _exactly(formats.bullets)),
    "detectable_format:number_highlighted_sections": Instruction(
        {"num_highlights": "count"}, _at_least(formats.highlights)
    ),
    # spelt so in the data set
    "detectable_format:multiple_sections": Instruction(
        {"section_spliter": "text", "num_sections": "count"}, _sections
    ),
    "detectable_format:constrained_response": Instruction({}, formats.is_one_choice),
    "detectable_format:json_format": Instruction({}, formats.is_json),
    "detectable_format:title": Instruction({}, formats.has_title),
    "combination:two_responses": Instruction({}, formats.two_responses),
    "combination:repeat_prompt": Instruction({"prompt_to_repeat": "text"}, formats.repeats),
    "startend:end_checker": Instruction({"end_phrase": "text"}, formats.ends_with),
    "startend:quotation": Instruction({}, formats.is_quoted),
    "punctuation:no_comma": Instruction({}, formats.has_no_comma),
}

LETTERS = (
    "keywords:letter_frequency",
    "change_case:capital_word_frequency",
    "change_case:english_capital",
    "change_case:english_lowercase",
)
"""Types of the English set that the Korean one leaves out: they count Latin letters or capitals."""

BY_PACKAGE: dict[str, tuple[str, ...]] = {
    "language:response_language": ("langdetect",),
    "length_constraints:number_sentences": ("kiwipiepy",),
}
"""Type -> packages that have a part in whether it was followed."""


def decided_by(ids: Iterable[str]) -> tuple[str, ...]:
    """`package version` of the libraries that some instructions' checkers ask, for what a result records."""
    packages = {package for id in ids for package in BY_PACKAGE.get(id, ())}
    return tuple(f"{package} {version(package)}" for package in sorted(packages))
