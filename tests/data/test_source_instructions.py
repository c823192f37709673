"""Rows as published become questions and answers, in several phrasings, with the particles that fit."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from koalpaca_tune.data import instructions, sources
from koalpaca_tune.data.reading import readers
from koalpaca_tune.data.rows import Rejected, Row
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.korean import has_final_consonant
from koalpaca_tune.records import Conversation


def converted(source: str, task: str, path: Path) -> Iterator[Conversation]:
    shape = sources.shaper(source, task)
    for row in instructions.rows(readers.read(path).rows, sources.task(source, task)):
        assert isinstance(row, Row)
        yield shape(row)


def answers(source: str, task: str, rows: list[dict[str, Any]]) -> list[str]:
    shape = sources.shaper(source, task)
    return [shape(Row(f"x:{n}", row)).turns[1].content for n, row in enumerate(rows, 1)]


def refusal(source: str, task: str, row: dict[str, Any]) -> tuple[str, str]:
    with pytest.raises(KoalpacaError) as caught:
        sources.shaper(source, task)(Row("x.tsv:7", row))
    return caught.value.problems[0].code, str(caught.value)


def test_kobest_boolq_reads_true_in_any_case_and_crlf(tmp_path: Path) -> None:
    path = tmp_path / "train.tsv"
    lines = ["ID\tText\tQuestion\tAnswer"]
    for n, truth in enumerate(["True", "TRUE", "False", "FALSE"]):
        lines.append(f"{n}\t글 {n}\t바다는 파란가?\t{truth}")
    path.write_bytes("\r\n".join([*lines, ""]).encode())
    said = [conversation.turns[1].content for conversation in converted("kobest", "boolq", path)]
    yes = ("네", "예")
    assert [answer.startswith(yes) for answer in said] == [True, True, False, False]
    assert all(answer.startswith((*yes, "아니요")) for answer in said)


def test_kobest_columns_go_by_name_in_any_order(tmp_path: Path) -> None:
    """SentiNeg's columns change from split to split."""
    first, second = tmp_path / "a.tsv", tmp_path / "b.tsv"
    first.write_text("ID\tText\tLabel\n1\t튼튼하고 좋아요\t1\n", encoding="utf-8")
    second.write_text("ID\tLabel\tText\n1\t1\t튼튼하고 좋아요\n", encoding="utf-8")
    (one,), (other,) = converted("kobest", "sentineg", first), converted("kobest", "sentineg", second)
    assert one.turns == other.turns


def test_kobest_copa_counts_from_one_in_files_and_from_zero_on_the_hub() -> None:
    published = {"sentence": "비가 왔다.", "question": "결과 ", "1": "땅이 말랐다.", "2": "땅이 젖었다."}
    on_hub = {
        "premise": "비가 왔다.",
        "question": "결과",
        "alternative_1": "땅이 말랐다.",
        "alternative_2": "땅이 젖었다.",
    }
    made = answers("kobest", "copa", [{**published, "Answer": "2"}, {**on_hub, "label": 1}])
    assert made[0] == made[1]
    assert made[0].rstrip("”").endswith("땅이 젖었다.")
    assert refusal("kobest", "copa", {**published, "Answer": "0"})[0] == "row-label"


def test_kobest_wic_particles_fit_every_word() -> None:
    """lm-evaluation-harness writes {word}가 after any word: 수박가."""
    task = sources.task("kobest", "wic")
    for word in ("사과", "수박", "배", "눈", "길", "IMF"):
        for n in range(40):
            row = {"word": word, "context_1": f"[{word}] {n}", "context_2": f"이 [{word}]", "label": n % 2}
            made = instructions.conversation(Row("x", row), task, "kobest")
            text = f"{made.turns[0].content} {made.turns[1].content}"
            final = has_final_consonant(word)
            right, wrong = (("이 ", "은 "), ("가 ", "는 ")) if final else (("가 ", "는 "), ("이 ", "은 "))
            assert not any(f"{word}{particle}" in text for particle in wrong), text
            if f"{word}{'이라는' if final else '라는'} 낱말" in text:
                continue
            if "같은 뜻으로 쓰였는지" in text or "뒤 문장의" in text:
                assert any(f"{word}{particle}" in text for particle in right), text


