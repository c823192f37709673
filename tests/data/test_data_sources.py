"""What data/sources says of the public sets, and what `source:NAME` stands for."""

from __future__ import annotations

from pathlib import Path

import pytest

from koalpaca_tune import resources
from koalpaca_tune.config import document
from koalpaca_tune.config.check import check
from koalpaca_tune.config.preparation import Input
from koalpaca_tune.data import instructions, sources
from koalpaca_tune.data.instructions import FEWEST
from koalpaca_tune.data.reading import readers
from koalpaca_tune.data.shaping import shapes
from koalpaca_tune.data.sources import Source, Use
from koalpaca_tune.data.terms import terms
from koalpaca_tune.errors import KoalpacaError


def given(path: str, **options: object) -> Input:
    return Input.model_validate({"path": path, **options})


def refused(path: str, root: Path | None = None, **options: object) -> tuple[str, str]:
    with pytest.raises(KoalpacaError) as caught:
        sources.inputs(given(path, **options), root)
    return caught.value.problems[0].code, str(caught.value)


@pytest.mark.parametrize("name", sources.names())
def test_every_description_is_whole(name: str) -> None:
    source = sources.load(name)
    assert source.name == name
    assert source.url is None or source.url.startswith("https://")
    assert set(source.overlaps) <= set(sources.names())
    for part in source.parts:
        if part.task is None:
            shapes.guess(part.columns, name, part.shape)
        else:
            assert len(source.tasks[part.task].phrasings) >= FEWEST


@pytest.mark.parametrize("name", sources.names())
def test_flags_say_no_less_than_the_licence_does(name: str) -> None:
    source = sources.load(name)
    asked = terms(source.licence)
    for flag in ("noncommercial", "sharealike", "noderivatives"):
        said, known = getattr(source, flag), getattr(asked, flag)
        assert said == known or (known is False and said == "unknown"), flag
    if "unknown" in (source.licence, source.noncommercial):
        assert source.terms.obligations


@pytest.mark.parametrize("name", sources.names())
def test_where_a_fact_was_found_is_written_down(name: str) -> None:
    head = (sources.FOLDER / f"{name}.yaml").read_text(encoding="utf-8").partition("\nname:")[0]
    assert head.startswith("# ")
    assert "://" in head or "data/samples/README.md" in head


def test_the_sets_of_the_issue_are_described() -> None:
    assert len(sources.names()) >= 14
    assert {
        *("koalpaca-v1.1a", "koalpaca-v1.0", "kullm-v2", "kor-openorca-platypus", "openorca-ko", "ko-wikidata-qa"),
        *("dolly-15k-ko", "guanaco-ko", "kobest", "klue", "nsmc", "korquad-v1", "kornli", "korsts"),
        *("chatbot_data", "question_pair", "precedents", "samples"),
    } <= set(sources.names())


def test_the_samples_are_as_described() -> None:
    files = {part.file: part for part in sources.load("samples").parts}
    shipped = [path for path in (resources.DATA / "samples").iterdir() if path.suffix in readers.SUFFIXES]
    assert set(files) == {path.name for path in shipped}
    for path in shipped:
        opened = readers.read(path)
        assert (opened.format, list(opened.columns)) == (files[path.name].format, files[path.name].columns)


def test_an_unknown_source_is_an_error_with_a_suggestion() -> None:
    with pytest.raises(KoalpacaError, match="Did you mean 'chatbot_data'") as caught:
        sources.load("chatbot-data")
    assert caught.value.problems[0].code == "source-missing"


def test_shipped_files_need_no_folder() -> None:
    uses = sources.inputs(given("source:samples", weight=2.0), None)
    assert {Path(use.given.path).name for use in uses} == {"chat.csv", "tasks.jsonl", "dialogues.jsonl"}
    assert all(Path(use.given.path).is_file() and use.given.weight == 2.0 for use in uses)
    assert {(use.source, use.given.name, use.task) for use in uses} == {("samples", "samples", None)}


def test_the_hub_is_taken_at_the_pinned_commit_where_no_folder_is_given() -> None:
    uses = sources.inputs(given("source:kobest"), None)
    pinned = sources.load("kobest").revision
    assert {use.task for use in uses} == {"boolq", "copa", "wic", "hellaswag", "sentineg"}
    assert {(use.given.path, use.given.split, use.given.revision) for use in uses} == {
        ("hf:skt/kobest_v1", "train", pinned)
    }
    assert [use.given.config for use in uses] == [use.task for use in uses]
    other = "a" * 40
    assert {use.given.revision for use in sources.inputs(given("source:kobest", revision=other), None)} == {other}


