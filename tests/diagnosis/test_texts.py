"""What the data of a run say: repeats, damage, ends, leaks."""

from __future__ import annotations

import unicodedata

from koalpaca_tune.diagnosis import texts
from koalpaca_tune.records import Conversation, Encoded, Turn

END = 0


def talk(question: str, answer: str) -> Conversation:
    return Conversation((Turn("user", question), Turn("assistant", answer)))


def encoded(*labels: int) -> Encoded:
    return Encoded((9, *(label if label >= 0 else 5 for label in labels)), (-100, *labels))


CLEAN = [
    talk("심심해.", "산책은 어떠세요?"),
    talk("비가 와.", "우산을 챙기세요."),
    talk("배고파.", "김밥을 드세요."),
]
ONES = [encoded(-100, 7, END)] * 3


def test_clean_data() -> None:
    found = texts.signals(CLEAN, [talk("졸려.", "주무세요.")], ONES, [END])
    assert found["data.repeated"] == 0.0
    assert found["data.decomposed"] == 0.0
    assert found["data.garbled"] == 0.0
    assert found["data.valid_in_train"] == 0.0
    assert found["data.learned"] == 2.0
    assert found["data.learned_share"] == 0.5
    assert found["data.end_learned"] == 1.0


def test_repeats_are_seen_through_spaces() -> None:
    found = texts.signals([*CLEAN, talk("심심해. ", "산책은  어떠세요?")], [], [*ONES, ONES[0]], [END])
    assert found["data.repeated"] == 0.25
    assert found["data.most_repeated"] == 2.0


def test_nfd_text_of_macos_is_seen() -> None:
    decomposed = talk(unicodedata.normalize("NFD", "심심해."), "산책은 어떠세요?")
    assert texts.signals([decomposed, *CLEAN[1:]], [], ONES, [END])["data.decomposed"] == 1 / 3


def test_a_hanja_that_nfc_would_replace_is_no_decomposed_hangul() -> None:
    assert texts.signals([talk("뜻은?", "樂\uf914은 즐거움입니다.")], [], ONES[:1], [END])["data.decomposed"] == 0.0


def test_text_read_in_the_wrong_encoding_is_seen() -> None:
    answer = "따뜻한 차를 마시며 책을 읽어 보세요."
    as_latin = answer.encode("cp949").decode("latin-1")
    as_cp949 = answer.encode("utf-8").decode("cp949", "ignore")
    for wrong in (as_latin, as_cp949):
        assert texts.signals([talk("비 오는 날에는?", wrong)], [], ONES[:1], [END])["data.garbled"] == 1.0


def test_a_leak_is_a_validation_row_among_the_training_rows() -> None:
    assert texts.signals(CLEAN, [CLEAN[0], talk("졸려.", "주무세요.")], ONES, [END])["data.valid_in_train"] == 0.5


def test_trl_1623_an_end_that_is_masked_is_not_learned() -> None:
    masked = [encoded(-100, 7, -100)] * 3
    assert texts.signals(CLEAN, [], masked, [END])["data.end_learned"] == 0.0
