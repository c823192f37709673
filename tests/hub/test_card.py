"""The card says what was done and found, as it was; and nothing of the machine it was done on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from comparisons import compared

from koalpaca_tune import jsonl
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.hub import card

HOME = "/home/kim-cheolsu/비밀"
"""Where the fixtures' run lies; no card may say so."""


def written(adapter: Path, comparison: Path | None = None, **choices: Any) -> str:
    asked = {"repo": "me/talk", "license": "apache-2.0", "data_licenses": ["mit"], **choices}
    path = card.write(adapter, comparison, **asked)
    assert path == adapter / "README.md"
    return path.read_text(encoding="utf-8")


def head(text: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text.split("---\n")[1])
    return found


def test_head_is_what_the_hub_reads(adapter: Path) -> None:
    assert head(written(adapter)) == {
        "language": "ko",
        "license": "apache-2.0",
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "base_model": "EleutherAI/polyglot-ko-1.3b",
        "base_model_relation": "adapter",
        "tags": ["koalpaca-tune", "korean", "qlora"],
    }


@pytest.mark.parametrize(
    "part",
    [
        "# me/talk",
        "| 이름 (base) | EleutherAI/polyglot-ko-1.3b |",
        "| 판 (revision) | 557e162cf6e944fdbae05bab2e45d066a125eacb |",
        "| 학습 데이터 (train) | train.jsonl (sha256 cccccccccccccccc) |",
        "| 학습 예제 | 995개 (읽은 것 1,000, 너무 길어 뺀 것 3, 자른 것 0, 배울 것이 없어 뺀 것 2) |",
        "| 검증 데이터 (valid) | valid.jsonl (sha256 dddddddddddddddd) |",
        "| 데이터 라이선스 | mit |",
        "어댑터의 라이선스: **apache-2.0**",
        "```text\n### 질문: 대한민국의 수도는 어디인가요?\n\n### 답변:\n```",
        "| LoRA | r 8, alpha 32, dropout 0.05 |",
        "| 학습한 파라미터 | 1,572,864개 (query\\_key\\_value 1,572,864) |",
        "| 양자화 (로드한 뒤 확인) | 4비트 NF4, 이중 양자화, 연산 bfloat16; 4비트 모듈 96개 |",
        "| 길이 | 2 에폭 |",
        "| 검증 손실 | 1.5000 |",
        "| 최대 GPU 메모리 | 9.87 GiB |",
        "bnb_4bit_use_double_quant=True,",
        "prompt = '### 질문: {question}\\n\\n### 답변:'.replace('{question}', question)",
        "koalpaca hub pull me/talk --out adapter",
        "koalpaca merge EleutherAI/polyglot-ko-1.3b adapter --out merged",
        "vLLM은 GPT-NeoX의 LoRA를 지원하지 않습니다.",
        "## 한계 (limits)",
        "## English\n",
        "after loading) | 4-bit NF4, double quantisation, computed in bfloat16; 96 4-bit modules |",
        "| Training examples | 995 (of 1,000 read; left out as too long 3, cut 0, nothing to learn 2) |",
        "Licence of the adapter: **apache-2.0**",
        "| Validation loss | 1.5000 |",
    ],
)
def test_parts(adapter: Path, part: str) -> None:
    assert part in written(adapter)


def test_without_a_comparison_it_says_not_evaluated(adapter: Path) -> None:
    text = written(adapter)
    assert "**평가하지 않음.**" in text
    assert "**Not evaluated:**" in text
    assert "나아졌" not in text


def test_improved_with_its_numbers(adapter: Path, record: dict[str, Any], tmp_path: Path) -> None:
    text = written(adapter, compared(adapter, record, tmp_path / "report", "improved"))
    assert "**나아졌습니다.** 능력 평가에서는 ‘조사 고르기’가 나아졌습니다." in text
    row = "| 조사 고르기 | 80 | 50.0% | 60.0% | +10.0%p | \\[+2.0, +18.0\\] | 0.008 | ±11.0%p | 나아짐 |"
    assert row in text
    assert "작은 한국어 평가 (버전 1)" in text
    assert "평가하지 않음" not in text


