"""Postal addresses down to a building or a flat, by pattern: roads (도로명주소), lots (지번), flats (동·호).

A region alone (서울 강남구), a village alone (역삼동) and a building's name are no addresses of somebody. Names of
cities and districts are listed, since -구 and -시 end many words: 친구 어디로 2 is not an address.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_PROVINCE = (
    "(?:(?:서울|부산|대구|인천|광주|대전|울산|세종)(?:특별자치시|특별시|광역시|시)?"
    "|(?:경기|강원|충북|충남|전북|전남|경북|경남|제주)(?:특별자치도|도)?|(?:충청|전라|경상)[남북]도)"
)
_CITY = (
    "(?:수원|성남|의정부|안양|부천|광명|평택|동두천|안산|고양|과천|구리|남양주|오산|시흥|군포|의왕|하남|용인|파주|이천|안성"
    "|김포|화성|광주|양주|포천|여주|춘천|원주|강릉|동해|태백|속초|삼척|청주|충주|제천|천안|공주|보령|아산|서산|논산|계룡|당진"
    "|전주|군산|익산|정읍|남원|김제|목포|여수|순천|나주|광양|포항|경주|김천|안동|구미|영주|영천|상주|문경|경산|창원|진주|통영"
    "|사천|김해|밀양|거제|양산|제주|서귀포)시"
)
_DISTRICT = (
    "(?:종로|용산|성동|광진|동대문|중랑|성북|강북|도봉|노원|은평|서대문|마포|양천|강서|구로|금천|영등포|동작|관악|서초|강남|송파"
    "|강동|영도|부산진|동래|해운대|사하|금정|연제|수영|사상|수성|달서|미추홀|연수|남동|부평|계양|광산|유성|대덕|장안|권선|팔달"
    "|영통|수정|중원|분당|만안|동안|원미|소사|오정|상록|단원|덕양|일산동|일산서|처인|기흥|수지|상당|서원|흥덕|청원|동남|서북"
    "|완산|덕진|의창|성산|마산합포|마산회원|진해)구"
)
# 중구, 동구 and the counties need a province before them
_REGION = (
    f"(?:{_PROVINCE} ?(?:{_CITY} ?)?(?:{_DISTRICT}|[중동서남북]구|[가-힣]{{2,3}}군)?"
    f"|{_CITY} ?(?:{_DISTRICT}|[중동서남북]구)?|{_DISTRICT})"
)
_TOWN = "(?: ?[가-힣]{1,5}[0-9]?(?:읍|면))?"
# 중로 3류, 종로 2가, 강남대로 3차선: a number that counts something
_NOT_COUNTED = (
    "(?![0-9]|[.,][0-9]|번(?!길|지)|[년월일개명회차위등세원분시간%층가류길동㎡㎢A-Za-z]|여 ?[가-힣]|킬로|미터"
    "|호선|호(?![ ,.)]|$))"
)
_HOUSE = f"(?:지하 ?)?[0-9]{{1,4}}(?:번길 ?[0-9]{{1,4}})?(?:-[0-9]{{1,4}})?{_NOT_COUNTED}"
_ROAD = (
    f"{_TOWN}(?: ?[가-힣]{{1,6}}동)? ?[가-힣][가-힣·.]{{0,9}}(?:[0-9]{{1,3}}(?:번|가)?)?(?:대로|(?<!으)로|길)"
    f"(?: ?[0-9]{{1,3}}(?:번|[가-힣])?길)? ?{_HOUSE}"
)
_BUILDING = (
    "[가-힣A-Za-z0-9]{0,14}?(?:아파트|빌라|빌딩|오피스텔|맨션|타워|하우스|연립|주택|상가|자이|래미안|푸르지오"
    "|힐스테이트|아이파크|캐슬|더샵|e편한세상)(?![가-힣])"
)
_FLOOR = "(?:지하|B)? ?[0-9]{1,3}층"
_DOOR = "제? ?[A-Z]?[0-9]{1,4}호(?!선|차|기|증|봉|관|정)"
_UNIT = f"(?:제? ?[0-9A-Za-z가나다라]{{1,4}}동 ?,? ?)?(?:{_FLOOR} ?,? ?)?{_DOOR}"
_LOT_NUMBER = "(?:산 ?)?[0-9]{1,4}(?:-[0-9]{1,4}(?:번지)?|번지(?:의 ?[0-9]{1,4}| ?[0-9]{1,4}호)?)(?![0-9]|-[0-9])"
_BEFORE_FLAT = f"(?=,? {_BUILDING}?,? ?[0-9]{{1,4}}동 ?[0-9]{{1,4}}호)"
_LOT = f"{_TOWN} ?[가-힣]{{1,5}}[0-9]{{0,2}}(?:동|리|가)(?:[0-9]가)? ?(?:{_LOT_NUMBER}|[0-9]{{1,4}}{_BEFORE_FLAT})"
_NOTE = "(?:,? ?\\((?:[가-힣0-9·]{1,10}[동리가읍면])(?:, ?[^()\n]{1,20})?\\))"
_DETAIL = f"{_NOTE}?(?:,? ?{_BUILDING})?(?P<unit>,? ?{_UNIT}|,? ?{_FLOOR}(?!짜리|높이|규모|건물|석탑|탑))?{_NOTE}?"

_ADDRESS = re.compile(
    f"(?<![가-힣0-9])(?:{_REGION}(?:{_ROAD}|{_LOT}){_DETAIL}"
    f"|(?P<flat>{_BUILDING},? ?[0-9]{{1,4}}동,? ?[0-9]{{1,4}}호))"
)
_SIGN = re.compile("[로길동리가] ?(?:산 ?|지하 ?)?[0-9]")
# the address of a company, a school or a temple, said of it
_PUBLIC_AFTER = re.compile(
    r"[^.\n]{0,15}?(?:위치|소재|(?:에|에는|에도) ?있|세워|건립|설립|이전|본사|본점|개교|개관|지상|토지)"
)
_PUBLIC_BEFORE = re.compile(
    r"(?:본사|본점|지사|지점|사무실|사무소|청사|소재지|캠퍼스|학교|병원|묘소?|매장|회사|법인|영업소|공장|건물|토지)[^.\n]{0,12}$"
)


def find(text: str) -> Iterator[tuple[int, int]]:
    """Addresses with a building's or lot's number, or with a flat's 동 and 호.

    One without a flat or floor that is said of a company, a school, a site (본사는 …, …에 위치한) stays.
    """
    if _SIGN.search(text):
        for match in _ADDRESS.finditer(text):
            if match["unit"] or match["flat"] or not _public(text, match.start(), match.end()):
                yield match.span()


def _public(text: str, start: int, end: int) -> bool:
    return bool(_PUBLIC_AFTER.match(text, end) or _PUBLIC_BEFORE.search(text[max(0, start - 24) : start]))
