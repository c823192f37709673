"""Preflight of three steps: what `training.probe` measured, in words, and what a run of it will take."""

from __future__ import annotations

from dataclasses import dataclass

from koalpaca_tune.runs.finding import Finding, State
from koalpaca_tune.runs.train import Ready
from koalpaca_tune.training.probe import Probe


@dataclass(frozen=True)
class Tolerance:
    """Relative differences: up to `ok` it is rounding, beyond `bad` it is a fault."""

    ok: float
    bad: float

    def state(self, *values: float) -> State:
        """Of the worst of some values; NaN is a fault."""
        if all(value <= self.ok for value in values):
            return "ok"
        return "note" if all(value <= self.bad for value in values) else "bad"


# float32 on the CPU: 2e-7 (loss) and 2e-6 (gradients) were measured with the embedded base. 16-bit products round
# to 2^-8; sums of them, in another order, stay well below these. In int8 a document depends on those beside
# it (models.proof.company): a guess until it is measured on a card.
LOSS = {"float32": Tolerance(1e-5, 1e-3), "half": Tolerance(1e-2, 5e-2), "int8": Tolerance(3e-2, 1e-1)}
GRADIENT = {"float32": Tolerance(1e-4, 1e-2), "half": Tolerance(1e-1, 0.5), "int8": Tolerance(0.3, 0.7)}
FALLBACK = "engine.kind=plain으로 해 보고, 이 줄과 함께 알려 주세요 (try engine.kind=plain, and report this line)."


def check(ready: Ready, probe: Probe) -> list[Finding]:
    """All of it, by line."""
    kind = "float32" if str(ready.loaded.compute_dtype) == "torch.float32" else "half"
    # in training bitsandbytes decodes 8-bit weights on the CPU; on a card it quantises the inputs, all together
    if ready.recipe.quantization.load_in_8bit and ready.accelerator.device.type == "cuda":
        kind = "int8"
    return of(probe, kind, full=ready.recipe.full)


def of(probe: Probe, kind: str, *, full: bool = False) -> list[Finding]:
    """The findings.

    Args:
        probe: what was measured.
        kind: of the products, a key of `LOSS`.
        full: every weight is trained, without an adapter.
    """
    return [
        _loss(probe),
        _reach(probe, kind),
        _moved(probe, full),
        _apart(probe, kind),
        _again(probe, kind),
        *_transformers(probe, kind),
    ]


def _loss(probe: Probe) -> Finding:
    losses = " → ".join(f"{loss:.4f}" for loss in probe.losses)
    return Finding("손실 (loss)", "ok", f"{losses} nats (세 단계, three steps)")


def _reach(probe: Probe, kind: str) -> Finding:
    name = "기울기 (gradient)"
    norms = ", ".join(f"{norm:.3g}" for norm in probe.norms)
    seen = f"{probe.matrices - len(probe.unreached)}/{probe.matrices} 행렬에 닿음 (reached), norm {norms}"
    if not probe.unreached:
        return Finding(name, "ok", seen)
    fix = f"닿지 않은 첫 행렬 (first without): {probe.unreached[0]}. {FALLBACK}"
    # of A it is a product of two small numbers at first, which 16 bits may lose
    only_a = all(".lora_A." in path for path in probe.unreached)
    return Finding(name, "note" if only_a and kind == "half" else "bad", seen, fix)


def _moved(probe: Probe, full: bool) -> Finding:
    name, left = ("가중치 (weights)", "움직임 (moved)") if full else ("B 행렬 (B matrices)", "0을 떠남 (left zero)")
    seen = f"{probe.moving - len(probe.idle)}/{probe.moving} {left}"
    if not probe.idle:
        return Finding(name, "ok", seen)
    fix = f"그대로인 첫 행렬 (first that did not): {probe.idle[0]}. training.learning_rate를 보세요."
    return Finding(name, "bad", seen, fix)


def _apart(probe: Probe, kind: str) -> Finding:
    name = "나누기 (accumulation)"
    seen = f"예시를 따로 계산한 차이 (one by one): {probe.loss_apart:.1e}"
    states = [LOSS[kind].state(probe.loss_apart)]
    if probe.gradient_apart is not None:
        seen += f", {probe.gradient_apart:.1e}"
        states.append(GRADIENT[kind].state(probe.gradient_apart))
    state = _worst(states)
    return Finding(name, state, seen, FALLBACK if state != "ok" else "")


def _again(probe: Probe, kind: str) -> Finding:
    name = "되풀이 (determinism)"
    if probe.same_again and probe.loss_again == probe.norm_again == 0.0:
        return Finding(name, "ok", "두 번 해도 비트까지 같음 (twice: the same bits)")
    seen = f"같은 단계를 두 번 (taken twice): loss {probe.loss_again:.1e}, gradient norm {probe.norm_again:.1e}"
    # attention kernels of cards add up in no fixed order; on the CPU nothing may differ
    least: State = "note" if kind == "float32" else "ok"
    state = _worst([least, LOSS[kind].state(probe.loss_again), GRADIENT[kind].state(probe.norm_again)])
    fix = "다시 하면 이만큼 다를 수 있습니다 (a repeated run may differ by as much)."
    return Finding(name, state, seen, fix if state != "ok" else "")


def _transformers(probe: Probe, kind: str) -> list[Finding]:
    if probe.against_transformers is None:
        return []
    state = LOSS[kind].state(probe.against_transformers)
    seen = f"transformers와의 차이 (difference): {probe.against_transformers:.1e}"
    return [Finding("빠른 엔진 (fast engine)", state, seen, FALLBACK if state != "ok" else "")]


def _worst(states: list[State]) -> State:
    order: tuple[State, ...] = ("bad", "note", "ok")
    return next(state for state in order if state in states)
