"""What `koalpaca hub pull` says of what it brought."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from koalpaca_tune.cli.show import console, done, table

if TYPE_CHECKING:
    from koalpaca_tune.hub.pull import Pulled


def show(got: Pulled) -> None:
    """The adapter, what is not known of it, and the next command."""
    table(
        f"어댑터 (adapter) @ {got.commit}",
        [
            *((name, f"{size:,} bytes") for name, size in got.files),
            ("기반 모델 (base)", f"{got.base.path}{f' @ {got.base.revision}' if got.base.revision else ''}"),
            ("템플릿 (template)", got.record["template"]["name"]),
            ("LoRA", f"r {got.plain.r}, alpha {got.plain.alpha:g}: {', '.join(got.plain.targets)}"),
        ],
    )
    notes = []
    if got.here_before:
        done("이미 받아 둔 그대로입니다. (it lies here already, unchanged)")
    if got.unread:
        notes.append(
            "저장소의 record.json은 이 판이 읽을 수 없어 쓰지 않았습니다. "
            "(its record.json cannot be read by this version, and is not used)"
        )
    if not got.ours:
        notes.append(
            "쓸 수 있는 기록이 없는 어댑터입니다. 템플릿은 말한 대로 적었고, 무엇으로 학습했는지는 알 수 없습니다. "
            "(no record: what it was trained on is not known)"
        )
    if any(name.startswith("tokenizer") for name in got.left):
        notes.append(
            "저장소에 토크나이저가 따로 있지만 기반 모델의 것을 씁니다. (the base's tokenizer is used, not its own)"
        )
    if got.record["recipe"]["base"].get("trust_remote_code"):
        notes.append(
            "기반 모델이 가져오는 파이썬 코드로 학습했습니다. 그 코드는 받지도 돌리지도 않았습니다. "
            "(trained with code of its base, which was neither taken nor run)"
        )
    for note in notes:
        console.print(f"! {note}", style="yellow", markup=False, soft_wrap=True)
    words = shlex.join(["koalpaca", "generate", got.base.path, "질문", "--adapter", str(got.folder)])
    done(f"받았습니다 (here): {got.folder}\n다음 (next): {words}")
