"""What each cleaning step changes, and what it leaves alone."""

from __future__ import annotations

import re
import unicodedata

import pytest

from koalpaca_tune.config.cleaning import STEPS, Step
from koalpaca_tune.data.cleaning import characters, code, laughter, markup, mojibake, spaces, special_tokens
from koalpaca_tune.data.cleaning.clean import clean
from koalpaca_tune.records import Conversation, Turn


def cleaned(answer: str, question: str = "질문") -> str:
    return (
        clean(Conversation((Turn("user", question), Turn("assistant", answer)), "f:1"))
        .conversation.turns[1]
        .content
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("\uffbe\uffc2\uffa4\uffa1\uffda\uffa9", "한글"),
        ("\uffb7\uffc6\uffb4\uffb7\uffc6\uffb7\uffd2", "없어요"),
        ("ﾻﾻﾻ ￗￗ", "ㅋㅋㅋ ㅠㅠ"),
        ("ㅎㅏㄴㄱㅡㄹ", "한글"),
        ("ㅇㅗㅀㄱㅗ 그름", "옳고 그름"),
        ("재ㅁㅣ있게", "재미있게"),
        ("ᄏᄏᄏ ᅲᅲ", "ㅋㅋㅋ ㅠㅠ"),
    ],
)
def test_jamo(before: str, after: str) -> None:
    assert cleaned(before) == after


@pytest.mark.parametrize(
    "text",
    [
        *(
            "ㅋㅋ",
            "ㅠㅠ",
            "ㄱㄱ",
            "ㅇㅋ",
            "ㅇㅈ",
            "ㅁㄴㅇㄹ",
            "ㄱ과 ㄴ",
            "ㄱㅏ",
            "ㅏ, ㅑ",
            "'ㅎㅏㄴㄱㅡㄹ'처럼 풀어쓰면",
        ),
        *("ㅇㅡㅇ", "ㅇㅅㅇ", "ㅋㅠㅋㅠ", "뭐ㅇㅡㅇ", "ᄒᆞᆫ글"),
    ],
)
def test_letters_that_are_meant_stay(text: str) -> None:
    assert cleaned(text) == unicodedata.normalize("NFC", text)


def test_a_syllable_spelled_with_a_filler_is_composed() -> None:
    assert characters.invisible("맛이 ㅤㅅㅞㅅ") == "맛이 쉣"


def test_the_soft_hyphen_of_cp949_is_a_hyphen() -> None:
    assert characters.invisible("기록 31\u00ad32면, co\u00adoperate") == "기록 31-32면, cooperate"


@pytest.mark.parametrize(
    ("before", "after"),
    [("Ａ１！", "A1!"), ("（주）카카오 ５０％", "(주)카카오 50%"), ("￦5,000", "₩5,000"), ("（2020）", "(2020)")],
)
def test_width(before: str, after: str) -> None:
    assert cleaned(before) == after


@pytest.mark.parametrize("text", ["㎏ ㎡ ① ② ㈜ ℃ ½ x²", "你好，世界！", "ありがとう！", "「제목」、『책』", "~∼"])
def test_characters_of_their_own_stay(text: str) -> None:
    assert cleaned(text) == text


KOREAN = "안녕하세요, 반갑습니다. 오늘 날씨가 좋네요!"


@pytest.mark.parametrize(
    ("written", "read"),
    [("utf-8", "latin-1"), ("cp949", "latin-1"), ("cp949", "cp1252"), ("euc-kr", "latin-1")],
)
def test_mojibake_is_repaired(written: str, read: str) -> None:
    damaged = KOREAN.encode(written).decode(read)
    assert cleaned(damaged) == KOREAN
    # beside sound Korean, in one line or in several, and beside words with accents
    assert cleaned(f"이렇게 나와요: {damaged}") == f"이렇게 나와요: {KOREAN}"
    assert cleaned(f"카페(café)와\n{damaged}\n문의") == f"카페(café)와\n{KOREAN}\n문의"


