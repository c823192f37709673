"""Personal data, masked by placeholders in Korean: [주민등록번호], [전화번호 2].

Only patterns with a structure of their own are looked for: a name is not found. The same value has the same
placeholder through a whole conversation, so that a dialogue stays coherent. No value is kept or written
anywhere; counts are all that leaves.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from koalpaca_tune.config.cleaning import KINDS, Kind
from koalpaca_tune.data.cleaning import addresses
from koalpaca_tune.records import Conversation, Turn

PLACEHOLDERS: dict[Kind, str] = {
    "resident-number": "주민등록번호",
    "phone": "전화번호",
    "email": "이메일",
    "card": "카드번호",
    "account": "계좌번호",
    "address": "주소",
}
"""Kind -> what stands in the brackets; the second different value of a conversation is `[전화번호 2]`."""

DESCRIPTIONS: dict[Kind, str] = {
    "resident-number": "주민등록번호·외국인등록번호",
    "phone": "개인·일반 전화번호(1588 같은 대표번호는 그대로)",
    "email": "이메일 주소",
    "card": "신용·체크카드 번호",
    "account": "은행 계좌번호",
    "address": "건물 번호나 동·호까지 적힌 집 주소",
}
"""Kind -> Korean."""

DESCRIPTIONS_EN: dict[Kind, str] = {
    "resident-number": "resident and alien registration numbers",
    "phone": "telephone numbers (service numbers such as 1588-xxxx stay)",
    "email": "e-mail addresses",
    "card": "payment card numbers",
    "account": "bank account numbers",
    "address": "postal addresses down to the building or flat",
}
"""Kind -> English."""


@dataclass(frozen=True, slots=True)
class Masked:
    """A conversation without the personal data that was found, and how many values of each kind that was."""

    conversation: Conversation
    counts: Counter[Kind]


def mask(conversation: Conversation, kinds: Sequence[Kind] = KINDS) -> Masked:
    """Masks every turn, context and the answer that lost; a second time changes nothing."""
    texts = _texts(conversation)
    if not any(_PERHAPS.search(text) for text in texts):
        return Masked(conversation, Counter())
    names = _Names(texts)
    counts: Counter[Kind] = Counter()

    def hide(text: str) -> str:
        for kind in FINDERS:
            if kind in kinds and _PERHAPS.search(text):
                text = _hide(text, kind, names, counts)
        return text

    turns = tuple(
        Turn(turn.role, hide(turn.content), hide(turn.context) if turn.context is not None else None)
        for turn in conversation.turns
    )
    lost = hide(conversation.dispreferred) if conversation.dispreferred is not None else None
    if not counts:
        return Masked(conversation, counts)
    return Masked(replace(conversation, turns=turns, dispreferred=lost), counts)


def _texts(conversation: Conversation) -> list[str]:
    texts = [turn.content for turn in conversation.turns]
    texts += [turn.context for turn in conversation.turns if turn.context is not None]
    if conversation.dispreferred is not None:
        texts.append(conversation.dispreferred)
    return texts


class _Names:
    """The placeholders of one conversation: the same value, the same name. Gone with the conversation."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts
        self._known: dict[tuple[Kind, str], str] = {}
        self._last: dict[Kind, int] = {}

    def name(self, kind: Kind, value: str) -> str:
        """The placeholder for a value."""
        key = (kind, _normal(kind, value))
        if key not in self._known:
            if kind not in self._last:
                self._last[kind] = self._already(kind)
            self._last[kind] += 1
            number = f" {self._last[kind]}" if self._last[kind] > 1 else ""
            self._known[key] = f"[{PLACEHOLDERS[kind]}{number}]"
        return self._known[key]

    def _already(self, kind: Kind) -> int:
        """The highest number among placeholders that an earlier run left."""
        there = re.compile(rf"\[{PLACEHOLDERS[kind]}(?: ([0-9]{{1,4}}))?\]")
        return max((int(match[1] or 1) for text in self._texts for match in there.finditer(text)), default=0)


def _normal(kind: Kind, value: str) -> str:
    if kind == "email":
        return value.lower()
    if kind == "address":
        return "".join(value.split())
    digits = "".join(char for char in value if char.isdigit() or char in "*●xX")
    return "0" + digits[2:].removeprefix("0") if kind == "phone" and digits.startswith("82") else digits


