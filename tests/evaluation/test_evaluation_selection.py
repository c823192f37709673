"""What a run asks, and what it finds out before a model is loaded: fields, windows, lengths, the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from bigram import Bigram, render
from click.testing import CliRunner
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

from koalpaca_tune.cli.main import cli
from koalpaca_tune.config.recipe import Base
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.evaluation import fit, jobs
from koalpaca_tune.evaluation.choices import Choices
from koalpaca_tune.evaluation.extract import EXTRACT
from koalpaca_tune.evaluation.run import evaluate
from koalpaca_tune.records import Piece, Rendered
from koalpaca_tune.runs import lengths
from koalpaca_tune.suites import fields, items, tasks, texts
from koalpaca_tune.suites.schema import Answer, Rule
from koalpaca_tune.suites.selection import Asked, select
from koalpaca_tune.suites.tasks import Suite
from koalpaca_tune.tokens.encode import Encoder
from koalpaca_tune.tokens.vocabulary import Vocabulary

ROW = {
    "a": "가",
    "n": 3,
    "b": None,
    "list": ["x", "y"],
    "deep": {"er": [{"t": "하나"}, {"t": "둘"}]},
    "p": "['가', '나']",
}


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        ("a", "가"),
        ("n", "3"),
        ("b", ""),
        (["missing", "a"], "가"),
        ("deep.er.t", ["하나", "둘"]),
        (Rule(column="a", table={"가": "나"}), "나"),
        (Rule(column="p", parse="python"), ["가", "나"]),
        (Rule(column="a", strip=True), "가"),
    ],
)
def test_columns_become_fields(rule: str | list[str] | Rule, value: object) -> None:
    assert fields.read({"field": rule}, ROW, "x:1")["field"] == value


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ("missing", "item-columns"),
        (Rule(column="a", table={"나": "다"}), "item-value"),
        (Rule(column="a", parse="python"), "item-shape"),
        ("deep", "item-value"),
    ],
)
def test_columns_that_do_not_fit_say_where(rule: str | Rule, code: str) -> None:
    with pytest.raises(KoalpacaError) as caught:
        fields.read({"field": rule}, ROW, "x.csv:7")
    assert (caught.value.problems[0].code, caught.value.problems[0].where) == (code, "x.csv:7")


@pytest.mark.parametrize(
    ("rule", "value", "index"),
    [
        (Answer(column="c", read="index"), "2", 2),
        (Answer(column="c", read="number"), 2.0, 1),
        (Answer(column="c", read="letter"), "(C)", 2),
        (Answer(column="c", read="choice"), " 둘 ", 1),
        (Answer(column="c", labels={"True": 1, "false": 0}), "TRUE", 1),
        (Answer(column="c", labels={"true": 1, "false": 0}), True, 1),
        (Answer(column="c", at_least=3.0), "2.9", 0),
        (Answer(column="c", at_least=3.0), 3, 1),
    ],
)
def test_right_answers(rule: Answer, value: object, index: int) -> None:
    assert fields.answer(rule, {"c": value}, ["하나", "둘", "셋"], "x:1") == index


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        (Answer(column="c", read="index"), True),
        (Answer(column="c", read="index"), "-1"),
        (Answer(column="c", read="number"), "0"),
        (Answer(column="c", read="letter"), "AB"),
        (Answer(column="c", read="choice"), "넷"),
        (Answer(column="c", labels={"a": 0}), "b"),
        (Answer(column="c", at_least=1.0), "many"),
        (Answer(column="c", read="index"), None),
    ],
)
def test_answers_that_are_none(rule: Answer, value: object) -> None:
    with pytest.raises(KoalpacaError) as caught:
        fields.answer(rule, {"c": value}, ["하나", "둘"], "x:1")
    assert caught.value.problems[0].code == "item-answer"


@pytest.mark.parametrize(
    ("how", "text", "taken"),
    [
        ("boxed", "따라서 $\\boxed{x = 12}$이고 $\\boxed{1{,}000}$", "1000"),
        ("boxed", "답은 $\\boxed{\\frac{1}{2}}$", "0.5"),
        ("boxed", "3개와 4개를 더하면 1,007.50원", "1007.5"),
        ("boxed", "\\boxed{7", ""),
        ("number", "−3보다 작다", "-3"),
        ("number", "없다", ""),
        ("number", "답은 3, 그리고 끝", "3"),
        ("number", "1,234, 즉 1,234,567,", "1234567"),
        ("number", "10,20", "20"),
        ("number", "8-3", "3"),
        ("number", "2024-2025년", "2025"),
        ("number", "f(2)-1/2", "0.5"),
        ("number", "x=-3", "-3"),
        ("boxed", "모두 12,", "12"),
        ("letter", "A는 아니다. 정답: (B)이다", "B"),
        ("letter", "c.", "C"),
        ("letter", "없음", ""),
        ("first-line", "\n  하나\n둘", "하나"),
        ("whole", " 그대로\n", "그대로"),
    ],
)
def test_what_is_taken_of_an_answer(how: str, text: str, taken: str) -> None:
    assert EXTRACT[how](text) == taken


def test_windows_hold_the_whole_text_and_no_more_than_asked() -> None:
    text = "가나다 라마바\n\n사 " + "아" * 30 + " 자차카\n"
    found = list(texts.windows(text, 10, 5))
    assert "".join(part for _, part in found) == text.rstrip()
    assert [part for _, part in found if len(part) > 10] == [" " + "아" * 30]
    assert all(len(before) <= 5 for before, _ in found)
    for (before, _), (front, part) in zip(found[1:], found, strict=False):
        assert (front + part).endswith(before)
    assert list(texts.windows(" \n ", 10, 5)) == []


def test_windows_are_cut_where_llama_3_has_no_token_over_the_cut() -> None:
    vocabulary = llama3_like()
    encoder = Encoder(vocabulary, vocabulary.template("koalpaca"))
    text = "\n\n".join(f"{n}번째 나무꾼이 산에 갔다.\n나무를 했다!\r\n끝_\n노래\n둘" for n in range(8))
    for size in (1, 8, 20, 50):
        found = list(texts.windows(text, size, 30))
        assert "".join(part for _, part in found) == text
        asked = [Rendered((Piece(a, "content"), Piece(b, "content", learn=True)), "x:1") for a, b in found if b]
        assert len(list(encoder.encode(asked))) == len(found)
    # a line end behind a letter is as good a place as a space
    assert [part for _, part in texts.windows("하나\n둘\n셋.\n넷", 1, 0)] == ["하나", "\n둘", "\n셋.\n", "넷"]
    assert [part for _, part in texts.windows("하나.\n\n둘.\n 셋", 1, 0)] == ["하나.\n\n둘.\n 셋"]
    assert len(list(texts.windows("네.\n" * 99, 30, 0))) == 10


def llama3_like() -> Vocabulary:
    """Byte-level BPE with Llama 3's pre-tokeniser, in which marks and the line ends behind them are one word."""
    words = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<e>"], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(["갔다.\n했다!\r\n끝_\n노래\n\n"] * 3, trainer)
    return Vocabulary("llama3-like", backend, None, "<e>", 0)