@pytest.mark.parametrize(
    ("verdicts", "korean", "english"),
    [
        (("no detectable change",) * 2, "**나아졌다는 근거가 없습니다.**", "**No detectable improvement.**"),
        (("worse", "no detectable change"), "**나빠졌습니다.**", "**Worse.**"),
        (("improved", "worse"), "**나아진 것도, 나빠진 것도 있습니다.**", "**Mixed.**"),
    ],
)
def test_bad_news_is_told_as_it_is(
    adapter: Path, record: dict[str, Any], tmp_path: Path, verdicts: tuple[str, ...], korean: str, english: str
) -> None:
    text = written(adapter, compared(adapter, record, tmp_path / "report", *verdicts))
    assert korean in text
    assert english in text
    # a bar in a title does not open a new cell
    assert "| 원인\\|결과 | 80 |" in text


def test_what_is_not_known_is_not_invented(adapter: Path, record: dict[str, Any]) -> None:
    record["base"]["revision"] = None
    record["result"] = None
    record["data"]["valid"] = None
    jsonl.write_json(adapter / "record.json", record)
    text = written(adapter, repo=None, license=None, data_licenses=[])
    assert "license" not in head(text)
    assert "어댑터의 라이선스: **알 수 없음**" in text
    assert "| 데이터 라이선스 | 알 수 없음 |" in text
    assert "| 판 (revision) | 알 수 없음 |" in text
    assert "| 단계 | 알 수 없음 |" in text
    assert "| 검증 데이터 (valid) | 없음 |" in text
    assert "revision=" not in text
    assert "hf download" not in text
    assert "None" not in text


@pytest.mark.parametrize("base", [f"{HOME}/models/my-base", "embedded", "./my-base", "C:\\Users\\kim\\my-base"])
def test_nothing_of_this_machine_leaks(
    adapter: Path, record: dict[str, Any], tmp_path: Path, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_" + "s3cret" * 6)
    record["base"]["path"] = record["recipe"]["base"]["path"] = base
    record["base"]["revision"] = None
    jsonl.write_json(adapter / "record.json", record)
    text = written(adapter, compared(adapter, record, tmp_path / "report", "improved"))
    for private in (HOME, "kim", "비밀", str(tmp_path), str(Path.home()), "s3cret", "C:", "prep/"):
        assert private not in text
    assert "base_model" not in head(text)
    assert "Hugging Face Hub의 이름이 아닙니다" in text


def test_names_cannot_become_markup(adapter: Path, record: dict[str, Any]) -> None:
    bad = "a|b <img src=x onerror=1>\n# `제목` [l](http://x) *굵게*"
    record["name"] = bad
    record["machine"]["device"] = bad
    record["data"]["train"]["path"] = bad
    record["base"]["revision"] = "r'\n```\n# x"
    jsonl.write_json(adapter / "record.json", record)
    text = written(adapter, repo=None, license="mit\n---\n# x", data_licenses=["<b>cc</b>"])
    prose = re.sub(r"```.*?```", "", text, flags=re.S)
    assert "<img" not in text
    assert "<b>" not in text
    assert "\n# `" not in text
    ours = "[English below](#english)", "[record.json](record.json)"
    assert not re.search(r"(?<!\\)\]\(", prose.replace(ours[0], "").replace(ours[1], ""))
    assert head(text)["license"] == "mit --- # x"
    assert text.count("```") % 2 == 0
    assert not [line for line in prose.splitlines() if line.startswith("# x")]


def test_code_compiles_for_every_template(adapter: Path, record: dict[str, Any]) -> None:
    for template in ("koalpaca", "koalpaca-v1.0", "kullm-v2", "llama2", "llama3", "chatml", "tokenizer"):
        record["template"]["name"] = template
        for linears in (0, 96):
            record["proof"]["linears_4bit"] = linears
            code = card.loading(record, None)
            compile(code, template, "exec")
            assert ("BitsAndBytesConfig" in code) == bool(linears)
            # these write BOS themselves: the tokenizer must not add a second one (trl#1400)
            assert ("add_special_tokens=False" in code) == (template in ("llama2", "llama3", "chatml", "tokenizer"))
    record["template"]["name"] = "llama3"
    assert "tokenizer.convert_tokens_to_ids('<|eot_id|>')" in card.loading(record, None)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda c: c["after"]["identity"].update(adapter="f" * 16), "card-other-adapter"),
        (lambda c: c["after"]["identity"].update(adapter=None), "card-other-adapter"),
        (lambda c: c["before"]["identity"].update(adapter="a" * 16), "card-other-adapter"),
        (lambda c: c["before"]["identity"].update(base_fingerprint="other"), "card-other-adapter"),
        (lambda c: c.pop("rows"), "card-comparison"),
        (lambda c: c["rows"][0].pop("paired"), "card-comparison"),
        (lambda c: c["verdict"].pop("korean"), "card-comparison"),
    ],
)
def test_a_comparison_of_something_else_is_refused(
    adapter: Path, record: dict[str, Any], tmp_path: Path, change: Any, code: str
) -> None:
    folder = compared(adapter, record, tmp_path / "report", "improved")
    content = jsonl.read_json(folder / "comparison.json")
    change(content)
    jsonl.write_json(folder / "comparison.json", content)
    with pytest.raises(KoalpacaError) as caught:
        written(adapter, folder)
    assert caught.value.problems[0].code == code
    assert not (adapter / "README.md").exists()