def test_every_phrasing_is_used_and_stays_with_its_row() -> None:
    rows = [Row(f"a.tsv:{n}", {"id": str(n), "document": f"영화 {n} 좋아요", "label": "1"}) for n in range(200)]
    shape = sources.shaper("nsmc", "sentiment")
    forms = [shape(row).turns[0].content.replace(row.values["document"], "") for row in rows]
    counts = [forms.count(form) for form in sorted(set(forms))]
    assert len(counts) == len(sources.task("nsmc", "sentiment").phrasings)
    assert min(counts) > 200 / len(counts) / 2
    again = [shape(Row("other.tsv:1", dict(reversed(row.values.items())))) for row in reversed(rows)]
    assert [made.turns for made in reversed(again)] == [shape(row).turns for row in rows]
    # other processes
    assert pickle.loads(pickle.dumps(shape))(rows[0]) == shape(rows[0])  # noqa: S301


def test_nsmc_quotes_are_just_quotes(tmp_path: Path) -> None:
    path = tmp_path / "train.tsv"
    path.write_text('id\tdocument\tlabel\n1\t"최고의 영화\t1\n2\t별로" 였다\t0\n3\t보통\t0\n', encoding="utf-8")
    made = list(converted("nsmc", "sentiment", path))
    assert len(made) == 3
    texts = [made.turns[0].content + (made.turns[0].context or "") for made in made]
    assert '"최고의 영화' in texts[0]
    assert '별로" 였다' in texts[1]
    assert [conversation.source for conversation in made] == ["nsmc"] * 3


def test_question_pair_calls_the_same_question_zero() -> None:
    """The column is called is_duplicate, and 1 means that the questions differ."""
    pairs = [
        {"question1": f"오늘 뭐 해? {n}", "question2": f"오늘 뭐 하니? {n}", "is_duplicate": label}
        for n in range(30)
        for label in ("0", "1")
    ]
    said = answers("question_pair", "paraphrase", pairs)
    same = {"네, 같은 뜻입니다.", "같음", "네, 뜻이 같아서 바꾸어 써도 돼요.", "두 말은 뜻이 같습니다."}
    assert set(said[::2]) == {*same, "네, 같은 말이에요."}
    assert not set(said[1::2]) & set(said[::2])


def test_klue_sts_takes_its_score_from_within() -> None:
    rows = [
        {"sentence1": f"가 {n}", "sentence2": "나", "labels": {"label": score, "real-label": 9, "binary-label": 0}}
        for n in range(40)
        for score in (4.9, 3.0, 0.0)
    ]
    said = answers("klue", "sts", rows)
    assert {"4.9", "4.9점", "3", "3점", "0", "0점"} <= set(said)
    assert {said[n] for n in range(0, 120, 3)} == {"4.9", "4.9점", "네, 뜻이 거의 같습니다.", "거의 같음"}
    code, text = refusal("klue", "sts", {"sentence1": "가", "sentence2": "나", "labels": {"label": 7}})
    assert code == "row-label"
    assert "x.tsv:7" in text
    assert refusal("klue", "sts", {"sentence1": "가", "sentence2": "나", "labels": {"label": "x"}})[0] == "row-type"


def test_klue_labels_are_names_or_numbers() -> None:
    pair = {"premise": "비가 온다.", "hypothesis": "땅이 젖는다."}
    named, numbered = answers("klue", "nli", [{**pair, "gold_label": "neutral"}, {**pair, "label": 1}])
    assert named == numbered
    assert answers("klue", "ynat", [{"title": "금리 동결", "label": 1}]) == answers(
        "klue", "ynat", [{"title": "금리 동결", "label": "경제"}]
    )


