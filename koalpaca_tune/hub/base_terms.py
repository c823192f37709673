"""The licence of a base and what it asks of those who publish what was made with it.

Only what was looked up is here; for any other base the publisher says it, or the card says that it is not known.
None of this is legal advice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from koalpaca_tune.data.terms import UNKNOWN, Flag, Said, terms
from koalpaca_tune.models import sources

KNOWN: Mapping[str, str] = {
    sources.EMBEDDED: "cc-by-sa-4.0",
    "EleutherAI/polyglot-ko-1.3b": "apache-2.0",
    "EleutherAI/polyglot-ko-3.8b": "apache-2.0",
    "EleutherAI/polyglot-ko-5.8b": "apache-2.0",
    "EleutherAI/polyglot-ko-12.8b": "apache-2.0",
    "meta-llama/Llama-2-7b-hf": "llama2",
    "meta-llama/Meta-Llama-3-8B": "llama3",
}
"""Licences of bases, as their own pages spell them."""

_LICENCE = Said(
    ko="나눌 때 라이선스 전문과 그 라이선스가 정한 저작권 고지(NOTICE)를 함께 둡니다.",
    en="Pass the licence's text on with it, and the notice (NOTICE) that the licence words.",
)
_USERS = Said(
    ko="사용자가 한 달에 7억 명을 넘는 곳은 Meta의 허가를 따로 받아야 합니다.",
    en="Whoever has more than 700 million users a month needs a licence of Meta's own.",
)
_META: Mapping[str, tuple[Said, ...]] = {
    "LLAMA2": (_LICENCE, _USERS),
    "LLAMA3": (
        _LICENCE,
        Said(
            ko="이름은 'Llama 3'으로 시작하고, 눈에 띄는 곳에 'Built with Meta Llama 3'이라고 적습니다.",
            en="Its name begins with 'Llama 3', and 'Built with Meta Llama 3' stands where it is seen.",
        ),
        _USERS,
    ),
}
_CHECK = Said(
    ko="기반 모델의 라이선스를 확인하지 못했습니다. 모델 페이지에서 보고 --base-license로 적으세요.",
    en="The licence of the base could not be verified. Read it on the model's page.",
)


class BaseTerms(NamedTuple):
    """A base's licence.

    Attributes:
        licence: as the Hub spells it, or 'unknown'.
        noncommercial, sharealike, noderivatives: as far as its name tells.
        obligations: what it asks, in words.
    """

    licence: str
    noncommercial: Flag
    sharealike: Flag
    noderivatives: Flag
    obligations: tuple[Said, ...]


def of(base: str, given: str | None) -> BaseTerms:
    """The licence of a base: as given, else as known.

    Args:
        base: its name as a record has it.
        given: by the publisher, or None.
    """
    licence = given or KNOWN.get(base)
    if licence is None:
        return BaseTerms(UNKNOWN, "unknown", "unknown", "unknown", (_CHECK,))
    meta = _META.get(licence.upper().replace("-", ""))
    found = terms(licence)
    return BaseTerms(
        licence,
        False if meta else found.noncommercial,
        False if meta else found.sharealike,
        False if meta else found.noderivatives,
        meta or found.obligations,
    )


def entry(base: str, found: BaseTerms) -> dict[str, Any]:
    """The base as one of the sources that `data.licences.conflicts` looks at."""
    return {"name": base, **found._asdict()}
