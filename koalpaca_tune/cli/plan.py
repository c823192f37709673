"""`koalpaca plan`: memory, time and cost of a run, before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from koalpaca_tune.planner.choose import Plan
    from koalpaca_tune.runs.plan import Planned

CARD_NAMES = ("this", "h200", "h100", "a100-80", "a100-40", "l40s", "4090", "3090", "a6000", "l4", "cpu")
GIB = 1 << 30

MEMORY = {
    "weights": "블록의 가중치 (weights of the blocks)",
    "embeddings": "임베딩, 출력층 등 (embeddings, head, norms)",
    "adapter": "어댑터와 옵티마이저 (adapter, gradients, optimizer)",
    "dequantised": "풀어 둔 가중치 (dequantised weights)",
    "saved": "역전파까지 두는 값 (saved activations)",
    "rebuilt": "다시 계산한 한 블록 (one block, recomputed)",
    "gradients": "기울기와 임시 값 (gradients and the like)",
    "logits": "로짓 (a chunk of logits)",
    "rounding": "할당 단위, 작업 공간 (rounding, workspaces)",
}
WHOLE = "float32 사본, 기울기, 옵티마이저 (float32 copies, gradients, optimizer)"
"""In place of the adapter's line, where every weight is trained."""
SECONDS = {
    "matmuls": "베이스의 행렬곱 (matmuls of the base)",
    "recompute": "다시 하는 행렬곱 (recompute)",
    "attention": "어텐션 (attention)",
    "head": "출력층과 손실 (head and loss)",
    "lora": "LoRA",
    "elementwise": "정규화, 회전, 활성화 (norms, rotary, activation)",
    "dequantise": "4비트 풀기 (dequantise)",
    "optimizer": "옵티마이저 (optimizer)",
    "launches": "명령을 기다림 (waiting for the host)",
    "offload": "호스트 메모리로 옮김 (offload)",
}
RECOMPUTE = {
    "none": "없음 (none)",
    "wide": "MLP의 넓은 값 (wide)",
    "blocks": "블록 전체 (blocks)",
    "offload": "블록 전체, 입력은 호스트 메모리에 (offload)",
}


@click.command()
@click.argument("recipe")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--card",
    type=click.Choice(CARD_NAMES),
    default="this",
    show_default=True,
    help="어느 카드에서 돌릴지; this는 이 컴퓨터를 재어 봄 (the card; this: looks at this machine).",
)
@click.option(
    "--budget",
    type=click.FloatRange(0, min_open=True),
    help="쓸 메모리 GiB; 없으면 레시피대로, 아니면 남은 만큼 (GiB; else the recipe's, else what is free).",
)
@click.option("--price", type=click.FloatRange(0), help="한 시간의 값; 비용을 셈 (price of an hour, for the cost).")
@click.option(
    "--tokens",
    type=click.IntRange(1),
    help="학습 전체의 토큰 수; 데이터에서 센 것 대신 (tokens of the whole run, in place of the data's).",
)
@click.option(
    "--shape",
    help="베이스와 데이터 대신 알려진 모양: polyglot-ko-5.8b 등 (a published shape, in place of base and data).",
)
def plan(
    recipe: str,
    overrides: tuple[str, ...],
    card: str,
    budget: float | None,
    price: float | None,
    tokens: int | None,
    shape: str | None,
) -> None:
    """RECIPE가 쓸 메모리, 시간, 비용을 미리 셈; 가중치는 읽지 않음 (memory, time and cost, before loading).

    \b
    예 (example):
      koalpaca plan polyglot-ko-5.8b --card 4090
      koalpaca plan polyglot-ko-12.8b --shape polyglot-ko-12.8b --card h100 --price 3.5 --tokens 20000000
    """
    from koalpaca_tune.cli.show import console
    from koalpaca_tune.config import load
    from koalpaca_tune.runs import plan as runs

    checked = load.load(recipe, overrides)
    with console.status("카드와 데이터를 보는 중 (looking at card and data)"):
        if card == "this":
            from koalpaca_tune.engine import measure

            device, free = measure.this_card()
        else:
            from koalpaca_tune.planner.card import CARDS

            device = CARDS[card]
            free = device.memory_bytes
        planned = runs.make(checked, device, free, shape_name=shape, budget_gib=budget, tokens=tokens)
    if price is not None and planned.run_seconds is None:
        raise click.UsageError("--price: the run's tokens are not known. Give --tokens, or the data (data.train).")
    _card(planned.plan)
    _work(planned)
    _choice(planned.plan)
    _memory(planned.plan)
    _seconds(planned.plan)
    _run(planned, price)
    _alternatives(planned)


def _card(plan: Plan) -> None:
    from koalpaca_tune.cli.show import table

    card = plan.card
    rows: list[tuple[str, object]] = [
        ("이름 (name)", card.name),
        ("메모리 (memory)", f"{card.memory_gib:.1f} GiB"),
        ("쓸 수 있는 만큼 (budget)", f"{plan.budget / GIB:.1f} GiB"),
        ("행렬곱 (matmuls)", f"{card.matmul / 1e12:,.3g} TFLOP/s"),
    ]
    if plan.work.fp8:
        rate = f"{card.matmul8 / 1e12:,.4g} TFLOP/s" if card.matmul8 else "모름 (not known)"
        guess = "" if card.measured else ", 어림 (a guess)"
        rows.append(("8비트 행렬곱 (fp8 matmuls)", rate + guess))
    rows += [
        ("복사 (copies)", f"{card.bandwidth / 1e12:,.3g} TB/s"),
        ("어디서 온 값 (source)", card.source),
    ]
    table("카드 (card)", rows)


