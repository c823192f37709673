"""At least six answers for each instruction: (arguments, answer, whether it was followed)."""

from __future__ import annotations

from typing import Any

Golden = tuple[dict[str, Any], str, bool]

SEOUL = {"keywords": ["서울", "한강"]}
APPLE = {"keyword": "사과", "frequency": 3, "relation": "at least"}
FEW_APPLES = {"keyword": "사과", "frequency": 2, "relation": "less than"}
NO_PHOTO = {"forbidden_words": ["사진", "art"]}
THREE = {"num_sentences": 3, "relation": "at least"}
SHORT = {"num_sentences": 3, "relation": "less than"}
FIVE_WORDS = {"num_words": 5, "relation": "at least"}
UNDER_FIVE = {"num_words": 5, "relation": "less than"}
PARTS = {"num_paragraphs": 2}
COMPANY = {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "회사"}
BLANKS = {"num_placeholders": 2}
PS = {"postscript_marker": "P.S."}
PPS = {"postscript_marker": "P.P.S"}
BULLETS = {"num_bullets": 2}
MARKED = {"num_highlights": 2}
SECTIONS = {"section_spliter": "섹션", "num_sections": 2}
REPEAT = {"prompt_to_repeat": "김치찌개 끓이는 법을 알려 주세요. 재료는 두 가지만 쓰세요."}
END = {"end_phrase": "더 도와드릴 일이 있을까요?"}

