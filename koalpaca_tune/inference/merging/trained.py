"""The base's weights as a 4-bit run had them: quantised and dequantised again.

The adapter of a 4-bit run (QLoRA, Dettmers et al. 2023) learned beside these, not beside the originals.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from bitsandbytes import functional
from torch import Tensor

from koalpaca_tune.config.recipe import Quantization
from koalpaca_tune.models import base as bases


@dataclass(frozen=True)
class FourBit:
    """How a run quantised its base.

    Attributes:
        quant_type: nf4 or fp4.
        double_quant: whether the block scales are quantised too.
        compute: type of the run's matrix products.
    """

    quant_type: str
    double_quant: bool
    compute: torch.dtype

    @classmethod
    def of(cls, quantization: Quantization, compute: str) -> FourBit:
        """From a run's recipe, and the type of its products as its record proves it."""
        return cls(quantization.bnb_4bit_quant_type, quantization.bnb_4bit_use_double_quant, bases.DTYPES[compute])

    @property
    def resident(self) -> torch.dtype:
        """Type of everything that is not in 4 bits: float32 where products are float16 (models.base.load)."""
        return torch.float32 if self.compute == torch.float16 else self.compute

    def of_weight(self, weight: Tensor) -> Tensor:
        """A weight [outputs, inputs] as the run multiplied by it."""
        packed, state = functional.quantize_4bit(
            weight.to(self.resident).contiguous(), quant_type=self.quant_type, compress_statistics=self.double_quant
        )
        restored: Tensor = functional.dequantize_4bit(packed, state)
        return restored.to(self.compute)
