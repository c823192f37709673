"""`koalpaca data look` and `data tokens`: what is printed, which records, in which order, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from koalpaca_tune import jsonl
from koalpaca_tune.cli import look as drawing
from koalpaca_tune.cli.entries import Filter, open_file
from koalpaca_tune.cli.main import cli
from koalpaca_tune.cli.signals import Signals
from koalpaca_tune.data.words import REASONS
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.records import Conversation, Turn

TALKS = (
    Conversation((Turn("user", "떡볶이 먹고 싶다"), Turn("assistant", "드세요!")), "상담.csv:2", "상담"),
    Conversation(
        (
            Turn("system", "짧게 답하세요."),
            Turn("user", "몇 개 남지?", "사과 셋에서 하나를 먹었다."),
            Turn("assistant", "두 개요."),
        ),
        "more/b.jsonl:10",
        "b",
        dispreferred="세 개요.",
    ),
    Conversation((Turn("user", "Seoul은?"), Turn("assistant", "수도요.\n한강이 있어요.")), "more/b.jsonl:1", "b"),
)
IDS = [one.id for one in TALKS]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What `prepare` leaves behind, in the current folder; signals for two of three records."""
    monkeypatch.chdir(tmp_path)
    jsonl.write(Path("train.jsonl"), (one.as_dict() for one in TALKS))
    signals = ({"repetition": 0.25, "speech": "해요체"}, {"repetition": 0.75, "hangul": 0.9, "truncated": True})
    measured: list[dict[str, Any]] = [{"id": id, "signals": one} for id, one in zip(IDS, signals, strict=False)]
    measured[0] |= {"examples": {"particle-errors": "떡볶이을"}, "masked": {"phone": 2}}
    jsonl.write(Path("quality.jsonl"), measured)
    rejected: list[dict[str, Any]] = [
        {
            "origin": "a.csv:3",
            "reason": "row-empty",
            "what": "the answer is empty.",
            "row": {"질문": "왜?", "답변": ""},
        },
        {"origin": "a.csv:4", "reason": "made-up", "what": "it is odd.", "row": TALKS[0].as_dict()},
        {"origin": "a.csv:5", "reason": "row-json", "what": "not JSON.", "row": "{질문"},
    ]
    jsonl.write(Path("rejected.jsonl"), rejected)
    return tmp_path


def koalpaca(*words: str) -> Result:
    return CliRunner().invoke(cli, list(words), catch_exceptions=False)


def shown(*words: str) -> str:
    done = koalpaca("data", "look", *words)
    assert done.exit_code == 0, done.output
    return done.stdout


def refused(*words: str) -> str:
    done = koalpaca("data", "look", *words)
    assert (done.exit_code, done.stdout) == (2, "")
    return done.stderr


def origins(text: str) -> list[str]:
    return [line.split()[1] for line in text.splitlines() if line.startswith("── ")]


def test_conversations_are_shown_to_be_read(folder: Path) -> None:
    assert (
        shown("train.jsonl")
        == f"""── 상담.csv:2  상담 · {IDS[0]}
질문 (user)
떡볶이 먹고 싶다
답변 (assistant)
드세요!
신호 (signals): 글자 반복 (repetition) 0.25, 답변의 말투 (speech) 해요체, 가린 phone (masked) 2
  조사 오류 (particle-errors): 떡볶이을

── more/b.jsonl:10  b · {IDS[1]}
시스템 (system)
짧게 답하세요.
질문 (user)
몇 개 남지?
맥락 (context)
사과 셋에서 하나를 먹었다.
답변 (assistant)
두 개요.
진 답변 (dispreferred, not learned)
세 개요.
신호 (signals): 글자 반복 (repetition) 0.75, 답변의 한글 비율 (hangul) 0.9, 끊긴 답변 (truncated) 예 (yes)

── more/b.jsonl:1  b · {IDS[2]}
질문 (user)
Seoul은?
답변 (assistant)
수도요.
한강이 있어요.

"""
    )


def test_rejected_rows_are_shown_with_reason_and_row(folder: Path) -> None:
    text = shown("rejected.jsonl")
    assert origins(text) == ["a.csv:3", "a.csv:4", "a.csv:5"]
    first, second, third = text.split("── ")[1:]
    assert (
        f"제외 (rejected): {REASONS['row-empty']} (row-empty)\nthe answer is empty.\n질문\n왜?\n답변\n\n" in first
    )
    assert "제외 (rejected): made-up\nit is odd.\n질문 (user)\n떡볶이 먹고 싶다\n" in second
    assert "읽은 그대로 (as read)\n{질문\n" in third


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--grep", "한강"], [2]),
        (["--grep", "seoul"], [2]),
        (["--grep", "세 개요"], [1]),
        (["--grep", "셋에서"], [1]),
        (["--source", "b"], [1, 2]),
        (["--origin", "more/b.jsonl:1"], [2]),
        (["--origin", "b.jsonl:1"], [2]),
        (["--origin", "b.jsonl"], [1, 2]),
        (["--id", IDS[0][:6].upper()], [0]),
        (["--source", "b", "--grep", "한강"], [2]),
        (["--source", "b", "--skip", "1"], [2]),
        (["--count", "2"], [0, 1]),
        (["--skip", "1", "--count", "1"], [1]),
        (["--sort-by", "repetition"], [1, 0, 2]),
        (["--sort-by", "repetition", "--reverse"], [2, 0, 1]),
    ],
)
def test_which_records_and_in_which_order(folder: Path, words: Sequence[str], found: Sequence[int]) -> None:
    assert origins(shown("train.jsonl", *words)) == [TALKS[n].origin for n in found]


