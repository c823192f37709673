"""Korean text: decomposed, in cp949, cut into wrong pieces, translated by machines, polite and plain at once."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from click.testing import CliRunner

from koalpaca_tune import jsonl
from koalpaca_tune.cli.main import cli
from koalpaca_tune.data import load as data
from koalpaca_tune.data.quality import translation
from koalpaca_tune.evaluation import requests
from koalpaca_tune.inference.decoding import HALF, Stream
from koalpaca_tune.measures import morphemes
from koalpaca_tune.measures.overlap import rouge_l, rouge_n
from koalpaca_tune.models import tokenizer
from koalpaca_tune.records import Turn
from koalpaca_tune.suites import items, tasks
from koalpaca_tune.tokens.encode import Encoder

PAIRS = (
    ("김치찌개는 어떻게 끓이나요?", "김치와 돼지고기를 볶은 다음 물을 붓고 끓이세요."),
    ("비 오는 날에는 뭘 하면 좋을까요?", "따뜻한 차를 마시며 책을 읽어 보세요."),
    ("한글은 누가 만들었나요?", "세종대왕이 만들었습니다."),
    ("겨울에 갈 만한 곳을 알려 주세요.", "눈 덮인 한라산을 걸어 보세요."),
)
TRANSLATED = (
    ("홀수 중 하나를 밝히세요.", "트위터, 인스타그램, 텔레그램", "텔레그램은 메신저입니다."),
    ("세 가지 기본 색은 무엇인가요?", "", "빨강, 파랑, 노랑이 세 가지 기본 색입니다."),
    ("건강을 지키는 세 가지 방법을 알려 주세요.", "", "골고루 먹고, 꾸준히 움직이고, 충분히 주무세요."),
)
PLAIN = ("심심한데 뭐 하지?", "나랑 산책이나 가자. 날씨도 좋다.")


class Prepared(NamedTuple):
    """What `koalpaca data prepare` wrote."""

    records: list[dict[str, Any]]
    rejected: list[dict[str, Any]]
    signals: dict[str, Any]

    def of(self, file: str) -> list[dict[str, Any]]:
        return [one for one in self.records if Path(one["origin"].split(":")[0]).name == file]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """A cp949 file, the same in NFD, two translated sets that overlap, and an answer in 반말."""
    top = tmp_path_factory.mktemp("korean")
    lines = ["질문,답변", *(f'"{question}","{answer}"' for question, answer in PAIRS[:2])]
    (top / "cp949.csv").write_bytes(("\r\n".join(lines) + "\r\n").encode("cp949"))
    apart = [{"question": q, "answer": a} for q, a in (*PAIRS[2:], PLAIN)]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in apart)
    (top / "nfd.jsonl").write_text(unicodedata.normalize("NFD", text), encoding="utf-8")
    rows = [dict(zip(("instruction", "input", "output"), row, strict=True)) for row in TRANSLATED]
    jsonl.write(top / "one.jsonl", rows)
    # another translation of the same set differs in a comma and a space
    jsonl.write(top / "two.jsonl", [{**row, "output": row["output"].replace(", ", " ,")} for row in rows])
    names = [str(top / name) for name in ("cp949.csv", "nfd.jsonl", "one.jsonl", "two.jsonl")]
    words = ["data", "prepare", *names, "--out", str(top / "out"), "--workers", "1"]
    done = CliRunner().invoke(cli, [*words, "--set", "speech.keep=[하십시오체, 해요체]"], catch_exceptions=False)
    assert done.exit_code == 0, done.output

    def read(name: str) -> list[dict[str, Any]]:
        return [row for _, row in jsonl.read(top / "out" / name)]

    measured = {row["id"]: row for row in read("quality.jsonl")}
    return Prepared(read("train.jsonl") + read("valid.jsonl"), read("rejected.jsonl"), measured)


def said(record: dict[str, Any]) -> list[str]:
    return [turn["content"] for turn in record["messages"]]


def test_nfd_text_is_composed_and_costs_half_the_tokens(prepared: Prepared, tmp_path: Path) -> None:
    """A file from macOS: letters apart, twice the tokens, and a morpheme analysis of nothing."""
    found = sorted(said(one) for one in prepared.of("nfd.jsonl"))
    assert found == sorted([list(pair) for pair in PAIRS[2:]])
    whole = "한글은 누가 만들었나요?"
    apart = unicodedata.normalize("NFD", whole)
    vocabulary = tokenizer.load("embedded")
    count = [len(vocabulary.backend.encode(text).ids) for text in (whole, apart)]
    assert count[1] > 2 * count[0]
    assert morphemes.of(apart) == morphemes.of(whole)
    # a file that was not prepared is composed on its way to training
    raw = tmp_path / "raw.jsonl"
    raw.write_text(json.dumps({"question": apart, "answer": apart}, ensure_ascii=False) + "\n", encoding="utf-8")
    (conversation,) = data.conversations(raw)
    assert [turn.content for turn in conversation.turns] == [whole, whole]


def test_cp949_csv_is_read_as_what_it_is(prepared: Prepared) -> None:
    """Excel writes cp949; read as UTF-8 it is an error, or a text of broken letters that trains without one."""
    assert sorted(said(one) for one in prepared.of("cp949.csv")) == sorted([list(pair) for pair in PAIRS[:2]])


def test_jieba_korean_rouge_counts_morphemes_not_syllables() -> None:
    """A Chinese segmenter cuts Korean into single syllables: different words overlap, endings hide the same one."""
    assert {"서울/NNP", "대한민국/NNP"} <= set(morphemes.of("대한민국의 수도는 서울입니다."))
    # the same words with other endings
    assert rouge_n("서울은 수도이다", "수도가 서울이다", 1) > 0.6
    # the same syllables in other words
    assert rouge_n("사과 나라", "나사 과라", 1) == 0.0
    assert rouge_l("봄이 온다", "봄이 온다") == 1.0


def test_kobest_wic_the_particle_fits_the_word(tmp_path: Path) -> None:
    """`{word}가` is in the published prompt, after 철 as after 배. It is kept as published; mended beside it."""
    folder = tmp_path / "kobest" / "WiC"
    folder.mkdir(parents=True)
    (folder / "test.tsv").write_text(
        "ID\tTarget\tSENTENCE1\tSENTENCE2\tANSWER\r\n1\t철\t[철]에 핀다.\t[철]이 든다.\tTRUE\r\n"
        "2\t배\t[배]를 먹다.\t[배]를 타다.\tFALSE\r\n",
        encoding="utf-8",
    )
    asked = {
        profile: [
            item.prompt.split("두 문장에서 ")[1]
            for item in items.load(tasks.asked_by(tasks.find_task("kobest-wic"), profile, ""), tmp_path).items
        ]
        for profile in ("lm-eval", "fixed")
    }
    assert asked["lm-eval"] == ["철가 같은 뜻으로 쓰였나?", "배가 같은 뜻으로 쓰였나?"]
    assert asked["fixed"] == ["철이 같은 뜻으로 쓰였나?", "배가 같은 뜻으로 쓰였나?"]


def test_translated_rows_that_machines_damaged_are_counted(prepared: Prepared) -> None:
    """ "홀수 중 하나를 밝히세요" for "odd one out": an odd number among things that are none."""
    (odd,) = [one for one in prepared.records if said(one)[0].startswith("홀수")]
    others = [one for one in prepared.records if one is not odd]
    assert prepared.signals[odd["id"]]["signals"]["literal-phrases"] == 1
    assert not any(prepared.signals[one["id"]]["signals"].get("literal-phrases") for one in others)
    assert translation.odd_one_out(Turn("user", "다음 중 홀수를 고르세요. 사과, 배, 당근"))
    # odd numbers that are meant
    for meant in (
        "1부터 10까지 홀수를 찾으세요.",
        "홀수와 짝수의 차이를 설명해 주세요.",
        "홀수를 고르는 함수를 짜 줘.",
    ):
        assert not translation.odd_one_out(Turn("user", meant))
    # left in English
    assert (
        translation.english("세 가지 색을 말해 주세요.", "빨강, please choose one of them, 파랑입니다.").words > 3
    )


def test_koalpaca_23_one_speech_level_can_be_kept(prepared: Prepared) -> None:
    """존댓말 and 반말 mixed within a set: the model answers now so, now so."""
    (plain,) = [row for row in prepared.rejected if "speech" in row["reason"]]
    assert PLAIN[1] in json.dumps(plain, ensure_ascii=False)
    assert all("산책이나" not in said(one)[1] for one in prepared.records)


def test_overlapping_translated_sets_are_taken_once(prepared: Prepared) -> None:
    """Sets that share their source are merged, and the same example comes many times within an epoch."""
    assert len(prepared.of("one.jsonl")) == 3
    assert prepared.of("two.jsonl") == []
    reasons = [row["reason"] for row in prepared.rejected if "two.jsonl" in row["origin"]]
    assert len(reasons) == 3
    assert all(reason.startswith("duplicate-") for reason in reasons)


def test_transformers_22664_a_stream_shows_whole_syllables() -> None:
    """Bytes of a syllable come one by one; half of one is shown as a question mark that never goes away."""
    vocabulary = tokenizer.load("embedded")
    text = "뷁쉣 궭 괜찮아요? 👩‍👩‍👧 끝"
    ids = vocabulary.literal_ids(text, begins=True)
    assert any(vocabulary.decode(ids[: n + 1]).endswith(HALF) for n in range(len(ids))), "tokens of half a syllable"
    shown: list[str] = []
    stream = Stream(vocabulary, [vocabulary.id(vocabulary.eos)], shown.append)
    stream.put(torch.tensor([[1, 2, 3]]))
    for token in ids:
        stream.put(torch.tensor([token]))
    stream.end()
    assert "".join(shown) == text
    assert len(shown) > 3
    assert not any(HALF in piece for piece in shown)


NSMC = {
    "test": [("재미있는 영화", "1"), ("시간이 아깝다", "0")],
    "train": [("또 보고 싶다", "1"), ("졸았다", "0"), ("최고의 연기", "1"), ("실망했다", "0")],
}


@pytest.mark.parametrize("profile", ["koalpaca", "fixed"])
def test_koalpaca_nsmc_examples_carry_their_own_labels(tmp_path: Path, profile: str) -> None:
    """A published few-shot table was made with a prompt bug. Here what is scored is known word for word."""
    (tmp_path / "nsmc").mkdir()
    for part, rows in NSMC.items():
        lines = ["id\tdocument\tlabel", *(f"{n}\t{text}\t{label}" for n, (text, label) in enumerate(rows))]
        (tmp_path / "nsmc" / f"{part}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    task = tasks.with_shots(tasks.asked_by(tasks.find_task("nsmc"), profile, ""), 2, "")
    vocabulary = tokenizer.load("embedded")
    encoder = Encoder(vocabulary, vocabulary.template("koalpaca"))
    pattern = {"koalpaca": "문장: {}\n감정:", "fixed": "다음 문장은 긍정일까요 부정일까요?\n{}\n정답:"}[profile]
    words = {"0": " 부정", "1": " 긍정"}
    known = {pattern.format(text) + words[label] for text, label in NSMC["train"]}
    for item, (text, label) in zip(items.load(task, tmp_path).items, NSMC["test"], strict=True):
        choices = requests.of_choices(task.asked, item, encoder.render)[:2]
        assert item.answer == int(label)
        for answer, choice in zip((" 부정", " 긍정"), choices, strict=True):
            *examples, last = choice.text.split("\n\n")
            assert last == pattern.format(text) + answer
            assert len(examples) == len(set(examples)) == 2
            assert set(examples) <= known, "examples of the training part, each with its own label"
            ((start, end),) = choice.spans
            assert choice.text[start:end] == answer


@pytest.mark.parametrize("shots", [0, 2])
def test_koalpaca_nsmc_prompts_are_held_against_another_harness(tmp_path: Path, shots: int) -> None:
    """A harness must be checked against another: what is scored here is what lm-eval 0.4.13 wrote itself."""
    known = Path(__file__).parent.parent / "evaluation" / "data"
    for name, lines in json.loads((known / "kobest_rows.json").read_text(encoding="utf-8")).items():
        path = tmp_path / "kobest" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join("\t".join(line) + "\r\n" for line in lines), encoding="utf-8", newline="")
    golden = json.loads((known / "lm_eval_golden.json").read_text(encoding="utf-8"))["sentineg"]
    theirs = [[before + answer for before, answer in one["requests"]] for one in golden if one["shots"] == shots]
    task = tasks.with_shots(tasks.asked_by(tasks.find_task("kobest-sentineg"), "lm-eval", ""), shots, "")
    vocabulary = tokenizer.load("embedded")
    encoder = Encoder(vocabulary, vocabulary.template("koalpaca"))
    ours = [
        [choice.text for choice in requests.of_choices(task.asked, item, encoder.render)]
        for item in items.load(task, tmp_path).items
    ]
    assert ours == theirs != []
