"""The card says what was done and found, as it was; and nothing of the machine it was done on."""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from koalpaca_tune import jsonl
from koalpaca_tune.comparison import verdict
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.hub import card

HOME = "/home/kim-cheolsu/비밀"
"""Where the fixtures' run lies; no card may say so."""


def compared(adapter: Path, record: dict[str, Any], folder: Path, *verdicts: str) -> Path:
    """comparison.json as `koalpaca compare` writes it, with these verdicts of its rows."""
    rows = [
        {
            "task": f"task-{n}",
            "measure": "accuracy",
            "title": title,
            "title_en": "Particles",
            "group": "skill",
            "unit": "share",
            "lower_is_better": False,
            "paired": {
                "before": 0.5,
                "after": 0.6,
                "difference": 0.1,
                "low": 0.02,
                "high": 0.18,
                "p": 0.004,
                "smallest": 0.11,
                "n": 80,
                "lost": 2,
                "won": 10,
                "test": "McNemar (exact)",
            },
            "p_holm": 0.008,
            "verdict": said,
        }
        for n, (title, said) in enumerate(zip(("조사 고르기", "원인|결과"), verdicts, strict=False))
    ]
    findings = [verdict.Finding(row["title"], row["title_en"], "skill", row["verdict"]) for row in rows]  # type: ignore[arg-type]
    digest = hashlib.sha256((adapter / "adapter_model.safetensors").read_bytes()).hexdigest()[:16]
    identity = {"base_fingerprint": record["base"]["fingerprint"], "adapter": None}
    content = {
        "verdict": asdict(verdict.say(findings)),
        "suite": {"name": "ko-mini", "title": "작은 한국어 평가", "version": 1},
        "before": {"identity": identity, "tasks": []},
        "after": {"identity": {**identity, "adapter": digest}, "tasks": []},
        "rows": rows,
    }
    folder.mkdir(parents=True, exist_ok=True)
    jsonl.write_json(folder / "comparison.json", content)
    return folder


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
        "hf download me/talk --local-dir adapter",
        "koalpaca merge EleutherAI/polyglot-ko-1.3b adapter --out merged",
        "vLLM은 GPT-NeoX의 LoRA를 지원하지 않습니다.",
        "## 한계 (limits)",
        "## English summary",
    ],
)
def test_parts(adapter: Path, part: str) -> None:
    assert part in written(adapter)


def test_without_a_comparison_it_says_not_evaluated(adapter: Path) -> None:
    text = written(adapter)
    assert "**평가하지 않음.**" in text
    assert "Not evaluated" in text
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
    assert not re.search(r"(?<!\\)\]\(", prose)
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
    with pytest.raises(KoalpacaError, match=r"no adapter_config\.json"):
        written(tmp_path)
