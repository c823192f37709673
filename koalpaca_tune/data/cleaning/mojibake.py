"""Text that was read in the wrong encoding, repaired where it can be proved; what is lost is named.

A repair is proved when the characters, put back into bytes, decode without an error as another encoding,
and what comes out is Korean of common syllables (or Western text and emoji where UTF-8 was read twice).
That what went in was not meant follows: one letter in 2,350 is common Hangul by chance far too rarely.

    UTF-8 read as Latin-1 or cp1252     ì•ˆë…•     repaired
    cp949 read as Latin-1 or cp1252     ¾È³ç       repaired
    UTF-8 read as cp949                 媛꾩떇     repaired where every byte survived (few texts)
    UTF-8 read as cp949, with losses    ?븞?뀞      named: `lost`
    U+FFFD read as cp949                占쏙옙     named: `lost`
"""

from __future__ import annotations

import re
import unicodedata

KS_X_1001 = "".join(
    bytes((lead, trail)).decode("euc-kr") for lead in range(0xB0, 0xC9) for trail in range(0xA1, 0xFF)
)
"""The 2,350 syllables of the old standard; others hardly occur in Korean text (3 in 10,000)."""

# the 600 most frequent in Wikipedia, film reviews and chats together: 97% of the syllables in each
COMMON = frozenset(
    "가각간갈감갑갔강갖같개객거건걸검겁것게겠겨격견결겼경계고곡곤골곳공과관광괜괴교구국군굴굿궁권귀규그극근글금급기긴길김깊까깝깨꺼께껴꼭꾸끌끝끼낌나난날남났낮내낸냈냐냥너널넘네녀년념노논놀농높놓누눈뉴느는"
    "늘능니닌님다단달담답당대더덕던데도독돈돌동돼됐되된될두둘뒤드득든들듯등디딩따딱딸때떠떤떨떻또뛰뜻라락란랄람랐랑래랜램량러런럼럽렇레렌려력련렸령례로록론료루류률르른를름리릭린릴림립링마막만많말맛망맞맡매"
    "맥맨맹머먹먼멋메며면명몇모목몰몸못묘무문물뭐뭔미민믿밀밋밌및바박밖반받발밝방배백버번벌범법베벽변별병보복본볼봄봉봐봤부북분불붙브블비빈빌빠빨뻔뿐쁘사산살삶삼상새색생서석선설섬섭성세센션소속손솔송쇼수숙"
    "순술쉬쉽슈스슨슬슴습승시식신실싫심십싱싶싸쌍써썸쓰씨씬아악안않알암압았앙앞애액야약양어억언얻얼엄업없엇었엉에엔엘여역연열염였영예오옥온올와완왔왕왜외요욕용우욱운울움웃워원월웠웨위유육윤율으은을음응의이"
    "익인일임입잇있잊자작잔잘잠잡장재잼쟁저적전절점접정제져졌조족존졸좀종좋좌죄죠주죽준줄중줘즈즉즌즐즘증지직진질짐집짓징짜짝짱째쪽찍차착찬찮찰참창찾채책처척천철첫청체쳐쳤초총최추축출충취츠측치친칠침칭카캐"
    "커케켜코콜콩쾌쿠크큰클큼키킨킬타탄탈태택터턴테텐토통퇴투트특틀티팀팅파판팔패팬퍼페편평폐포폭폴표푸풀품풍프픈플피픽필하학한할함합항해핵했행향허헌험헤혀혁현협형혜호혹혼홍화확환활황회획효후훈휴흐흥희히힘"
)

_CP1252 = {
    ord(bytes((byte,)).decode("cp1252")): byte
    for byte in range(0x80, 0xA0)
    if byte not in (0x81, 0x8D, 0x8F, 0x90, 0x9D)
}
_SPECIALS = "".join(map(chr, _CP1252))
_HIGH = f"[\x80-\xff{_SPECIALS}]"
# Hangul in UTF-8 begins with Â..ô and a continuation byte; in cp949 with a pair in these ranges
_LATIN_HINT = re.compile(f"[\xc2-\xf4][\x80-\xbf{_SPECIALS}]|[\xb0-\xc8][\xa1-\xfe]")
_LATIN_RUN = re.compile(f"{_HIGH}(?:[\x20-\x7e\t\n\r\x80-\xff{_SPECIALS}]*{_HIGH})?[\x41-\x5a\x61-\x7a]?")
_HIGH_RUN = re.compile(f"{_HIGH}+")
_HIGH_WORD = re.compile(rf"{_HIGH}(?:[\x21-\x7e\x80-\xff{_SPECIALS}]*{_HIGH})?")
_LINE = re.compile("[^\n]+")

_HANJA = "\u4e00-\u9fff\uf900-\ufaff"
_HANJA_HINT = re.compile(f"[{_HANJA}][^\0-\x7f{_HANJA}]|[가-힣][{_HANJA}]")
_WORD_WITH_HANJA = re.compile(f"[^\\s{_HANJA}]*[{_HANJA}]\\S*")

