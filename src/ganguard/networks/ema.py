"""An exponential moving average of a generator; samples and scores are made with it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ganguard.networks.presets import CGAN_DEFAULTS

RAMP = 0.05


def ema_decay(*, images_seen: int, batch_size: int, half_life_images: float = CGAN_DEFAULTS.half_life_images) -> float:
    """The average's own weight in one update: 0.5 ** (batch_size / half-life).

    The half-life is ``half_life_images`` images, but never more than 0.05 times ``images_seen`` (those before
    this batch), so that an untrained start is forgotten quickly (the ramp of StyleGAN2-ADA's official code,
    Karras et al. 2020). Counted in images, it means the same at every batch size. 0 before the first image:
    a plain copy.
    """
    half_life = min(half_life_images, RAMP * images_seen)
    return float(0.5 ** (batch_size / half_life)) if half_life > 0 else 0.0


class GeneratorAverage:
    """Follows a generator. A part for the guard: its state dict has the generator's own keys.

    ``module`` is the averaged generator in evaluation mode and without gradients. Nothing here draws random
    numbers, and the decay is a function of the position: there is no state but the module's.
    """

    def __init__(self, generator: nn.Module, *, half_life_images: float = CGAN_DEFAULTS.half_life_images) -> None:
        self.module = copy.deepcopy(generator).eval().requires_grad_(False)
        self.half_life_images = half_life_images

    @torch.no_grad()
    def update(self, generator: nn.Module, *, images_seen: int, batch_size: int) -> None:
        """Move towards ``generator``: parameters by the decay, buffers are copied as they are.

        Call it once a batch. ``images_seen`` counts those before the batch, ``batch_size`` its own.
        """
        decay = ema_decay(images_seen=images_seen, batch_size=batch_size, half_life_images=self.half_life_images)
        for average, current in zip(self.module.parameters(), generator.parameters(), strict=True):
            average.lerp_(current, 1 - decay)
        for kept, newest in zip(self.module.buffers(), generator.buffers(), strict=True):
            kept.copy_(newest)

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged tensors; they load into a generator."""
        return self.module.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over averaged tensors, or those of a generator."""
        self.module.load_state_dict(state)