GOLDEN: dict[str, list[Golden]] = {
    "keywords:existence": [
        (SEOUL, "서울에는 한강이 흐릅니다.", True),
        (SEOUL, "한강공원은 서울 시민이 자주 찾는 곳입니다.", True),
        ({"keywords": ["GPU"]}, "학습에는 gpu가 두 장 필요합니다.", True),
        # macOS writes Hangul decomposed
        ({"keywords": ["한국"]}, "한국의 가을은 짧습니다.", True),
        ({"keywords": ["C++"]}, "C++로 짠 프로그램입니다.", True),
        (SEOUL, "부산에는 낙동강이 흐릅니다.", False),
        (SEOUL, "서울은 대한민국의 수도입니다.", False),
        (SEOUL, "서 울과 한 강을 다녀왔습니다.", False),
        (SEOUL, "", False),
    ],
    "keywords:frequency": [
        (APPLE, "사과를 깎았다. 사과는 달았다. 아이도 사과만 찾았다.", True),
        (APPLE, "사과, 사과, 또 사과!", True),
        (FEW_APPLES, "배와 감을 샀다.", True),
        (FEW_APPLES, "사과 한 상자를 샀다.", True),
        (APPLE, "사과를 깎았다. 사과는 달았다.", False),
        (APPLE, "배를 깎았다.", False),
        (FEW_APPLES, "사과를 사서 사과잼을 만들었다.", False),
        ({"keyword": "하하", "frequency": 2, "relation": "at least"}, "하하하", False),
        ({"keyword": "AI", "frequency": 2.0, "relation": "at least"}, "AI와 ai는 같은 말이다.", True),
    ],
    "keywords:forbidden_words": [
        (NO_PHOTO, "풍경을 그림으로 남겼습니다.", True),
        (NO_PHOTO, "The party starts at noon.", True),
        (NO_PHOTO, "smart한 선택입니다.", True),
        (NO_PHOTO, "The artist smiled.", True),
        (NO_PHOTO, "art를 즐깁니다.", False),
        (NO_PHOTO, "사진을 남겼습니다.", False),
        (NO_PHOTO, "가족사진은 거실에 걸었습니다.", False),
        (NO_PHOTO, "modern Art를 보러 갔습니다.", False),
        ({"forbidden_words": ["안 돼"]}, "그러면 안 돼요.", False),
        ({"forbidden_words": ["1.5"]}, "길이는 11.55미터입니다.", True),
    ],
    "language:response_language": [
        ({"language": "ko"}, "네, 내일은 Python과 GPU 이야기를 하겠습니다.", True),
        ({"language": "hi"}, "आज मौसम बहुत अच्छा है और मैं बाज़ार जा रहा हूँ।", True),
        ({"language": "pt"}, "Hoje o tempo está muito bom e eu vou para casa mais cedo.", True),
        ({"language": "th"}, "วันนี้อากาศดีมาก ฉันจะไปตลาด", True),
        ({"language": "en"}, "The weather is lovely today, so we walked along the river.", True),
        ({"language": "kn"}, "ಇಂದು ಹವಾಮಾನ ತುಂಬಾ ಚೆನ್ನಾಗಿದೆ.", True),
        ({"language": "ko"}, "GET method는 resource를 가져오는 request입니다.", True),
        ({"language": "ko"}, "The weather is lovely today. 네.", False),
        ({"language": "en"}, "날씨가 참 좋아서 강가를 걸었습니다.", False),
        ({"language": "ne"}, "आज मौसम बहुत अच्छा है और मैं बाज़ार जा रहा हूँ।", False),
        ({"language": "de"}, "Hoje o tempo está muito bom e eu vou para casa mais cedo.", False),
        ({"language": "th"}, "วันนี้อากาศดีมาก (오늘 날씨가 아주 좋다는 뜻입니다)", False),
        ({"language": "ko"}, "1234 !!", False),
    ],
    "length_constraints:number_sentences": [
        (THREE, "물을 끓입니다. 면을 넣습니다. 3분 뒤에 불을 끕니다.", True),
        (THREE, "할 일은 다음과 같습니다.\n1. 창문 열기\n2. 바닥 쓸기", True),
        (THREE, "정말요?! 어제 3.5km를 걸었다니요. 대단하세요!", True),
        (SHORT, '그는 "가지 마."라고 말했다. 나는 울었다.', True),
        (SHORT, "# 오늘의 일기\n\n비가 왔다. 종일 집에 있었다.", True),
        (SHORT, "It rained. We stayed at home.", True),
        (THREE, "미국(U.S.A.)에서 온 Dr. Kim은 3.5km를 걸었다.", False),
        (THREE, "물을 끓입니다. 면을 넣습니다. 😀", False),
        (SHORT, "안녕하세요. 저는 민지입니다. 반갑습니다.", False),
        (SHORT, "하늘이 높다\n바람이 차다\n가을이다", False),
        (SHORT, "It rained. We stayed. We slept.", False),
    ],
    "length_constraints:number_words": [
        (FIVE_WORDS, "오늘은 아침부터 비가 내려 우산을 챙겼다.", True),
        (FIVE_WORDS, "하나 둘 셋 넷 다섯", True),
        (UNDER_FIVE, "하나 둘 셋 넷", True),
        (UNDER_FIVE, "- 우유 1병\n- 빵\n---", True),
        (FIVE_WORDS, "하나 둘 셋 넷", False),
        (FIVE_WORDS, "띄어쓰지않으면아무리길어도한낱말이다", False),
        (UNDER_FIVE, "하나 둘 셋 넷 다섯", False),
        (FIVE_WORDS, "* 하나\n* 둘\n* 셋", False),
    ],
    "length_constraints:number_paragraphs": [
        (PARTS, "첫 문단입니다.\n***\n둘째 문단입니다.", True),
        (PARTS, "***\n첫 문단입니다.\n\n***\n\n둘째 문단입니다.\n***", True),
        (PARTS, "첫 문단에는 ***강조***가 있습니다.\n***\n둘째 문단입니다.", True),
        ({"num_paragraphs": 1}, "나눌 것이 없습니다.", True),
        (PARTS, "첫 문단입니다.\n\n둘째 문단입니다.", False),
        (PARTS, "첫 문단입니다.\n***\n***\n둘째 문단입니다.", False),
        (PARTS, "하나.\n***\n둘.\n***\n셋.", False),
        ({"num_paragraphs": 3}, "첫 문단입니다.\n***\n***\n둘째 문단입니다.", False),
        (PARTS, "하나.\n******\n둘.", False),
    ],
    "length_constraints:nth_paragraph_first_word": [
        (COMPANY, "첫 문단입니다.\n\n회사는 올해 흑자를 냈습니다.", True),
        (COMPANY, "첫 문단입니다.\n \n\n**회사**에서 알려 드립니다.", True),
        (COMPANY, "첫 문단입니다.\n두 번째 줄.\n\n“회사 소식”을 전합니다.", True),
        (
            {"num_paragraphs": 1, "nth_paragraph": 1, "first_word": "President"},
            "president를 뽑는 날입니다.",
            True,
        ),
        (COMPANY, "첫 문단입니다.\n회사는 올해 흑자를 냈습니다.", False),
        (COMPANY, "회사는 큽니다.\n\n우리는 작습니다.", False),
        (COMPANY, "하나.\n\n회사는 둘.\n\n셋.", False),
        (COMPANY, "하나.\n\n우리 회사는 둘.", False),
        (
            {"num_paragraphs": 1, "nth_paragraph": 1, "first_word": "art"},
            "Article 3을 보십시오.",
            False,
        ),
    ],
    "detectable_content:number_placeholders": [
        (BLANKS, "[이름] 님, [날짜]에 뵙겠습니다.", True),
        (BLANKS, "주소: [시/도] [구/군] [도로명]", True),
        (BLANKS, "[이름], [이름]", True),
        (BLANKS, "[이름] 님께 드립니다.", False),
        (BLANKS, "[안내](https://example.com)와 [이름]을 보세요.", False),
        (BLANKS, "[ ] 우유 사기\n[] 빵 사기\n[이름]", False),
    ],
    "detectable_content:postscript": [
        (PS, "그럼 또 연락드릴게요.\n\nP.S. 우산 챙기세요.", True),
        (PS, "또 봐요.\np. s. 고마워요", True),
        (PPS, "또 봐요.\n\nP.S. 하나 더.\n**P.P.S.** 정말 마지막입니다.", True),
        ({"postscript_marker": "추신"}, "이만 줄입니다.\n추신: 사진도 보냅니다.", True),
        (PS, "그럼 또 연락드릴게요. 우산 챙기세요.", False),
        (PS, "또 봐요.\nP.P.S. 이것만 말합니다.", False),
        (PS, "여기서 P.S.라는 말은 추신이라는 뜻입니다.", False),
        (PS, "또 봐요.\n\nP.S.", False),
    ],
    "detectable_format:number_bullet_lists": [
        (BULLETS, "* 우유\n* 빵", True),
        (BULLETS, "살 것:\n- 우유\n  - 저지방으로", True),
        (BULLETS, "---\n* 우유\n* 빵\n---", True),
        (BULLETS, "**살 것**\n* 우유\n* 빵", True),
        (BULLETS, "* 우유\n* 빵\n* 달걀", False),
        (BULLETS, "• 우유\n• 빵", False),
        (BULLETS, "1. 우유\n2. 빵", False),
        (BULLETS, "-5도까지 내려갑니다.\n* 우유", False),
    ],
    "detectable_format:number_highlighted_sections": [
        (MARKED, "*첫째*도 안전, *둘째*도 안전.", True),
        (MARKED, "**첫째**와 *둘째*를 봅시다.", True),
        (MARKED, "* *물*을 마신다\n* ***잠***을 잔다", True),
        (MARKED, "*첫째*도 안전.", False),
        (MARKED, "* 첫째\n* 둘째\n* 셋째", False),
        (MARKED, "** **와 *첫째*를 봅시다.", False),
        (MARKED, "3 * 4 * 5 * 6은 360입니다.", False),
        (MARKED, "**첫째**를 봅시다.", False),
    ],
    "detectable_format:multiple_sections": [
        (SECTIONS, "섹션 1\n여는 말\n섹션 2\n닫는 말", True),
        (SECTIONS, "## 섹션 1: 여는 말\n...\n## 섹션 2: 닫는 말\n...", True),
        (SECTIONS, "**섹션1** 여는 말\n[섹션2] 닫는 말\n섹션 3", True),
        (SECTIONS, "섹션 1\n섹션 2에서 이어집니다만 한 부분뿐입니다.\n섹션 3은 없습니다.", True),
        (SECTIONS, "섹션 1\n여는 말입니다. 이어지는 섹션 2는 없습니다.", False),
        (SECTIONS, "섹션 1\n여는 말\n섹션 1\n다시 여는 말", False),
        (SECTIONS, "첫 번째 섹션\n두 번째 섹션", False),
        (SECTIONS, "1장\n2장", False),
    ],
    "detectable_format:constrained_response": [
        ({}, "제 답변은 예입니다.", True),
        ({}, "여러 면을 살펴보았습니다. 제 답변은 아니요입니다.", True),
        ({}, "제 답변은 아마도입니다. 아직 밝혀진 것이 적기 때문입니다.", True),
        ({}, "예.", False),
        ({}, "제 답변은 예 입니다.", False),
        ({}, "제 답변은 예입니다. 아니, 제 답변은 아니요입니다.", False),
        ({}, "My answer is yes.", False),
    ],
    "detectable_format:json_format": [
        ({}, '{"이름": "민지", "나이": 20}', True),
        ({}, '```json\n["봄", "여름"]\n```', True),
        ({}, '```\n{"도시": ["서울", "부산"]}\n```', True),
        ({}, '다음은 JSON입니다. {"이름": "민지"}', False),
        ({}, "{'이름': '민지'}", False),
        ({}, '{"점수": NaN}', False),
        ({}, '"서울"', False),
        ({}, '{"이름": "민지",}', False),
        ({}, "[" * 100_000, False),
    ],
    "detectable_format:title": [
        ({}, "<<가을 소풍>>\n단풍이 고왔다.", True),
        ({}, "제 글의 제목은 << 봄 >> 입니다.", True),
        ({}, "**<<1984년의 여름>>**", True),
        ({}, "<가을 소풍>\n단풍이 고왔다.", False),
        ({}, "《가을 소풍》\n단풍이 고왔다.", False),
        ({}, "<<가을\n소풍>>", False),
        ({}, "<<  >>\n단풍이 고왔다.", False),
    ],
    "combination:two_responses": [
        ({}, "비가 옵니다.\n******\n날이 궂습니다.", True),
        ({}, "******\n비가 옵니다. ****** 날이 궂습니다.\n******", True),
        ({}, "**비**가 옵니다.\n******\n***눈***이 옵니다.", True),
        ({}, "비가 옵니다.\n\n날이 궂습니다.", False),
        ({}, "비가 옵니다.\n******\n비가  옵니다.", False),
        ({}, "하나\n******\n둘\n******\n셋", False),
        ({}, "하나\n***\n둘", False),
        ({}, "하나\n******\n", False),
    ],
    "combination:repeat_prompt": [
        (REPEAT, "김치찌개 끓이는 법을 알려 주세요. 재료는 두 가지만 쓰세요.\n\n김치와 두부를 준비합니다.", True),
        (REPEAT, "\n김치찌개 끓이는 법을 알려 주세요.\n재료는 두 가지만 쓰세요. 먼저 김치를 볶습니다.", True),
        ({"prompt_to_repeat": "Hello는 무슨 뜻이야?"}, "hello는 무슨 뜻이야? 안녕이라는 뜻이야.", True),
        (REPEAT, "네! 김치찌개 끓이는 법을 알려 주세요. 재료는 두 가지만 쓰세요.", False),
        (REPEAT, "김치찌개 끓이는 법을 알려 주세요. 먼저 김치를 볶습니다.", False),
        (REPEAT, "김치찌개 끓이는 법을 알려드리겠습니다. 재료는 두 가지만 쓰세요.", False),
    ],
    "startend:end_checker": [
        (END, "김치를 볶습니다. 더 도와드릴 일이 있을까요?", True),
        (END, '"김치를 볶습니다. 더 도와드릴 일이 있을까요?"\n', True),
        ({"end_phrase": "The End"}, "그렇게 모두 잘 살았습니다. the end", True),
        (END, "더 도와드릴 일이 있을까요? 말씀해 주세요.", False),
        (END, "김치를 볶습니다. 더 도와드릴 일이 있을까요", False),
        (END, "김치를 볶습니다. 더 도와 드릴 일이 있을까요?", False),
    ],
    "startend:quotation": [
        ({}, '"오늘은 쉬겠습니다."', True),
        ({}, "“오늘은 쉬겠습니다.”\n", True),
        ({}, "\"그는 '네'라고 답했다.\"", True),
        ({}, "'오늘은 쉬겠습니다.'", False),
        ({}, '그는 "쉬겠다"고 말했다.', False),
        ({}, "“오늘은 쉬겠습니다.", False),
        ({}, '"', False),
        ({}, '""', False),
    ],
    "punctuation:no_comma": [
        ({}, "봄 여름 가을 겨울이 지나갔다.", True),
        ({}, "값은 1000원이다. 싸다!", True),
        ({}, "봄·여름; 가을: 겨울", True),
        ({}, "봄, 여름, 가을, 겨울", False),
        ({}, "값은 1,000원이다.", False),
        ({}, "봄、여름，가을", False),
    ],
}
