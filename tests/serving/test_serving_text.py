"""Text as it is written: the same as the whole answer, in whole syllables, nothing of a stop text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from koalpaca_tune.inference.decoding import written
from koalpaca_tune.models import tokenizer
from koalpaca_tune.serving.text import TextStream

WORDS = tokenizer.load("embedded")


def ids_of(text: str) -> list[int]:
    return list(WORDS.backend.encode(text, add_special_tokens=False).ids)


def streamed(ids: list[int], until: tuple[str, ...] = (), *, strip: bool = True) -> tuple[list[str], TextStream]:
    stream = TextStream(WORDS.decode, until=until, strip=strip)
    pieces = []
    for token in ids:
        pieces.append(stream.push(token))
        if stream.ended:
            return pieces, stream
    return [*pieces, stream.finish()], stream


def test_a_syllable_of_several_tokens_waits_until_it_is_whole() -> None:
    # rare syllables and an emoji are bytes to the embedded tokenizer
    ids = ids_of("뷁 🦙")
    assert len(ids) > 4
    pieces, _ = streamed(ids)
    assert "".join(pieces) == "뷁 🦙"
    assert all("\ufffd" not in piece for piece in pieces)
    assert streamed(ids[:-1])[0][-1] == "", "half an emoji is left out"


def test_a_stop_text_across_tokens_is_never_shown() -> None:
    pieces, stream = streamed(ids_of("답입니다.\n\n### 질문: 다음"), ("### 질문",))
    assert "".join(pieces) == "답입니다."
    assert stream.ended


def test_the_start_of_a_stop_text_is_shown_when_it_was_none() -> None:
    pieces, stream = streamed(ids_of("답 ### 소제목"), ("### 질문",))
    assert "".join(pieces) == "답 ### 소제목"
    assert not stream.ended


def test_space_of_a_raw_completion_stays() -> None:
    assert "".join(streamed(ids_of("  서울 \n"), strip=False)[0]) == "  서울 \n"
    assert "".join(streamed(ids_of("  서울 \n"))[0]) == "서울"


TEXT = st.text(st.sampled_from("가나 뷁🦙\n#.a"), max_size=24)
STOPS = st.lists(st.text(st.sampled_from("가 \n#a"), min_size=1, max_size=3), max_size=2)


@given(TEXT, STOPS, st.integers(0, 3))
def test_pieces_joined_are_what_the_whole_answer_is(text: str, until: list[str], cut: int) -> None:
    ids = ids_of(text)
    ids = ids[: len(ids) - cut]
    pieces, stream = streamed(ids, tuple(until))
    # the model stops at the first token with which a stop text is there
    ends = (one for one in (written(WORDS, [], ids[:n], until) for n in range(len(ids) + 1)) if one.stopped)
    whole = next(ends, written(WORDS, [], ids, until))
    assert "".join(pieces) == whole.text
    assert stream.ended == whole.stopped
