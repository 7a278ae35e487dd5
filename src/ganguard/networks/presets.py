"""The settings that a conditional GAN has where nothing else is asked for: plain data, no torch needed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class CganPreset:
    """Chosen at equal processor time on 5,000 Fashion-MNIST images at 32 px, hinge loss."""

    width: int = 16
    """Feature channels at full image size; see ``ganguard.networks.cgan.channels_at``."""
    latent_size: int = 64
    """Numbers in a latent."""
    batch_size: int = 32
    """Images in a batch."""
    critic_steps: int = 1
    """Batches for the critic per batch for the generator."""
    learning_rate: float = 4e-4
    """Adam's, for the generator."""
    critic_learning_rate_factor: float = 2.0
    """The critic's learning rate in multiples of the generator's (Heusel et al. 2017: two time scales)."""
    betas: tuple[float, float] = (0.0, 0.99)
    """Adam's, for both networks."""
    half_life_images: int = 10_000
    """The half-life of the generator's average in images, once 200,000 have been seen."""


CGAN_DEFAULTS = CganPreset()

GPU_WIDTH = 64  # not measured: what two CPU cores cannot do in minutes is nothing to a GPU


def default_width(device_type: str) -> int:
    """The width for ``cpu``, and that for any accelerator."""
    return CGAN_DEFAULTS.width if device_type == "cpu" else GPU_WIDTH