_RARE = re.compile(f"[^\0-\uabff\ud7a4-\U0010ffff{KS_X_1001}]")
_CJK = re.compile(f"[\u3041-\u30ff{_HANJA}]")
# what double-encoded Western text decodes to: accented letters, symbols, quotes and dashes, emoji
_WESTERN = re.compile(
    "[\0-\x7f\xa0-\xff\u2010-\u2044\u20ac\u2122\u2190-\u21ff\u2500-\u27bf\ufe0f\U0001f000-\U0001faff]"
)
_QUOTED = re.compile("[ÂÃ][‘’“”…–—‚„‹›]")
_QUOTES = frozenset("‘’“”…–—‚„‹›")
_MOSTLY = 0.8


def repair(text: str) -> str:
    """The text with every proved run repaired; the rest as it is."""
    if text.isascii():
        return text
    if _LATIN_HINT.search(text):
        text = _LATIN_RUN.sub(lambda match: _latin(match[0]), text)
    if _HANJA_HINT.search(text):
        made = _WORD_WITH_HANJA.sub(lambda match: _cp949(match[0]), text)
        # half of the words repaired would hide that the others are lost
        if made != text and not (_RARE.search(made) and lost(text)):
            text = made
    return text


def _latin(run: str) -> str:
    """Tries the whole run first, since it proves most; then its lines, words and pieces."""
    for pattern in (None, _LINE, _HIGH_WORD, _HIGH_RUN):
        repaired = pattern.sub(lambda match: _once(match[0]), run) if pattern else _once(run)
        if repaired != run:
            return repaired
    return run


def _once(run: str, deeper: bool = True) -> str:
    try:
        raw = run.translate(_CP1252).encode("latin-1")
    except UnicodeEncodeError:
        return run
    for encoding, proved in (("utf-8", _from_utf8), ("cp949", _from_cp949)):
        try:
            made = raw.decode(encoding)
        except UnicodeDecodeError:
            continue
        if made != run and proved(made, run):
            return made
        # read wrongly twice: what came out proves nothing yet, but what is inside may
        if deeper and encoding == "utf-8" and (inside := _once(made, deeper=False)) != made:
            return inside
    return run


def _hangul(text: str) -> tuple[int, int]:
    """Letters of Hangul, and the common ones among them."""
    syllables = [char for char in unicodedata.normalize("NFC", text) if "가" <= char <= "힣"]
    letters = sum("ㄱ" <= char <= "ㅣ" for char in text)
    return len(syllables) + letters, sum(char in COMMON for char in syllables) + letters


def _likely(made: str) -> bool:
    """Two syllables of the old standard, one of them common; of more, half common.

    A quarter of that standard's syllables is common: what decodes by chance has few of them.
    """
    hangul, common = _hangul(made)
    return hangul > 1 and common * 2 >= hangul


def _from_utf8(made: str, run: str) -> bool:
    if any(unicodedata.category(char) in ("Cc", "Cn", "Co") and char not in "\n\t\r" for char in made):
        return False
    hangul, common = _hangul(made)
    if hangul:
        # two letters are six bytes that fit: proof enough; of the three characters of one syllable, two
        # could be closing quotes by chance
        return hangul > 1 or (common == 1 and not _QUOTES.issuperset(run[1:3]))
    if sum(bool(_CJK.match(char)) for char in made) > 2:
        return True
    return "\ufffd" not in made and not _WESTERN.sub("", made).strip() and not _QUOTED.search(run)


def _from_cp949(made: str, run: str) -> bool:
    high = [char for char in made if not char.isascii()]
    return _hangul(made)[0] >= _MOSTLY * len(high) and _likely(made)


def _cp949(word: str) -> str:
    try:
        made = word.encode("cp949").decode("utf-8")
    except UnicodeError:
        return word
    return made if _likely(made) and made.isprintable() else word


_REPLACED = re.compile("占쏙|쏙옙|占[가-힣].*(?:占[가-힣]|옙)", re.DOTALL)
_MENTIONED = re.compile("[\"'`“‘(<「『]占쏙옙[\"'`”’)>」』]")
_STRANGE = re.compile(f"[가-힣{_HANJA}]")
_HALVES = re.compile(f"[?？{_HANJA}]")
_LOST_SHARE = 0.3
_LOST_KINDS = 3


def lost(text: str) -> str | None:
    """What is lost for good, as a sentence; None when nothing is.

    The remains of U+FFFD read as cp949 (占쏙옙, unless it stands in quotes, talked about), or syllables
    that Korean does not use, a third of all: UTF-8 read as cp949, with bytes dropped on the way.
    """
    if "占" in text and _REPLACED.search(_MENTIONED.sub("", text)):
        return "'占쏙옙' stands where characters could not be decoded: they are lost."
    rare = _RARE.findall(text)
    # such a byte became a question mark, or half of Hanja
    if len(set(rare)) < _LOST_KINDS or not _HALVES.search(text):
        return None
    if len(rare) < _LOST_SHARE * len(_STRANGE.findall(text)):
        return None
    return f"'{''.join(rare[:4])}' and the like are UTF-8 that was read as cp949, with characters lost."