def _hide(text: str, kind: Kind, names: _Names, counts: Counter[Kind]) -> str:
    pieces: list[str] = []
    at = 0
    for start, end in FINDERS[kind](text):
        pieces += (text[at:start], names.name(kind, text[start:end]))
        counts[kind] += 1
        at = end
    return "".join((*pieces, text[at:])) if at else text


# a long enough number, an e-mail address, or a number after what ends a street, a village or a house
_PERHAPS = re.compile("[0-9](?:[^0-9]{0,3}[0-9]){6}|@|[로길동리가읍면][ ]{0,2}(?:지하 ?|산 ?)?[0-9]")

_EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9_][A-Za-z0-9._%+-]{0,63}@"
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,4}[A-Za-z]{2,12}(?![A-Za-z0-9@])"
)
# RFC 2606: made for examples; git@ is a machine
_NOT_PERSONAL = re.compile(r"@(?:[a-z0-9-]+\.)*example\.(?:com|net|org|kr|co\.kr)$|^git@", re.IGNORECASE)


def emails(text: str) -> Iterator[tuple[int, int]]:
    """E-mail addresses, but for those of example.com (RFC 2606)."""
    if "@" in text:
        for match in _EMAIL.finditer(text):
            if not _NOT_PERSONAL.search(match[0]):
                yield match.span()


