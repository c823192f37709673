"""The token survey: counts that were made by hand, lengths as training has them, mistakes that are found."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.models import tokenizer
from koalpaca_tune.records import Conversation, Turn
from koalpaca_tune.tokens import survey_report
from koalpaca_tune.tokens.encode import Encoder
from koalpaca_tune.tokens.findings import FINDINGS
from koalpaca_tune.tokens.limit import limit
from koalpaca_tune.tokens.survey import CHUNK, WORST, Lengths, Report, Survey, survey
from koalpaca_tune.tokens.vocabulary import Vocabulary


@pytest.fixture(scope="module")
def embedded() -> Vocabulary:
    return tokenizer.load("embedded")


def talk(question: str, answer: str, origin: str = "a.csv:2", context: str | None = None) -> Conversation:
    return Conversation((Turn("user", question, context), Turn("assistant", answer)), origin)


def only(vocabulary: Vocabulary, *talks: Conversation, template: str = "koalpaca", max_length: int = 64) -> Survey:
    (one,) = survey(talks, [vocabulary], template, max_length).surveys
    return one


def codes(one: Survey) -> list[str]:
    return [finding.code for finding in one.findings]


def test_counts_made_by_hand(embedded: Vocabulary) -> None:
    """뷁 is two pieces of bytes (EB B7 | 81), 학교, 에 and 갔다 one token each; the emoji is four bytes."""
    report = survey([talk(" 뷁 학교에 갔다\n", "😀")], [embedded], "koalpaca", 64)
    assert (report.records, report.characters, report.words, report.syllables) == (1, 9, 4, 6)
    (one,) = report.surveys
    assert (one.tokens, one.partial, one.split, one.unknown) == (9, 6, 1, 0)
    assert (one.used, one.entries) == (9, 8192)
    assert one.findings == ()


def test_each_cut_syllable_counts_once_and_contexts_count(embedded: Vocabulary) -> None:
    """쀍 lies in three tokens, 뷁 in two each time."""
    one = only(embedded, talk("쀍 좋다", "봤슈 뷁뷁", context="뷁"))
    assert (one.split, one.partial) == (4, 3 + 2 + 2 + 2)


def sentencepiece(vocabularies: dict[str, Vocabulary]) -> Vocabulary:
    """The Llama-2 kind with the decoder that such tokenizers ship."""
    backend = Tokenizer.from_str(vocabularies["sp-first"].backend.to_str())
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Sequence(steps)
    return replace(vocabularies["sp-first"], backend=backend)


def test_sentencepiece_bytes_are_pieces_and_a_whole_text_comes_back(vocabularies: dict[str, Vocabulary]) -> None:
    one = only(sentencepiece(vocabularies), talk("수도는 뷁", "서울"))
    assert (one.partial, one.split, one.unknown) == (3, 1, 0)
    assert "round-trip" not in codes(one)


def words(**vocabulary: int) -> Tokenizer:
    backend = Tokenizer(models.WordLevel({"<unk>": 0, "</s>": 1, **vocabulary}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(["</s>"])
    return backend


def test_unknown_tokens_and_a_text_that_does_not_come_back() -> None:
    one = only(
        Vocabulary("words", words(안녕=2), None, "</s>", 1), talk("안녕 뷁", "안녕 하세요", origin="b.csv:7")
    )
    assert (one.tokens, one.unknown, one.partial) == (4, 2, 0)
    (changed,) = [finding for finding in one.findings if finding.code == "round-trip"]
    assert changed.mistake
    assert changed.records == 1
    assert changed.where == ("b.csv:7 ('안녕 뷁' -> '안녕 <unk>')",)


def test_a_character_that_a_pre_tokeniser_removes_is_found() -> None:
    """polyglot's removes U+0CF1: decoded text lacks it, and nothing else says so."""
    made = json.loads(tokenizer.load("embedded").backend.to_str())
    removes = {"type": "Split", "pattern": {"String": "ೱ"}, "behavior": "Removed", "invert": False}
    made["pre_tokenizer"]["pretokenizers"].insert(0, removes)
    backend = Tokenizer.from_str(json.dumps(made))
    one = only(replace(tokenizer.load("embedded"), backend=backend), talk("가ೱ나", "다"), talk("라", "마"))
    (changed,) = [finding for finding in one.findings if finding.code == "round-trip"]
    assert changed.records == 1


def test_nfd_costs_what_it_costs(embedded: Vocabulary) -> None:
    text = "안녕하세요 반갑습니다"
    ids = [len(embedded.backend.encode(unicodedata.normalize(form, text)).ids) for form in ("NFD", "NFC")]
    one = only(embedded, talk(text, text))
    assert one.decomposed == ids[0] / ids[1] > 3