def test_a_sample_is_the_same_whatever_else_is_asked() -> None:
    task = tasks.find_task("ko-mini-reading")
    ten, five = ([item.id for item in items.load(replace(task, sample=n), None).items] for n in (10, 5))
    assert len(ten) == 10
    assert set(five) < set(ten)
    assert ten == sorted(ten)


def test_options_reach_the_tasks_that_have_them_and_say_which_have_not() -> None:
    suite, notes = select(
        Asked(tasks=("kobest-copa", "belebele-ko"), profile="polyglot", shots=3, limit=7), "ko-mini"
    )
    copa, belebele = suite.tasks
    assert (copa.profile, copa.shots, copa.limit) == ("polyglot", 3, 7)
    assert (belebele.profile, belebele.shots, belebele.limit) == ("lm-eval", 0, 7)
    assert [korean.count("belebele-ko") for korean, _ in notes] == [1, 1]
    assert select(Asked(), "ko-mini")[0].name == "ko-mini"
    assert len(select(Asked(suite="kobest", tasks=("nsmc",)), "ko-mini")[0].tasks) == 6


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (Asked(tasks=("kobest-cop",)), "task-missing"),
        (Asked(suite="kobes"), "suite-missing"),
        (Asked(suite="kobest", tasks=("kobest-copa",)), "suite-twice"),
        (Asked(suite="kobest", profile="fixd"), "task-profile"),
        (Asked(suite="ko-mini", shots=5), "task-shots"),
    ],
)
def test_options_that_reach_nothing_are_errors(asked: Asked, code: str) -> None:
    with pytest.raises(KoalpacaError) as caught:
        select(asked, "ko-mini")
    assert caught.value.problems[0].code == code


class Characters:
    """One token a character; room for 60."""

    room: int | None = 60

    def tokens(self, texts: Sequence[Rendered]) -> list[int]:
        return [len(one.text) for one in texts]

    def cut(self, text: Rendered, tokens: int) -> Rendered:
        (prompt, answer) = text.pieces
        return Rendered((replace(prompt, text=prompt.text[len(text.text) - tokens :]), answer), text.origin)


