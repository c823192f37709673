"""What a licence asks of those who train on a set, as far as its name says it.

Only names whose text is well known are read: the Creative Commons family by its letters, and a few
permissive ones. Everything else is unknown, and said to be. None of this is legal advice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from koalpaca_tune.config.check import Strict

Flag = bool | Literal["unknown"]
"""Whether a condition holds; "unknown" where nobody could check it."""

UNKNOWN = "unknown"


class Said(Strict):
    """One sentence for people, in two languages."""

    ko: str = Field(description="In Korean.")
    en: str = Field(description="In English.")


@dataclass(frozen=True, slots=True)
class Terms:
    """The conditions of one licence.

    Attributes:
        noncommercial: commercial use is not allowed.
        sharealike: what is made from the set must come under the same licence.
        noderivatives: changed copies may not be passed on.
        obligations: the same and the rest, as sentences.
    """

    noncommercial: Flag
    sharealike: Flag
    noderivatives: Flag
    obligations: tuple[Said, ...]


_CC = re.compile(r"CC-(BY(?:-NC)?(?:-SA|-ND)?)(?:-[0-9]\.[0-9](?:-[A-Z]{2,3})?)?")
_CONDITIONS = {
    "BY": Said(
        ko="만든 이와 출처, 라이선스를 밝히고 바꾼 것이 있으면 알립니다.",
        en="Name the makers, the source and the licence, and say what was changed.",
    ),
    "NC": Said(ko="상업적으로 쓸 수 없습니다.", en="No commercial use."),
    "SA": Said(
        ko="바꾸어 나누는 것은 같은 라이선스로 내야 합니다.",
        en="What is adapted from it is shared under the same licence.",
    ),
    "ND": Said(ko="바꾼 것을 다른 사람에게 나누어 줄 수 없습니다.", en="Changed copies may not be passed on."),
}
_NOTICE = Said(
    ko="데이터를 나눌 때 저작권 표시와 허가문을 함께 둡니다.",
    en="Keep the copyright notice and the licence text with copies of the data.",
)
_FREE: dict[str, tuple[Said, ...]] = {
    "MIT": (_NOTICE,),
    "APACHE-2.0": (_NOTICE,),
    "BSD-2-CLAUSE": (_NOTICE,),
    "BSD-3-CLAUSE": (_NOTICE,),
    "ODC-BY-1.0": (_CONDITIONS["BY"],),
    "CC0-1.0": (),
    "PUBLIC-DOMAIN": (),
}
_CHECK = Said(
    ko="라이선스를 확인하지 못했습니다. 쓰기 전에 데이터 카드와 권리자에게 확인하세요.",
    en="No licence could be verified. Ask the data card and the rights holder before use.",
)


def terms(licence: str | None) -> Terms:
    """The conditions of a licence, by its SPDX name or as the Hub spells it (in any case)."""
    name = "-".join((licence or "").upper().split())
    if found := _CC.fullmatch(name):
        letters = found[1].split("-")
        return Terms(
            "NC" in letters, "SA" in letters, "ND" in letters, tuple(_CONDITIONS[letter] for letter in letters)
        )
    if name in _FREE:
        return Terms(False, False, False, _FREE[name])
    return Terms("unknown", "unknown", "unknown", (_CHECK,))
