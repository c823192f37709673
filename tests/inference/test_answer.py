"""Questions become the training prompt; base and tuned answer the same one."""

from __future__ import annotations

import unicodedata

import pytest

from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.inference.answer import answers, question, side_by_side
from koalpaca_tune.inference.language_model import TorchLanguageModel
from koalpaca_tune.records import Conversation, Turn


def test_prompt_is_the_training_template(tuned: TorchLanguageModel) -> None:
    pair = side_by_side(tuned, [question("수도는?", context="대한민국", system="짧게 답하세요.")], 6)[0]
    assert pair.prompt == "짧게 답하세요.\n\n### 질문: 수도는?\n\n### 맥락: 대한민국\n\n### 답변:"


def test_base_answers_as_the_base_and_tuned_as_tuned(tuned: TorchLanguageModel, lm: TorchLanguageModel) -> None:
    asked = [question("대한민국의 수도는?"), question("물은 몇 도에서 끓나요?")]
    pairs = side_by_side(tuned, asked, 16)
    assert [pair.base for pair in pairs] == answers(lm, asked, 16)
    assert [pair.tuned for pair in pairs] == answers(tuned, asked, 16)
    assert any(pair.base != pair.tuned for pair in pairs)


def test_macos_hangul_is_composed() -> None:
    assert question(unicodedata.normalize("NFD", "수도는?")) == question("수도는?")


def test_no_adapter_nothing_to_compare(lm: TorchLanguageModel) -> None:
    with pytest.raises(KoalpacaError, match="no adapter"):
        side_by_side(lm, [question("수도는?")], 4)


def test_refusals(lm: TorchLanguageModel) -> None:
    with pytest.raises(KoalpacaError, match="question is empty"):
        question("  \n")
    with pytest.raises(KoalpacaError, match="ends with an answer"):
        answers(lm, [Conversation((Turn("user", "가"), Turn("assistant", "나")))], 4)


def test_history_is_part_of_the_prompt(lm: TorchLanguageModel) -> None:
    turns = (Turn("user", "안녕"), Turn("assistant", "안녕하세요"), Turn("user", "이름은?"))
    assert len(answers(lm, [Conversation(turns)], 4)) == 1