def squad(tmp_path: Path, paragraphs: Any) -> Path:
    path = tmp_path / "KorQuAD_v1.0_train.json"
    path.write_text(
        json.dumps({"version": "x", "data": [{"title": "바다", "paragraphs": paragraphs}]}), encoding="utf-8"
    )
    return path


def test_korquad_questions_are_rows_of_their_own(tmp_path: Path) -> None:
    asked = [
        {"id": f"q{n}", "question": f"물음 {n}?", "answers": [{"text": f"답 {n}", "answer_start": 0}]}
        for n in range(3)
    ]
    path = squad(tmp_path, [{"context": "긴 글", "qas": asked[:2]}, {"context": "다른 글", "qas": asked[2:]}])
    made = list(converted("korquad-v1", "qa", path))
    assert [conversation.turns[1].content for conversation in made] == ["답 0", "답 1", "답 2"]
    assert [conversation.origin for conversation in made] == [
        f"KorQuAD_v1.0_train.json[0].paragraphs[{p}].qas[{q}]" for p, q in ((0, 0), (0, 1), (1, 0))
    ]
    asked_of = [(made.turns[0].context or "") + made.turns[0].content for made in made]
    assert ["긴 글" in text for text in asked_of] == [True, True, False]


def test_a_broken_question_costs_only_itself(tmp_path: Path) -> None:
    good = {"question": "물음?", "answers": [{"text": "답"}]}
    path = squad(tmp_path, [{"context": "글", "qas": [good, "?", good]}, {"context": "글"}, "?"])
    found = list(instructions.rows(readers.read(path).rows, sources.task("korquad-v1", "qa")))
    bad = [row for row in found if isinstance(row, Rejected)]
    assert len(found) - len(bad) == 2
    assert [row.problem.code for row in bad] == ["row-shape"] * 3
    assert bad[0].origin.endswith("paragraphs[0].qas[1]")


def test_klue_mrc_says_so_when_the_text_has_no_answer() -> None:
    row = {"title": "소식", "context": "글", "question": "누구?", "answers": {"text": [], "answer_start": []}}
    found = {**row, "answers": {"text": ["철수", "김철수"], "answer_start": [0, 1]}, "is_impossible": False}
    assert answers("klue", "mrc", [found]) == ["철수"]
    missing = [{**row, "question": f"누구 {n}?", "is_impossible": True} for n in range(60)]
    known = [phrasing.answer for phrasing in sources.task("klue", "mrc").phrasings]
    assert set(answers("klue", "mrc", missing)) == {said["none"] for said in known if isinstance(said, dict)}


def test_precedents_without_a_question_are_asked_otherwise() -> None:
    shape = sources.shaper("precedents", "holding")
    for n in range(30):
        made = shape(Row("x", {"id": str(n), "question": "", "judgment": f"【주문】 {n}", "summary": f"요지 {n}"}))
        assert made.turns[1].content == f"요지 {n}"


@pytest.mark.parametrize(
    ("row", "code", "said"),
    [
        ({"id": "1", "document": "좋아요", "label": "2"}, "row-label", "Known: 0, 1"),
        ({"id": "1", "document": "", "label": "1"}, "row-empty", "review is empty"),
        ({"id": "1", "document": 5, "label": "1"}, "row-type", "'document' is 5"),
        ({"id": "1", "label": "1"}, "row-shape", "the field 'review' has no column"),
    ],
)
def test_a_row_that_cannot_be_asked_says_why(row: dict[str, Any], code: str, said: str) -> None:
    found, text = refusal("nsmc", "sentiment", row)
    assert found == code
    assert said in text
    assert text.startswith("x.tsv:7")


def test_braces_in_a_text_stay_text() -> None:
    row = {"title": "{title}", "context": "{context", "question": "{0}?", "answer": "{word:이/가}"}
    (said,) = answers("klue", "mrc", [{**row, "is_impossible": False}])
    assert said == "{word:이/가}"