# lengths


@pytest.mark.parametrize("max_length", [21, 28, 1024])
def test_lengths_and_losses_are_those_of_training(
    embedded: Vocabulary, conversations: Sequence[Conversation], max_length: int
) -> None:
    encoded = list(Encoder(embedded, embedded.template("koalpaca")).conversations(conversations))
    lengths = only(embedded, *conversations, max_length=max_length).lengths
    assert lengths is not None
    assert sorted(lengths.counts) == list(lengths.counts)
    assert sum(length * count for length, count in lengths.counts.items()) == sum(len(one.ids) for one in encoded)
    assert lengths.learned == sum(one.learned for one in encoded)
    _, cut = limit(encoded, max_length, "cut", "x")
    assert lengths.too_long == cut.too_long_cut
    assert lengths.emptied == cut.nothing_to_learn
    assert lengths.learned - lengths.lost_by_cut == cut.learned_tokens
    if max_length > min(lengths.counts):
        _, dropped = limit(encoded, max_length, "drop", "x")
        assert lengths.learned - lengths.lost_by_drop == dropped.learned_tokens
    else:
        assert lengths.lost_by_drop == lengths.learned
    longest = sorted(encoded, key=lambda one: -len(one.ids))[:WORST]
    assert [(long.origin, long.tokens) for long in lengths.longest] == [(o.origin, len(o.ids)) for o in longest]
    for long, one in zip(lengths.longest, longest, strict=True):
        assert long.tail == embedded.backend.decode(one.ids[max_length:], skip_special_tokens=False)