def test_incomplete_adapters_are_refused(adapter: Path, record: dict[str, Any], tmp_path: Path) -> None:
    del record["proof"]
    jsonl.write_json(adapter / "record.json", record)
    with pytest.raises(KoalpacaError, match="'proof' is missing"):
        written(adapter)
    (adapter / "adapter_config.json").unlink()
    with pytest.raises(KoalpacaError, match=r"no adapter_config\.json"):
        written(adapter)
    with pytest.raises(KoalpacaError, match="neither an adapter"):
        written(tmp_path)


def test_results_stand_in_the_head_with_what_tells_them_from_noise(
    adapter: Path, record: dict[str, Any], tmp_path: Path
) -> None:
    folder = compared(adapter, record, tmp_path / "report", "improved", "worse")
    content = jsonl.read_json(folder / "comparison.json")
    content["after"]["tasks"] = [{"name": "task-0", "title_en": "Particles", "version": 3, "limit": 5}]
    jsonl.write_json(folder / "comparison.json", content)
    (model,) = head(written(adapter, folder))["model-index"]
    assert model["name"] == "me/talk"
    first, second = model["results"]
    assert first["dataset"]["args"] == {
        "suite": "ko-mini",
        "suite_version": 1,
        "items": 80,
        "task_version": 3,
        "task_limit": 5,
    }
    (metric,) = first["metrics"]
    assert (metric["type"], metric["value"]) == ("accuracy", 0.6)
    assert metric["args"] == {
        "base": 0.5,
        "difference": 0.1,
        "interval_95": [0.02, 0.18],
        "p_holm": 0.008,
        "verdict": "improved",
    }
    assert second["metrics"][0]["args"]["verdict"] == "worse"


