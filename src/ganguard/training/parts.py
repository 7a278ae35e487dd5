"""What the checkpoints of both trainers hold, under one set of names."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import Optimizer

from ganguard.networks.ema import GeneratorAverage


def parts_of(
    generator: nn.Module, critic: nn.Module, optimizers: tuple[Optimizer, Optimizer], average: GeneratorAverage
) -> dict[str, Any]:
    """The parts for the guard that every GAN here has; ``optimizers`` are the generator's and the critic's."""
    return {
        "generator": generator,
        "critic": critic,
        "opt_g": optimizers[0],
        "opt_d": optimizers[1],
        "ema": average,
    }