def test_grep_finds_nfd_by_nfc(folder: Path) -> None:
    row = {"origin": "a.csv:1", "reason": "row-empty", "what": "", "row": {"질문": "한글"}}
    jsonl.write(Path("rejected.jsonl"), [row])
    assert origins(shown("rejected.jsonl", "--grep", "한글")) == ["a.csv:1"]


def test_the_worst_is_first_whichever_way_a_signal_points(folder: Path) -> None:
    """Hangul is bad when there is little, numbers when many are lost; what found nothing is not in the file."""
    measured = [({"hangul": 0.5}, IDS[0]), ({"hangul": 0.0, "lost-numbers": 0.5}, IDS[1]), ({}, IDS[2])]
    jsonl.write(Path("quality.jsonl"), ({"id": id, "signals": signals} for signals, id in measured))

    def order(*words: str) -> list[int]:
        return [[talk.origin for talk in TALKS].index(origin) for origin in origins(shown("train.jsonl", *words))]

    assert order("--sort-by", "hangul") == [1, 0, 2], "nothing to measure comes last"
    assert order("--sort-by", "hangul", "--reverse") == [0, 1, 2]
    assert order("--sort-by", "lost_numbers") == [1, 0, 2]
    assert order("--sort-by", "lost-numbers", "--reverse") == [0, 2, 1], "none lost is the best"
    assert "'kana' found nothing in any record." in refused("train.jsonl", "--sort-by", "kana")


def test_rejected_by_reason(folder: Path) -> None:
    assert origins(shown("rejected.jsonl", "--reason", "row-json")) == ["a.csv:5"]
    said = refused("rejected.jsonl", "--reason", "row-jsno")
    assert said.startswith("error [look-nothing]: rejected.jsonl: no record is like that. Did you mean 'row-json'?")


def test_a_seed_gives_one_order_with_everything_in_it(folder: Path) -> None:
    many = [Conversation((Turn("user", f"{n}?"), Turn("assistant", "네")), f"a.csv:{n}") for n in range(50)]
    jsonl.write(Path("train.jsonl"), (one.as_dict() for one in many))
    one, again, other = (origins(shown("train.jsonl", "--shuffle", seed, "--count", "50")) for seed in "113")
    assert one == again != other
    assert sorted(one) == sorted(other) == sorted(talk.origin for talk in many)
    assert origins(shown("train.jsonl", "--shuffle", "1", "--count", "3", "--skip", "2")) == one[2:5]


def test_other_files_are_read_and_their_broken_rows_stand_in_their_place(folder: Path) -> None:
    Path("a.csv").write_text("질문,답변\n하나,1\n둘\n셋,3\n", encoding="cp949")
    text = shown("a.csv")
    assert origins(text) == ["a.csv:2", "a.csv:3", "a.csv:4"]
    assert "row-fields" in text.split("── ")[2]


def test_a_broken_line_of_a_prepared_file_is_shown_as_it_is(folder: Path) -> None:
    with Path("train.jsonl").open("a", encoding="utf-8") as file:
        file.write('\n{"id": 떡\n')
    text = shown("train.jsonl", "--skip", "3")
    assert text.startswith("── train.jsonl:5")
    assert "jsonl-line\nthe line is not JSON" in text
    assert '{"id": 떡' in text
    assert refused("train.jsonl", "--skip", "3", "--tokens").startswith("error [jsonl-line]: train.jsonl:5: ")


def test_control_characters_cannot_reach_the_terminal(folder: Path) -> None:
    evil = Conversation(
        (Turn("user", "\x1b[2J\x07지움\x9b31m\u202e"), Turn("assistant", "네")), "a\x1b.csv:1", "s\x1b"
    )
    jsonl.write(Path("train.jsonl"), [evil.as_dict()])
    for words in ([], ["--tokens"]):
        text = shown("train.jsonl", *words)
        assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(text)
        assert "␛[2J␇지움" in text
    assert drawing.visible("줄\n바꿈\t칸") == "줄\n바꿈\t칸"