def test_the_hubs_own_reader_reads_the_head(adapter: Path, record: dict[str, Any], tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    text = written(adapter, compared(adapter, record, tmp_path / "report", "improved"))
    found = ModelCard(text).data.eval_results
    assert [(result.metric_type, result.metric_value) for result in found] == [("accuracy", 0.6)]


def test_plots_lie_beside_the_card_and_old_ones_go(adapter: Path, record: dict[str, Any], tmp_path: Path) -> None:
    rows = [{"step": n, "loss": 3 - n / 10, "valid_loss": 3.0 if n == 2 else None} for n in (1, 2, 3)]
    jsonl.write(adapter.parent / "metrics.jsonl", rows)
    text = written(adapter, compared(adapter, record, tmp_path / "report", "improved", "worse"))
    named = re.findall(r"!\[[^\]]+\]\((card/[a-z]+\.svg)\)", text)
    assert named == ["card/loss.svg", "card/comparison.svg"]
    for name in named:
        svg = (adapter / name).read_text(encoding="utf-8")
        # an image takes neither ink nor paper from its page
        assert "currentColor" not in svg
        assert re.match(r"<svg [^>]*><rect width=.100%. height=.100%. fill=.#ffffff./>", svg)
    written(adapter)
    assert [path.name for path in (adapter / "card").iterdir()] == ["loss.svg"]
    (adapter.parent / "metrics.jsonl").write_text("not json", encoding="utf-8")
    assert "![" not in written(adapter)


def test_what_is_better_points_to_the_right(adapter: Path, record: dict[str, Any], tmp_path: Path) -> None:
    from koalpaca_tune.hub import pictures

    folder = compared(adapter, record, tmp_path / "report", "improved")
    content = jsonl.read_json(folder / "comparison.json")
    content["rows"][0].update(lower_is_better=True)
    content["rows"][0]["paired"].update(difference=-0.1, low=-0.18, high=-0.02)
    (found,) = pictures._intervals(content, "share", 100)
    assert (round(found.low), round(found.value), round(found.high)) == (2, 10, 18)


def test_the_whole_recipe_is_there_without_places(adapter: Path, record: dict[str, Any]) -> None:
    text = written(adapter)
    recipe = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    assert recipe["training"]["epochs"] == 2.0
    assert recipe["data"]["train"] == "train.jsonl"


def test_both_languages_say_the_same_facts(adapter: Path) -> None:
    korean, english = written(adapter).split('<a id="english"></a>')
    english = english.split("## English")[1]
    for number in ("1,572,864", "995", "54,321", "1.2346", "1.5000", "9.87 GiB", "0123456789abcdef", "557e162c"):
        assert number in korean
        assert number in english
    assert not re.search("[가-힣]", english.replace("확인되지 않음", "").replace("비상업", ""))


@pytest.mark.parametrize(
    ("base", "given", "licence", "asks"),
    [
        ("EleutherAI/polyglot-ko-1.3b", None, "apache-2.0", "저작권 표시와 허가문"),
        ("meta-llama/Meta-Llama-3-8B", None, "llama3", "Built with Meta Llama 3"),
        ("someone/base", None, "알 수 없음", "--base-license"),
        ("someone/base", "cc-by-nc-sa-4.0", "cc-by-nc-sa-4.0", "상업적으로 쓸 수 없습니다."),
    ],
)
def test_the_licence_of_the_base_and_what_it_asks(
    adapter: Path, record: dict[str, Any], base: str, given: str | None, licence: str, asks: str
) -> None:
    record["base"]["path"] = base
    jsonl.write_json(adapter / "record.json", record)
    text = written(adapter, base_license=given)
    assert f"| 라이선스 (licence) | {licence} |" in text
    assert asks in text
    assert ("base is not for commercial use" in text) == (given is not None)


def test_eight_bits_are_told_and_loaded_as_eight_bits(adapter: Path, record: dict[str, Any]) -> None:
    record["proof"].update(linears_4bit=0, linears_8bit=96, threshold=6.0, quant_type=None, double_quant=None)
    jsonl.write_json(adapter / "record.json", record)
    text = written(adapter)
    assert "8비트 LLM.int8, 문턱 6.0; 8비트 모듈 96개" in text
    assert "BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=6.0)" in text
    compile(card.loading(record, None), "card", "exec")