def test_files_are_taken_where_a_folder_is_given(tmp_path: Path) -> None:
    path = tmp_path / "nsmc" / "train.tsv"
    path.parent.mkdir()
    path.write_text("id\tdocument\tlabel\n1\t좋아요\t1\n", encoding="utf-8")
    (use,) = sources.inputs(given("source:nsmc", name="평"), tmp_path)
    assert use == Use(given(str(path), name="평"), "nsmc", "sentiment")


def test_one_task_can_be_asked_for(tmp_path: Path) -> None:
    (use,) = sources.inputs(given("source:kobest/wic"), None)
    assert (use.task, use.given.config) == ("wic", "wic")
    code, said = refused("source:kobest/wik")
    assert code == "source-task"
    assert "Did you mean 'wic'" in said


def test_held_out_splits_are_not_trained_on(tmp_path: Path) -> None:
    """Training on what a suite judges by makes its scores worthless."""
    for split in ("test", "valid"):
        code, said = refused("source:kobest", split=split)
        assert code == "source-evaluation"
        assert f"'{split}'" in said
    trained = [use.given.path for use in sources.inputs(given("source:klue"), None)]
    assert trained == ["hf:klue/klue"] * 4


def test_a_set_that_must_be_fetched_says_from_where(tmp_path: Path) -> None:
    code, said = refused("source:korquad-v1")
    assert code == "source-folder"
    assert "korquad.github.io" in said
    assert "FOLDER/korquad" in said
    code, said = refused("source:korquad-v1", tmp_path)
    assert code == "source-file"
    assert "KorQuAD_v1.0_train.json" in said


@pytest.mark.parametrize("option", ["shape", "encoding", "sheet", "config"])
def test_options_that_the_description_decides_are_refused(option: str) -> None:
    code, said = refused("source:samples", **{option: "qa"})
    assert code == "source-option"
    assert f"'{option}'" in said


def read(text: str) -> Source:
    return check(Source, document.parse(text, "set.yaml"))


WRITTEN = """
name: pairs
title: 짝
url: https://example.org
folder: pairs
revision: null
licence: MIT
noncommercial: false
sharealike: false
noderivatives: false
translated: "no"
parts:
  - file: a.csv
    format: csv
    columns: [낱말, 뜻]
    task: meaning
tasks:
  meaning:
    title: 뜻풀이
    fields:
      word: [낱말]
      meaning: [뜻]
    phrasings:
      - {ask: "{word:은/는} 무슨 뜻인가요?", answer: "{meaning}"}
      - {ask: "{word:이라는/라는} 말의 뜻은?", answer: "{meaning}"}
      - {ask: "‘{word}’의 뜻을 알려 주세요.", answer: "{meaning}"}
      - {ask: "{word:을/를} 풀이해 줘.", answer: "{meaning}"}
"""


def test_a_description_of_ones_own_reads() -> None:
    assert instructions.columns(read(WRITTEN).tasks["meaning"], ["뜻", "낱말"]) == {"word": "낱말", "meaning": "뜻"}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[낱말, 뜻]", "[낱말]", "the field 'meaning' has no column here"),
        ("meaning: [뜻]", "meaning: [낱말, 뜻]", "several columns"),
        ("{word:을/를}", "{wrod:을/를}", "Did you mean 'word'"),
        ("{word:을/를}", "{word:을}", "is not a pair of particles"),
        ("task: meaning", "task: meening", "'meening' is none of the tasks"),
        ("revision: null", "revision: abc1234", "no full commit"),
        ("    format: csv\n", "", "a file needs a format"),
        ("  - file: a.csv\n    format: csv\n", "  - hub: {split: train}\n", "there is no repository"),
        ('      - {ask: "{word:을/를} 풀이해 줘.", answer: "{meaning}"}\n', "", "at least 4"),
        ("    title: 뜻풀이\n", "    title: 뜻풀이\n    label: word\n", "a label needs labels or bins"),
        ("noncommercial: false", "noncommercial: maybe", "noncommercial"),
    ],
)
def test_a_description_that_does_not_fit_is_refused_when_read(old: str, new: str, said: str) -> None:
    assert old in WRITTEN
    with pytest.raises(KoalpacaError, match=r"set\.yaml") as caught:
        read(WRITTEN.replace(old, new))
    assert said in str(caught.value)