@given(st.lists(st.integers(1, 30), min_size=1), st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_quantiles_are_by_nearest_rank(values: list[int], share: float) -> None:
    lengths = Lengths({value: values.count(value) for value in sorted(values)}, 0, 0, 0, 0, 0, ())
    below = sum(value < lengths.at(share) for value in values) / len(values)
    upto = sum(value <= lengths.at(share) for value in values) / len(values)
    assert below < share <= upto + 1e-9


def test_chunks_do_not_show(embedded: Vocabulary, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not where they end by number of records, nor by characters (before each long one)."""
    monkeypatch.setattr("koalpaca_tune.tokens.survey.CHUNK_CHARACTERS", 20 * CHUNK)
    talks = [talk(f"{n}번 질문", "뷁" * (n % 7 + 1), origin=f"a.csv:{n}") for n in range(CHUNK + 3)]
    talks += [talk("긴 글", "뷁 " * 9 * CHUNK, origin=f"b.csv:{n}") for n in range(3)]
    whole = survey(talks, [embedded], "koalpaca", 16)
    parts = [survey(part, [embedded], "koalpaca", 16) for part in (talks[:300], talks[300:])]
    for name in ("records", "characters", "words", "syllables"):
        assert getattr(whole, name) == sum(getattr(part, name) for part in parts)
    for name in ("tokens", "partial", "split"):
        assert getattr(whole.surveys[0], name) == sum(getattr(part.surveys[0], name) for part in parts)


# mistakes


def test_a_template_whose_tokens_are_missing_is_a_finding_beside_the_counts(embedded: Vocabulary) -> None:
    one = only(embedded, talk("안녕", "네"), template="llama3")
    assert one.lengths is None
    assert one.tokens > 0
    (finding,) = one.findings
    assert (finding.code, finding.mistake) == ("template-tokens", True)
    assert "<|begin_of_text|>" in finding.en


def test_a_template_that_cuts_a_token_is_a_finding_with_its_record(vocabularies: dict[str, Vocabulary]) -> None:
    one = only(vocabularies["gpt2"], talk("첫 줄", "\n\n넷째 줄", origin="b.csv:3"), template="llama3")
    (finding,) = [finding for finding in one.findings if finding.mistake]
    assert (finding.code, finding.where) == ("mask-boundary", ("b.csv:3",))
    assert one.lengths is None


def test_an_unknown_template_is_an_error(embedded: Vocabulary) -> None:
    with pytest.raises(KoalpacaError, match="Did you mean 'koalpaca'"):
        only(embedded, talk("안녕", "네"), template="koalpacca")


def test_eos_that_is_the_unknown_token_or_no_special_token() -> None:
    talks = talk("안녕", "안녕")
    assert "eos-unknown" in codes(only(Vocabulary("a", words(안녕=2), None, "<unk>", 1), talks))
    assert "eos-unknown" in codes(only(Vocabulary("a", words(안녕=2), None, "<eos>", 1), talks))
    glued = json.loads(tokenizer.load("embedded").backend.to_str())
    glued["added_tokens"] = []
    embedded = replace(tokenizer.load("embedded"), backend=Tokenizer.from_str(json.dumps(glued)))
    assert "eos-not-special" in codes(only(embedded, talks))


def test_pad_and_bos(embedded: Vocabulary, vocabularies: dict[str, Vocabulary]) -> None:
    talks = talk("안녕", "네")
    assert codes(only(replace(embedded, pad_id=embedded.id(embedded.eos)), talks)) == ["pad-is-eos"]
    assert codes(only(replace(embedded, bos=None), talks)) == ["bos-none"]
    assert codes(only(replace(embedded, bos="<s>"), talks)) == ["bos-unknown"]
    assert codes(only(vocabularies["llama"], talks, template="llama3")) == ["bos-added"]


def own(embedded: Vocabulary, begin: str, end: str) -> Vocabulary:
    """The embedded tokenizer with a chat template of its own."""

    def apply(messages: list[dict[str, str]], generate: bool) -> str:
        return begin + "".join(f"{m['role']}:{m['content']}{end}" for m in messages) + "assistant:" * generate

    return replace(embedded, apply=apply)


def test_an_answer_without_an_end_token(embedded: Vocabulary) -> None:
    ends, never = (own(embedded, "", end) for end in ("<|im_end|>", "\n"))
    talks = [talk("안녕", "네", origin="a.csv:2"), Conversation((Turn("user", "끝"),), "a.csv:3")]
    assert "answer-endless" not in codes(only(ends, *talks, template="tokenizer"))
    (finding,) = [f for f in only(never, *talks, template="tokenizer").findings if f.code == "answer-endless"]
    assert (finding.records, finding.where) == (1, ("a.csv:2",)), "the last one has no answer to end"


def test_bos_that_stands_twice(embedded: Vocabulary) -> None:
    assert embedded.bos == "<|endoftext|>"
    talks = [talk("안녕", "네")]
    once, twice = (own(embedded, embedded.bos * count, "<|im_end|>") for count in (1, 2))
    assert "bos-doubled" not in codes(only(once, *talks, template="tokenizer"))
    assert "bos-doubled" in codes(only(twice, *talks, template="tokenizer"))


def test_special_tokens_in_a_users_text_are_counted_and_stay_text(embedded: Vocabulary) -> None:
    one = only(embedded, talk("<|im_end|>이 뭐야", "끝", origin="a.csv:5"), talk("안녕", "네"))
    (finding,) = one.findings
    assert (finding.code, finding.mistake, finding.records) == ("special-in-text", False, 1)
    assert finding.where == ("a.csv:5 (<|im_end|>)",)
    assert one.used > len("네안녕끝") + 2, "not one token"


def test_what_is_said_is_in_both_languages() -> None:
    for mistake, ko, en in FINDINGS.values():
        assert isinstance(mistake, bool)
        assert any("가" <= letter <= "힣" for letter in ko)
        assert en.isascii()


# the report


@pytest.fixture
def written(embedded: Vocabulary, tmp_path: Path) -> tuple[Report, Path]:
    evil = "<script>alert(1)</script>|" * 3
    report = survey([talk("짧은 글", evil, origin="나쁜|<b>.csv:2")], [embedded, embedded], "koalpaca", 16)
    survey_report.write(replace(report, unread=1, unread_first="a.csv:9: <u>"), tmp_path / "out")
    return report, tmp_path / "out"


def test_the_page_is_self_contained_and_escapes_what_users_wrote(written: tuple[Report, Path]) -> None:
    page = (written[1] / "tokens.html").read_text(encoding="utf-8")
    for forbidden in ("<script", "<b>.csv", "<u>", "src=", "@import", 'href="http'):
        assert forbidden not in page
    assert page.count("<svg ") == 2
    assert page.count("max_length 16") == 2
    assert '<html lang="ko">' in page


def test_json_and_markdown_hold_the_table(written: tuple[Report, Path]) -> None:
    report, out = written
    made: dict[str, Any] = json.loads((out / "tokens.json").read_text(encoding="utf-8"))
    assert made["surveys"][0]["tokens"] == report.surveys[0].tokens
    assert made["surveys"][0]["lengths"]["max"] == made["surveys"][0]["lengths"]["counts"][0][0]
    text = (out / "tokens.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    table = survey_report.table(report)
    assert all(f"| {line.ko} | {line.en} | {line.shown[0].replace('<', '&lt;')} |" in text for line in table)
    bars = {line.replace("\\|", "").count("|") for line in rows[: len(table) + 1]}
    assert bars == {5}, "two tokenizers, and no bar of a text breaks the table"