def speech() -> tuple[tasks.Task, items.ItemSet]:
    task = tasks.find_task("ko-mini-speech-level")
    return task, items.load(task, None)


def test_items_too_long_for_the_base_are_counted_before_it_is_asked(tmp_path: Path) -> None:
    task, chosen = speech()
    over = sum(max(len(item.prompt + choice) for choice in item.choices) > 60 for item in chosen.items)
    assert over > 1
    model = Bigram(["가"])
    with pytest.raises(
        KoalpacaError, match=rf"{over} of the 46 items of 'ko-mini-speech-level' do not fit"
    ) as caught:
        evaluate(
            Suite("x", 1, "x", "x", (task,)),
            model,
            render,
            tmp_path / "out",
            identity={"base": "tiny"},
            lengths=Characters(),
        )
    assert caught.value.problems[0].code == "eval-too-long"
    assert model.scored == 0
    assert not (tmp_path / "out").exists()


def test_a_profile_may_cut_at_the_left_and_it_is_counted() -> None:
    task, chosen = speech()
    profile = task.asked.model_copy(update={"too_long": "cut"})
    work = Choices(task.file, profile, chosen.items, Bigram(["가"]), render, Characters())  # type: ignore[arg-type]
    lines = work.lines(range(46))
    over = [max(len(item.prompt + choice) for choice in item.choices) - 60 for item in chosen.items]
    assert [line.get("cut_left", 0) for line in lines] == [max(0, n) for n in over]
    assert work.summary(lines)["cut_left"] == sum(n > 0 for n in over)


def test_texts_are_cut_between_tokens() -> None:
    counted = lengths.of(Base(path="embedded"), "koalpaca")
    assert counted.room == 1024
    front = "오늘은 날씨가 맑아서 산책을 나갔다. 공원에는 사람이 많았다. 😀 강아지도 있었다."
    text = Rendered((Piece(front, "content"), Piece(" 그래서 즐거웠다.", "content", learn=True)), "x:1")
    (whole,) = counted.encoder.encode([text])
    for keep in range(len(whole.ids) - 1, whole.learned, -1):
        cut = counted.cut(text, keep)
        (ids,) = counted.encoder.encode([cut])
        assert len(ids.ids) <= keep
        assert whole.ids[-len(ids.ids) :] == ids.ids
        assert (ids.learned, cut.text[cut.spans[0][0] :]) == (whole.learned, " 그래서 즐거웠다.")


def test_sizes_count_what_a_model_reads() -> None:
    task, chosen = speech()
    (size,) = fit.sizes([jobs.choice(task, chosen, jobs.NoModel(), render)], Characters())
    read = [len(item.prompt + choice) for item in chosen.items for choice in item.choices]
    assert (size.items, size.requests, size.tokens, size.longest) == (46, 92, sum(read), max(read))


def test_all_tasks_whose_items_are_missing_are_named_at_once() -> None:
    suite, _ = select(Asked(tasks=("nsmc", "kornli", "ko-mini-particle", "text")), "ko-mini")
    with pytest.raises(KoalpacaError) as caught:
        jobs.load(suite, None)
    assert [problem.code for problem in caught.value.problems] == ["data-root"] * 3
    assert [name in str(caught.value) for name in ("'nsmc'", "'kornli'", "'text'")] == [True] * 3


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["eval", *words])
    return result.exit_code, result.output


def test_the_list_names_every_suite_and_task() -> None:
    code, output = run("--list")
    assert code == 0
    squeezed = "".join(output.split())
    assert all(name in squeezed for name in [*tasks.suite_names(), *tasks.task_names()])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "BASE"),
        (("embedded",), "--out"),
        (("embedded", "--out", "x", "--gate"), "--adapter"),
        (("embedded", "--out", "x", "--judge-url", "http://localhost/v1"), "--judge-model"),
        (("embedded", "--out", "x", "--judge-repeats", "2"), "--judge-url"),
        (("embedded", "--out", "x", "--suite", "ko-judged"), "judge-none"),
        (("embedded", "--out", "x", "--judge-url", "http://h/v1", "--judge-model", "m"), "eval-option"),
        (("embedded", "--out", "x", "--data-root", "nowhere"), "data-root"),
        (("embedded", "--out", "x", "--task", "ko-mini-readin"), "task-missing"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_computed(words: tuple[str, ...], said: str) -> None:
    code, output = run(*words)
    assert code == 2
    assert said in output
    assert not Path("x").exists()


def test_a_plan_runs_nothing_and_tells_tokens_and_smallest_change() -> None:
    code, output = run("embedded", "--task", "ko-mini-particle", "--limit", "20", "--plan")
    assert code == 0, output
    assert "20" in output
    assert "%p" in output
