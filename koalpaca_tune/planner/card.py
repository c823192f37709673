"""What cards do in practice: matrix products, attention, copies, memory."""

from __future__ import annotations

from dataclasses import dataclass

from koalpaca_tune.planner import constants

DATASHEET = "estimated from the datasheet"
"""Of a card that was not measured. Its e4m3 rate is a guess: 1.7 times bfloat16's; the H100's 1.9 as the H200's."""


@dataclass(frozen=True)
class Card:
    """A device. Rates are what long runs sustain, below the datasheet's.

    Attributes:
        name: as `--card` has it.
        memory_gib: GiB that torch reports.
        matmul: FLOP/s of large bfloat16 products (float32 on the CPU).
        matmul8: FLOP/s of large e4m3 products, scaled by row; 0.0 where it has none.
        attention: FLOP/s of flash attention, forward and backward, over the tiles that it computes.
        bandwidth: bytes/s of a copy, reads and writes both counted.
        host_link: bytes/s to and from pinned host memory.
        peak: the datasheet's dense bfloat16 FLOP/s, which MFU is a share of.
        source: where the rates come from.
        measured: whether matmul and bandwidth were measured.
        capability: CUDA's compute capability, which decides between attention kernels; (0, 0): the CPU.
        devices: torch's names for it.
    """

    name: str
    memory_gib: float
    matmul: float
    attention: float
    bandwidth: float
    host_link: float
    peak: float
    source: str = DATASHEET
    measured: bool = False
    capability: tuple[int, int] = (9, 0)
    devices: tuple[str, ...] = ()
    matmul8: float = 0.0

    @property
    def cuda(self) -> bool:
        """Whether it is a CUDA card."""
        return self.capability > (0, 0)

    @property
    def memory_bytes(self) -> int:
        """All of its memory."""
        return int(self.memory_gib * constants.GIB)


CARDS: dict[str, Card] = {
    card.name: card
    for card in (
        Card(
            "h200",
            139.8,
            # whole steps fit it; 663 to 675 where products alone run (bench/results/sustained-h200-2026-11-21.log)
            680e12,
            228e12,
            4.25e12,
            50e9,
            989e12,
            source="measured 2026-11: products as 700 W allow, copies, attention; the link is a guess",
            measured=True,
            devices=("NVIDIA H200",),
            matmul8=1285e12,
        ),
        Card(
            "h100",
            79.1,
            640e12,
            210e12,
            3.0e12,
            50e9,
            989e12,
            devices=("NVIDIA H100 80GB HBM3",),
            matmul8=1200e12,
        ),
        Card(
            "a100-80",
            79.2,
            250e12,
            150e12,
            1.75e12,
            24e9,
            312e12,
            capability=(8, 0),
            devices=("NVIDIA A100-SXM4-80GB", "NVIDIA A100 80GB PCIe"),
        ),
        Card(
            "a100-40",
            39.4,
            250e12,
            150e12,
            1.4e12,
            24e9,
            312e12,
            capability=(8, 0),
            devices=("NVIDIA A100-SXM4-40GB", "NVIDIA A100-PCIE-40GB"),
        ),
        Card(
            "l40s",
            44.4,
            215e12,
            120e12,
            0.78e12,
            24e9,
            362e12,
            capability=(8, 9),
            devices=("NVIDIA L40S",),
        ),
        Card(
            "4090",
            23.5,
            150e12,
            95e12,
            0.92e12,
            24e9,
            165e12,
            capability=(8, 9),
            devices=("NVIDIA GeForce RTX 4090",),
        ),
        Card(
            "3090",
            23.6,
            62e12,
            42e12,
            0.84e12,
            24e9,
            71e12,
            capability=(8, 6),
            devices=("NVIDIA GeForce RTX 3090",),
        ),
        Card("a6000", 47.4, 110e12, 70e12, 0.69e12, 24e9, 155e12, capability=(8, 6), devices=("NVIDIA RTX A6000",)),
        Card(
            "l4",
            22.0,
            60e12,
            36e12,
            0.27e12,
            24e9,
            121e12,
            capability=(8, 9),
            devices=("NVIDIA L4",),
        ),
        Card("cpu", 16.0, 0.4e12, 0.15e12, 25e9, 25e9, 0.8e12, source="a guess at 8 cores", capability=(0, 0)),
    )
}
"""Cards by the name that `--card` takes."""


def find(device_name: str) -> Card | None:
    """The card that torch calls so, if it is one of ours."""
    return next((card for card in CARDS.values() if device_name in card.devices), None)


def budget(free_bytes: int) -> int:
    """What of the free memory to plan for: all but a margin."""
    return max(0, int(free_bytes - max(constants.MARGIN_BYTES, constants.MARGIN * free_bytes)))


def asked(gib: float) -> int:
    """What of a budget of so many GiB to plan for: the allocator keeps a little more than is in use."""
    return int(gib * constants.GIB * (1.0 - constants.FRAGMENTS))