def test_mojibake_made_twice_is_repaired() -> None:
    assert cleaned(KOREAN.encode().decode("latin-1").encode().decode("latin-1")) == KOREAN


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("ì•ˆë…•í•˜ì„¸ìš”", "안녕하세요"),
        ("¾È³çÇÏ¼¼¿ä ^^", "안녕하세요 ^^"),
        ("ë„¤", "네"),
        ("ã…‹ã…‹", "ㅋㅋ"),
        ("媛꾩떇 異붿쿇", "간식 추천"),
        ("donâ€™t, cafÃ©, ðŸ˜€", "don’t, café, 😀"),
        ("25Â°C", "25°C"),
    ],
)
def test_known_mojibake(before: str, after: str) -> None:
    assert cleaned(before) == after


@pytest.mark.parametrize(
    "text",
    [
        "Beyoncé와 Zoë, Müller, señor, Ångström, Ærøskøbing, Dvořák, naïve, façade",
        "ÀÁÂÃÄÅ, ÄÖÜ, þjóðleikhúsið",
        "“café”…, ‘José’… «così»…",
        "São Paulo, IRMÃ, NÃO",
        "Tiếng Việt: Đặng Thái Sơn",
        "大韓民國, 漢字를 쓴다. 李舜臣장군, 占領과 占星術",
        "日本語の文章です。中文也可以。",
        "25°C ± 0.5, ½컵, §3, ©2024, £5, ¥100, µm",
        "뷁, 쀍, 햏햏, 똠얌꿍, 펲시",
    ],
)
def test_real_text_is_not_taken_for_mojibake(text: str) -> None:
    assert mojibake.repair(text) == text
    assert mojibake.lost(text) is None


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("첫 줄<br>둘째 줄<br/>셋째", "첫 줄\n둘째 줄\n셋째"),
        ("<p>하나</p>\n<p>둘</p>", "하나\n둘"),
        ("<div class=\"a\"><b>굵게</b> 쓴 <a href='http://a.kr?x=1'>글</a></div>", "굵게 쓴 글"),
        ("가<!-- 광고 -->나<script type='text/javascript'>var a='<br>';</script>다", "가나다"),
        ("R&amp;D, &lt;기생충&gt;, &#44032;&#xAC01;, 1&nbsp;2", "R&D, <기생충>, 가각, 1 2"),
        ("H<sub>2</sub>O, 10<sup>3</sup>", "H₂O, 10³"),
        ("<ul><li>하나</li><li>둘</li></ul>", "하나\n둘"),
    ],
)
def test_markup(before: str, after: str) -> None:
    assert cleaned(before) == after


@pytest.mark.parametrize(
    "text",
    [
        "a < b 이고 b > c, a<b and c>d, x<y>z, 1<2, <3",
        "<기생충>, <Her>, <Title>, <The King>, <b급 영화>",
        "<문서>본문</문서>를 읽고 <summary>에 답하세요.",
        "f(x) = &x; AT&T; &unknown; a&b",
        "```html\n<br>&nbsp;<div>\n```\n그리고 `<br>`과 `&amp;`",
        "vector<int> v; List<String> names; i<n;",
        "(>_<) <-- 여기 -->",
    ],
)
def test_what_is_no_remain_of_markup_stays(text: str) -> None:
    assert cleaned(text) == text


def test_a_conversation_about_markup_keeps_its_tags() -> None:
    answer = "<div>는 구역을, <br>은 줄바꿈을 뜻해요. &nbsp;도 있어요."
    assert cleaned(answer, "HTML에서 줄은 어떻게 바꿔요?") == answer
    assert cleaned(answer, "div 태그가 뭐예요?") == answer


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("ㅋㅋㅋㅋㅋㅋ 웃겨ㅠㅠㅠㅠㅠ", "ㅋㅋㅋ 웃겨ㅠㅠㅠ"),
        ("대박!!!!!!! 뭐야????? 좋아~~~~~ ^^^^^", "대박!!! 뭐야??? 좋아~~~ ^^^"),
        ("뭐?!?!?!?! ㅠㅜㅠㅜㅠㅜ", "뭐?!?! ㅠㅜㅠㅜ"),
        ("글쎄..............", "글쎄......"),
        ("글쎄…………", "글쎄……"),
    ],
)
def test_laughter(before: str, after: str) -> None:
    assert cleaned(before) == after