def test_base_or_template_turns_the_view_of_tokens_on(folder: Path, tiny_bases: dict[str, str]) -> None:
    wanted = "### 질문: 떡볶이 먹고 싶다\n\n### 답변:⟦ 드세요!<|endoftext|>⟧"
    for words in (["--tokens"], ["--template", "koalpaca"], ["--base", tiny_bases["gpt_neox"]]):
        assert wanted in shown("train.jsonl", "--count", "1", *words)
    assert "### 명령어:\n떡볶이" in shown("train.jsonl", "--count", "1", "--template", "kullm-v2")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train.jsonl", "--skip", "3"], "error [look-nothing]: train.jsonl: there are no more than 3 records."),
        (["train.jsonl", "--grep", "없는 말"], "error [look-nothing]: train.jsonl: no record is like that."),
        (["train.jsonl", "--reason", "row-empty"], "error [look-option]: train.jsonl: --reason wants "),
        (["rejected.jsonl", "--tokens"], "error [look-option]: rejected.jsonl: --tokens wants "),
        (["rejected.jsonl", "--sort-by", "repetition"], "error [look-option]: rejected.jsonl: --sort-by wants "),
        (["train.jsonl", "--sort-by", "repetiton"], "Did you mean 'repetition'?"),
        (
            ["train.jsonl", "--sort-by", "speech"],
            "error [look-signal]: quality.jsonl: 'speech' is '해요체', not a number.",
        ),
        (["train.jsonl", "--sort-by", "repetition", "--shuffle", "1"], "Usage: "),
        (["train.jsonl", "--reverse"], "Usage: "),
        (["lacking.jsonl"], "error [file-missing]: lacking.jsonl: "),
    ],
)
def test_what_does_not_go_is_said(folder: Path, words: Sequence[str], said: str) -> None:
    assert said in refused(*words)


def test_nothing_was_set_aside(folder: Path) -> None:
    Path("rejected.jsonl").write_text("", encoding="utf-8")
    for words in ([], ["--reason", "row-empty"]):
        assert "rejected.jsonl: it is empty: no row was set aside." in refused("rejected.jsonl", *words)


# places, not texts


def test_only_as_much_is_read_as_is_asked_for(folder: Path) -> None:
    found = open_file(Path("train.jsonl"), Filter()).entries
    assert (len(found), found.complete) == (0, False)
    assert found.has(0)
    assert (len(found), found.complete) == (1, False)
    assert found[2].origin == TALKS[2].origin
    assert found[0].conversation == TALKS[0]
    assert not found.has(3)
    assert (len(found), found.complete) == (3, True)
    assert found.find("떡볶이", 0) == 0
    assert found.find("떡볶이", 1) is None


def test_signals_are_found_in_any_order_and_for_any_writer(folder: Path) -> None:
    signals = Signals(Path("quality.jsonl"))
    assert signals.of(IDS[1])["signals"]["repetition"] == 0.75
    assert signals.of(IDS[0])["signals"]["repetition"] == 0.25
    assert signals.of(IDS[2]) == {}
    Path("quality.jsonl").write_text(json.dumps({"signals": {"a": 1}, "id": IDS[2]}, indent=None) + "\n")
    assert Signals(Path("quality.jsonl")).of(IDS[2])["signals"] == {"a": 1}
    Path("quality.jsonl").write_text("{\n", encoding="utf-8")
    assert Signals(Path("quality.jsonl")).of(IDS[0]) == {}
    with pytest.raises(KoalpacaError, match="not JSON"):
        Signals(Path("quality.jsonl")).values("repetition")


# tokens


def test_tokens_prints_the_table_and_writes_only_with_out(folder: Path, tiny_bases: dict[str, str]) -> None:
    tiny = tiny_bases["gpt_neox"]
    before = sorted(folder.iterdir())
    words = ["data", "tokens", "train.jsonl", "--tokenizer", "embedded", "--tokenizer", tiny, "--max-length", "20"]
    done = koalpaca(*words)
    assert done.exit_code == 0
    assert sorted(folder.iterdir()) == before
    for said in ("글자당 토큰", "tokens/character", "8,192", "more/b.jsonl:10: "):
        assert said in done.stdout
    assert koalpaca(*words, "--out", "out").exit_code == 0
    assert sorted(path.name for path in Path("out").iterdir()) == ["tokens.html", "tokens.json", "tokens.md"]
    made = jsonl.read_json(Path("out/tokens.json"))
    assert [one["name"] for one in made["surveys"]] == ["embedded", tiny]
    assert made["records"] == 3


def test_tokens_counts_rows_that_cannot_be_read(folder: Path) -> None:
    Path("a.csv").write_text("질문,답변\n하나,1\n둘\n셋,3\n", encoding="utf-8")
    done = koalpaca("data", "tokens", "a.csv", "train.jsonl")
    assert "기록 5개" in done.stdout
    assert "읽지 못한 행 (rows not read): 1. a.csv:3: " in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lacking.jsonl"], "error [file-missing]: lacking.jsonl: "),
        (["train.jsonl", "--tokenizer", "./lacking"], "error [base-missing]: ./lacking: "),
        (["train.jsonl", "--template", "koalpacca"], "error [template-unknown]: "),
        (["train.jsonl", "--out", "train.jsonl"], "error [out-folder]: train.jsonl: "),
        ([], "Usage: "),
    ],
)
def test_what_tokens_refuses(folder: Path, words: Sequence[str], said: str) -> None:
    done = koalpaca("data", "tokens", *words)
    assert done.exit_code == 2
    assert said in done.stderr