_RESIDENT = re.compile(
    r"(?<![0-9A-Za-z.-])([0-9]{2})(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])"
    r"(?P<mark> ?[-–—] ?| )?(?P<rest>[0-9]{7}|[1-8][*●xX]{6})(?![0-9A-Za-z*]|[.-][0-9])"
)
_DAYS = (0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_THIS_CENTURY = 35
_WEIGHTS = (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5)


def resident_numbers(text: str) -> Iterator[tuple[int, int]]:
    """주민등록번호 and 외국인등록번호: a date of birth and a digit that fits its century.

    Written with a hyphen that is enough, since numbers given out after October 2020 have no check digit
    (주민등록법 시행규칙); without one, the check digit has to be right too.
    """
    for match in _RESIDENT.finditer(text):
        year, month, day, rest = int(match[1]), int(match[2]), int(match[3]), match["rest"]
        if rest[0] not in "12345678" or day > _DAYS[month]:
            continue
        if rest[0] in "3478" and year > _THIS_CENTURY:
            continue
        if "-" in (match["mark"] or "").replace("–", "-").replace("—", "-") or _checked(match[0]):
            yield match.span()


def _checked(number: str) -> bool:
    digits = [int(char) for char in number if char.isdigit()]
    if len(digits) != 13:
        return False
    check = 11 - sum(digit * weight for digit, weight in zip(digits, _WEIGHTS, strict=False)) % 11
    foreign = digits[6] in (5, 6, 7, 8)
    return digits[12] in ({check % 10, (check + 2) % 10} if foreign else {check % 10})


_CARD = re.compile(
    r"(?<![0-9A-Za-z.,-])(?:(?:[2-6]|9)[0-9]{3}(?P<mark>[ -]?)[0-9]{4}(?P=mark)[0-9]{4}(?P=mark)[0-9]{4}"
    r"|3[47][0-9]{2}(?P<amex>[ -]?)[0-9]{6}(?P=amex)[0-9]{5}"
    r"|3[068][0-9]{2}(?P<diners>[ -]?)[0-9]{6}(?P=diners)[0-9]{4})"
    r"(?![0-9A-Za-z]|[.-][0-9])"
)
# Visa, Mastercard (two ranges), JCB, Amex, Diners, UnionPay, Discover, and 9 for domestic Korean cards
_ISSUER = re.compile("4|5[1-5]|2(?:22[1-9]|2[3-9]|[3-6]|7[01]|720)|35|3[47]|3[068]|62|60|65|9[0-9]")


def cards(text: str) -> Iterator[tuple[int, int]]:
    """Card numbers: an issuer's prefix and length, and Luhn's check digit (ISO/IEC 7812)."""
    for match in _CARD.finditer(text):
        digits = [int(char) for char in match[0] if char.isdigit()]
        doubled = [digit * 2 - 9 * (digit > 4) for digit in digits[-2::-2]]
        if (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0 and _ISSUER.match(match[0]):
            yield match.span()


_AREA = "2|3[1-3]|4[1-4]|5[1-5]|6[1-4]|70"
_PHONE = re.compile(
    rf"(?<![0-9A-Za-z.,])(?<![0-9]-)(?:"
    # mobile: with the country's code or without, in any spacing
    rf"(?:\+ ?82[-. )]{{0,2}}\(?0?\)?|\(?0)1[016789]\)?(?P<mobile>[-.·)–—]| ?[-–—] ?| |)"
    r"[0-9]{3,4}(?:(?P=mobile)|[-. ])[0-9]{4}"
    rf"|\+ ?82[-. )]{{0,2}}\(?0?\)?(?:{_AREA})[-. )]{{1,2}}[0-9]{{3,4}}[-. ][0-9]{{4}}"
    # a line at home or at work, internet (070), 평생번호 (050x): only with marks between the parts
    rf"|\(0(?:{_AREA}|50[2-8])\) ?[0-9]{{3,4}}[-. ][0-9]{{4}}"
    rf"|0(?:{_AREA}|50[2-8])(?P<line>[-.)–—]| ?[-–—] ?)[0-9]{{3,4}} ?[-.–—] ?[0-9]{{4}}"
    r")(?![0-9A-Za-z]|[-.][0-9])"
)
_OLD_MOBILE = re.compile("01[16789][0-9]{7}")


def phones(text: str) -> Iterator[tuple[int, int]]:
    """Mobile and land lines. Service numbers (15xx, 16xx, 18xx, 080, 060) are nobody's and stay."""
    for match in _PHONE.finditer(text):
        # ten digits in a row that begin with 011 are any number; eleven with 010 are a telephone
        if not _OLD_MOBILE.fullmatch(match[0]):
            yield match.span()


_ACCOUNT = re.compile(
    r"(?<![0-9A-Za-z.,-])(?:[0-9]{2,6}(?:-[0-9]{2,7}){1,2}(?:-[0-9]{1,3})?|[0-9]{10,14})(?![0-9A-Za-z]|[.,-][0-9])"
)
_BANK = re.compile(
    r"계좌|입금|송금|이체|예금주|통장|은행|뱅크|농협|축협|새마을금고|신협|수협|우체국|카뱅|저축은행|환불"
)
_SHORT_BANK = re.compile(
    r"(?<![가-힣A-Za-z])"
    r"(?:국민|신한|우리|하나|기업|제일|부산|대구|광주|전북|경남|카카오|토스|케이|새마을|KB|NH|IBK|SC)[:：,]? ?$"
)
_WORD_BEFORE = re.compile(
    r"(?:계좌(?:번호)?|은행|뱅크|농협|새마을금고|신협|수협|우체국|카뱅)[은는이가:：(\[ ]{0,4}$"
)
_OTHER_NUMBER = re.compile(
    "사업자|등록번호|전화|연락처|팩스|FAX|TEL|주문|송장|운송장|법인|고객센터|사건|접수", re.IGNORECASE
)
_BUSINESS = re.compile("[0-9]{3}-[0-9]{2}-[0-9]{5}")
_NEAR = 24


def accounts(text: str) -> Iterator[tuple[int, int]]:
    """Numbers of 10 to 14 digits beside the word for a bank or an account."""
    for match in _ACCOUNT.finditer(text):
        number = match[0]
        digits = sum(char.isdigit() for char in number)
        before = text[max(0, match.start() - _NEAR) : match.start()]
        after = text[match.end() : match.end() + _NEAR // 2]
        near = before.rpartition("\n")[2] + "|" + after.partition("\n")[0]
        if (
            not 10 <= digits <= 14
            or not (_BANK.search(near) or _SHORT_BANK.search(before))
            or _OTHER_NUMBER.search(near)
        ):
            continue
        if "-" not in number and not _WORD_BEFORE.search(before):
            continue
        if _BUSINESS.fullmatch(number) and "계좌" not in near:
            continue
        if number.startswith("0") and _PHONE.fullmatch(number):
            continue
        yield match.span()


FINDERS: dict[Kind, Callable[[str], Iterator[tuple[int, int]]]] = {
    "email": emails,
    "resident-number": resident_numbers,
    "card": cards,
    "phone": phones,
    "account": accounts,
    "address": addresses.find,
}
"""Kind -> where it stands in a text, in order. The strictest patterns come first."""
