"""Evaluations of two bigram models, on ko-smoke and a held-out set."""

from __future__ import annotations

from pathlib import Path

from bigram import Bigram, render

from koalpaca_tune.evaluation.run import Result, evaluate
from koalpaca_tune.records import Conversation, Turn
from koalpaca_tune.suites import tasks

PROSE = ["나는 오늘 학교에 간다. 하늘이 맑다.", "한국의 수도는 서울이다.", "그는 물을 마시고 밥을 먹는다."]
ANSWERS = ["네, 그렇게 하세요.", "저도 그렇게 생각해요.", "내일은 더 좋은 날이 될 거예요.", "물을 자주 드세요."]
HELDOUT = [
    Conversation((Turn("user", f"{question} {n}"), Turn("assistant", answer)), f"valid.jsonl:{n}")
    for n, (question, answer) in enumerate(
        (question, answer) for question in ("오늘 뭐 할까?", "감기에 걸렸어", "<b>피곤해</b>") for answer in ANSWERS
    )
]
BASE = {"base": "tiny", "base_fingerprint": "1234", "adapter": None}


def run(folder: Path, model: Bigram, **given: object) -> Result:
    """ko-smoke and the held-out set, with what is given in place of the defaults."""
    options = {"heldout": HELDOUT, "max_new_tokens": 40, "heldout_limit": 5, "suite": "ko-smoke"} | given
    adapter = options.pop("adapter", None)
    identity = options.pop("identity", BASE | {"adapter": adapter})
    suite = tasks.load_suite(str(options.pop("suite")))
    return evaluate(suite, model, options.pop("render", render), folder, identity=identity, **options)  # type: ignore[arg-type]