def _work(planned: Planned) -> None:
    from koalpaca_tune.cli.show import table

    work, found = planned.plan.work, planned.lengths
    bits = "4-bit" if work.four_bit else "8-bit" if work.eight_bit else f"{8 * work.weight_bytes}-bit"
    trained = "모든 가중치 (all weights)" if work.full else f"r {work.lora_r}: {', '.join(work.targets)}"
    lengths = (
        f"{found.step_tokens:,} tokens, longest {work.longest:,}, mean {found.document_tokens:,.0f}, "
        f"{found.learned_share:.0%} learned"
    )
    rows: list[tuple[str, object]] = [
        ("모델 (base)", f"{planned.base.name}, {bits}"),
        ("파라미터 (parameters)", work.shape.parameters),
        ("학습 파라미터 (trainable)", f"{work.adapter_parameters:,} ({trained})"),
        ("한 단계 (one step)", lengths),
    ]
    if not planned.data:
        rows.append(
            ("데이터 (data)", "읽지 않음: 모든 행이 가득 찬 것으로 셈 (not read: every row taken for full)")
        )
    table("할 일 (the work)", rows)


def _choice(plan: Plan) -> None:
    from koalpaca_tune.cli.show import table

    choice, work = plan.choice, plan.work
    engine = "fast" if work.engine == "fast" else "plain: 어림이 더 거칢 (a rougher prediction)"
    rows: list[tuple[str, object]] = [
        ("엔진 (engine)", engine),
        ("한 번에 계산하는 토큰 (micro_tokens)", choice.micro_tokens),
        ("한 단계에 몇 번 (micro-steps)", plan.micro_steps),
        ("다시 계산 (recompute)", RECOMPUTE[choice.recompute]),
    ]
    if work.fp8:
        rows.insert(1, ("베이스의 행렬곱 (compute)", "fp8 (e4m3)"))
    if work.engine == "fast":
        rows += [
            ("풀어 두는 블록 (cached_blocks)", f"{choice.cached_blocks} / {work.shape.layers}"),
            ("CUDA 그래프 (graphs)", choice.graphs),
        ]
    table("계획 (plan)", rows)


def _memory(plan: Plan) -> None:
    from koalpaca_tune.cli.show import table
    from koalpaca_tune.planner.memory import host_bytes

    names = MEMORY | ({"adapter": WHOLE} if plan.work.full else {})
    rows = [(names[part], _size(size)) for part, size in plan.memory.items() if size >= plan.peak / 1000]
    rows.append(("모두 (peak)", _size(plan.peak)))
    host = host_bytes(plan.work, plan.choice)
    if host:
        rows.append(("따로, 호스트 메모리 (host memory)", _size(host)))
    table("가장 찰 때의 메모리, 예상 (peak memory, predicted)", rows)


def _size(size: int) -> str:
    return f"{size / GIB:7.2f} GiB" if size >= GIB / 10 else f"{size * 1024 / GIB:7.2f} MiB"


def _seconds(plan: Plan) -> None:
    from koalpaca_tune.cli.show import table

    whole = plan.step_seconds
    rows = [
        (SECONDS[part], f"{took:8.3f} s  {took / whole:4.0%}")
        for part, took in plan.seconds.items()
        if took >= 0.0005 * whole
    ]
    rows += [
        ("한 단계 (one step)", f"{whole:8.3f} s"),
        ("토큰/초 (tokens/s)", f"{plan.tokens_per_second:,.0f}"),
        ("MFU", f"{plan.mfu:.0%}" + (", bfloat16의 최고에 대해 (of bfloat16's peak)" if plan.work.fp8 else "")),
    ]
    table("한 단계의 시간, 예상 (seconds of a step, predicted)", rows)


def _run(planned: Planned, price: float | None) -> None:
    from koalpaca_tune.cli.show import done, table

    took = planned.run_seconds
    if took is None:
        done("데이터가 없어 전체 시간은 모릅니다: --tokens (no data, so no total: --tokens)\n")
        return
    rows: list[tuple[str, object]] = [
        ("단계 (steps)", planned.lengths.steps),
        ("토큰 (tokens)", planned.lengths.tokens),
        ("시간, 검증 빼고 (time, validation aside)", _hours(took)),
    ]
    if price is not None:
        rows.append(("비용 (cost)", f"{took / 3600 * price:,.2f}  ({price:g} x {took / 3600:,.2f} h)"))
    table("학습 전체 (the whole run)", rows)


def _hours(seconds: float) -> str:
    minutes = seconds / 60
    if minutes < 1:
        return f"{seconds:.0f}초 ({seconds:.0f} s)"
    if minutes < 90:
        return f"{minutes:.0f}분 ({minutes:.0f} min)"
    return f"{minutes / 60:,.1f}시간 ({minutes / 60:,.1f} h)"


def _alternatives(planned: Planned) -> None:
    from koalpaca_tune.cli.show import table

    rows = list(_lines(planned))
    if rows:
        table("다른 길: recompute, micro_tokens, cached_blocks (alternatives)", rows)


def _lines(planned: Planned) -> Iterator[tuple[str, str]]:
    for other in planned.plan.alternatives:
        yield f"recompute {other.choice.recompute}", _short(other)
    for gib, smaller in planned.smaller:
        name = f"{gib} GiB라면 (with {gib} GiB)"
        yield name, "들어가지 않음 (does not fit)" if smaller is None else _short(smaller)


def _short(plan: Plan) -> str:
    choice = plan.choice
    return (
        f"{plan.tokens_per_second:>7,.0f} tokens/s {_size(plan.peak)}: {choice.recompute}, "
        f"{choice.micro_tokens:,} x {plan.micro_steps}, {choice.cached_blocks}"
    )
