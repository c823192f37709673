"""A comparison as `koalpaca compare` leaves it, without having compared anything."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from koalpaca_tune import jsonl
from koalpaca_tune.comparison import verdict


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
