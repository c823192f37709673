from __future__ import annotations

from koalpaca_tune.data.overlap.text import exact_key
from koalpaca_tune.data.split import question_key
from koalpaca_tune.records import Conversation, Turn


def pair(question: str, answer: str = "답", context: str | None = None) -> Conversation:
    return Conversation((Turn("user", question, context), Turn("assistant", answer)))


def test_keys_are_stable_over_versions() -> None:
    # a changed key would move records between training and validation of every set prepared so far
    assert f"{question_key(pair('12시 땡!')):016x}" == "5e77605467d05b64"
    assert f"{question_key(pair('12시 땡!', context='점심')):016x}" == "bfde6c64d6d77808"
    assert exact_key(pair("12시 땡!", "하루가 또 가네요.")).hex() == "aaf8a6b851bda286f539140f7e06ac7e"


def test_the_question_alone_decides_the_side() -> None:
    system = Conversation((Turn("system", "짧게"), *pair("뭐 해?").turns))
    longer = Conversation((*pair("뭐 해?").turns, Turn("user", "또?"), Turn("assistant", "네")))
    keys = {question_key(made) for made in (pair("뭐 해?"), pair("뭐해?", "다른 답"), system, longer)}
    assert len(keys) == 1
    assert question_key(pair("Hello")) == question_key(pair("hello"))
    assert question_key(pair("가", context="나")) != question_key(pair("가나"))
