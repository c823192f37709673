"""Translation tone (번역투): Korean that reads as English word for word.

One mark is no fault: good writers say 가장 ... 중 하나 too. So marks are weighed, those of
`data.quality.translation.literal_phrases` as one each, and an answer has the tone when they come thick. Lyrics,
letters and novels say 당신 and 그녀 by right, and stay below.
"""

from __future__ import annotations

import re

from koalpaca_tune.data.quality import translation
from koalpaca_tune.measures.letters import CODE
from koalpaca_tune.measures.text import composed

_THICK = 1.5
"""Weight at which up to 150 characters have the tone; longer answers need as much more."""
_CHARACTERS = 150

_HERE = re.compile(r"^여기")
_LISTED = re.compile(r"가지|몇|목록|방법|예시|답변|편지|최고의|메일|초안")

# people and animals take -들 in plain Korean; for things it is the English plural
_PEOPLE = (
    "사람|친구|아이|학생|선생님|교사|부모|어른|가족|고객|직원|회원|국민|시민|주민|의원|배우|선수|여성|남성|군인|병사|환자|의사|작가|독자|관객|팬|우리|너희|저희"
    "|피고|원고|자|인|생|원|님|관|왕|신|꾼|민|군|단|사|수|가|배|팀|그|이|저|것|애|놈|여러분|동물|새|나라|형제|자매|남매|노인|남|청년|소년|소녀|신하|백성|제자|후손|동료|이웃"
)
_THINGS = re.compile(
    rf"(?<![가-힣])(?!(?:[가-힣]*(?:{_PEOPLE}))들)[가-힣]{{1,6}}들(?=(?:은|이|을|의|과|에|에게|로|에서|중)(?![가-힣]))"
)

_MARKS: dict[str, float] = {
    r"(?<![가-힣])(?:물론입니다|물론이죠|확실합니다|네|좋습니다)[!.,] 여기": 1.0,
    r"것에 의해|것에 대한|것에 있어": 1.0,
    r"(?:하는|되는|는) 것을 (?:시도|필요로|유지|가능하게|즐기)|것에 어려움": 1.0,
    r"(?:하는|되는) 것은 [^.\n]{0,40}(?:중요|필수|핵심|필요)": 0.75,
    r"시도할 수 있|접근할 수 있게|소통할 수 있게": 0.5,
    r"[을를] (?:가지고|갖고) 있(?:습니다|으며|다면|고|다)": 0.75,
    r"(?:좋은|즐거운|힘든|멋진) 시간을 (?:가졌|가질|가지)": 1.0,
    r"(?:우리|당신|그|그들|사람들)[를을] [가-힣]+하게 만|하여금|생각하게 만|잊게 만|느끼게 만": 1.0,
    r"우리에게 [^.\n]{0,30}(?:제공|줍니다|주었습니다|만듭니다)": 0.5,
    r"데 도움이 (?:될 수|됩니다)|도움을 줄 수": 0.5,
    r"(?:사실|것)에 기인|기인합니다": 1.0,
    r"의심할 여지 없이|아무리 강조해도": 0.75,
    r"만약 (?:당신|여러분)": 0.75,
    r"[을를] (?:희망합니다|희망한다)|헌신하고 있": 0.75,
    r"에 있어서?[ ,]": 0.5,
    r"[가-힣]+들?의 [가-힣]+들?의 [가-힣]+": 0.5,
    r"(?:것|바)로 (?:보여|생각되|여겨|판단되어)(?:지|진|집)|생각되어(?:지|진|집)": 1.0,
    r"만들어져 왔|이루어져 왔|일어나 왔": 1.0,
    r"두 개의 [가-힣]+(?:상|책|나라|아이|회사)|(?:첫 번째|두 번째) 사람": 0.5,
    r"방문할 가치|할 가치가 있": 0.75,
    r"(?<![가-힣])그것(?:을|들을|에)(?![가-힣])": 0.5,
    r", 그(?:것|들|녀)(?:은|는|이|가)? ": 1.0,
    r"(?:중|중의) (?:한 명|하나)(?:이며|입니다|로|일)": 0.5,
    r"[을를] 통해, |동안, 당신|위해서, 당신": 0.75,
    r"(?:^|[.!?] )이것은 ": 0.5,
}
"""Pattern -> weight, beside the literal phrases."""
_COMPILED = [(re.compile(pattern), weight) for pattern, weight in _MARKS.items()]
_PLURAL = 0.5


def marks(answer: str) -> dict[str, float]:
    """The marks of translated English in an answer -> their weight."""
    text = CODE.sub(" ", composed(answer))
    found: dict[str, float] = {}

    def add(words: str, weight: float) -> None:
        found[words] = found.get(words, 0.0) + weight

    phrases = translation.literal_phrases(text)
    for phrase in phrases:
        if not _HERE.match(phrase) or _LISTED.search(phrase):
            add(phrase, 1.0)
    for pattern, weight in _COMPILED:
        for match in pattern.finditer(text):
            add(match[0].strip(), weight)
    for match in _THINGS.finditer(text):
        if any(match[0] in phrase for phrase in phrases):
            continue
        add(match[0], _PLURAL)
    return found


def toned(answer: str) -> tuple[str, ...]:
    """The marks of an answer that has translation tone; empty when they are too few for its length."""
    found = marks(answer)
    needed = _THICK * max(1.0, len(composed(answer)) / _CHARACTERS)
    return tuple(found) if sum(found.values()) >= needed else ()