@pytest.mark.parametrize(
    "text",
    [
        *("ㅋㅋㅋ", "글쎄...... 음...", "----------", "======", "******", "____", "#####", "★★★★★", "(????년)"),
        *("`ㅋㅋㅋㅋㅋ`", "1,000,000", "aaaa", "하하하하하"),
    ],
)
def test_runs_that_are_meant_stay(text: str) -> None:
    assert laughter.shorten(text) == text


@pytest.mark.parametrize(
    "token",
    [
        *(
            "<|endoftext|>",
            "<|im_start|>",
            "<|eot_id|>",
            "<|START_OF_TURN_TOKEN|>",
            "[|endofturn|]",
            "<end_of_turn>",
        ),
        *("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "<s>", "</s>", "<unk>", "<pad>", "[PAD]", "[MASK]"),
        *("### 질문:", "### 답변:", "###질문:", "### Instruction(명령어):", "### Human:", "### Response:"),
    ],
)
def test_a_special_token_is_broken_by_one_space(token: str) -> None:
    for text in (f"{token}", f"앞\n{token} 뒤", f"{token}\n{token}", f"```\n{token}\n```"):
        after = cleaned(text)
        assert token not in after
        assert after.replace(" ", "") == text.replace(" ", "").strip()
    assert len(cleaned(token)) == len(token) + 1


@pytest.mark.parametrize(
    "text",
    [
        *(
            "a <| b |> c, x |> f",
            "[INSTA]",
            "<think>음</think>",
            "### 요약:",
            "글 속의 ### 질문: 은",
            "[sep]",
            "<start>",
        ),
        *("S<s", "### 질문이 있어요"),
    ],
)
def test_text_like_a_special_token_stays(text: str) -> None:
    assert special_tokens.neutralise(text) == text


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("가  나   다", "가 나 다"),
        ("가\u3000나\xa0다\u2003라", "가 나 다 라"),
        ("가 \n나\t\n\n\n\n다", "가\n나\n\n다"),
        ("가\t나", "가 나"),
    ],
)
def test_spaces(before: str, after: str) -> None:
    assert cleaned(before) == after


@pytest.mark.parametrize(
    "text",
    [
        "```python\nx  =  1\n\n\n\ny = 2  \n```",
        "코드:\n    if x:\n        y  =  1",
        "| 가  | 나 |\n|---|---|\n| 1   | 2 |",
        "이름\t나이\n철수\t10",
        "  시를 쓴다\n    들여서",
        "값은 `a  b`예요",
        "고래(   ) 바다에 산다. [  ]",
    ],
)
def test_spaces_of_code_and_tables_stay(text: str) -> None:
    assert spaces.tidy(text) == text


def test_a_match_that_touches_code_is_left() -> None:
    text = "a `a` a\n```\na\n```\na ``a`` a"

    assert code.sub(re.compile("a"), "b", text) == "b `a` b\n```\na\n```\nb ``a`` b"
    assert code.sub(re.compile("(a) `"), r"\1", text) == text


def test_mojibake_comes_before_the_steps_that_would_remove_its_evidence() -> None:
    damaged = "네, 안녕".encode().decode("latin-1")
    assert cleaned(damaged) == "네, 안녕"
    late: list[Step] = [*STEPS[1:], "mojibake"]
    turns = clean(Conversation((Turn("user", "질문"), Turn("assistant", damaged))), late).conversation.turns
    assert turns[1].content != "네, 안녕"


def test_subject_is_about_markup_or_code() -> None:
    assert markup.subject("HTML 표 만들기")
    assert markup.subject("이 코드를 고쳐줘")
    assert markup.subject("<!DOCTYPE html><html><body>가</body></html>")
    assert not markup.subject(
        "<style type='text/css'>a{}</style><a href='http://a.kr/b.html'>가</a> http://a.kr/c.html"
    )
    assert not markup.subject("오늘 점심 뭐 먹지?")
