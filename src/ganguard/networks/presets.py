"""The settings that a conditional GAN has where nothing else is asked for: plain data, no torch needed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class CganPreset:
    """What suits every loss; docs/measured.md has the comparison."""

    width: int = 16
    """Feature channels at full image size; see ``ganguard.networks.cgan.channels_at``."""
    latent_size: int = 64
    """Numbers in a latent."""
    batch_size: int = 32
    """Images in a batch."""
    half_life_images: int = 10_000
    """The half-life of the generator's average in images, once 200,000 have been seen."""


@dataclass(frozen=True, kw_only=True)
class LossPreset:
    """What one loss is trained with."""

    learning_rate: float
    """Adam's, for the generator."""
    critic_learning_rate_factor: float
    """The critic's learning rate in multiples of the generator's (Heusel et al. 2017: two time scales)."""
    betas: tuple[float, float]
    """Adam's, for both networks."""
    critic_steps: int
    """Batches for the critic per batch for the generator."""
    penalty: float
    """The weight of the gradient penalty: lambda of WGAN-GP, gamma of R1 and R2; 0 where there is none."""
    spectral: bool
    """Whether the critic's weights are spectrally normalized."""


CGAN_DEFAULTS = CganPreset()

LOSS_PRESETS = {
    "hinge": LossPreset(
        learning_rate=4e-4,
        critic_learning_rate_factor=2.0,
        betas=(0.0, 0.99),
        critic_steps=1,
        penalty=0.0,
        spectral=True,
    ),
    "wgan-gp": LossPreset(
        learning_rate=4e-4,
        critic_learning_rate_factor=1.0,
        betas=(0.0, 0.9),
        critic_steps=2,
        penalty=10.0,
        spectral=False,
    ),
    "relativistic": LossPreset(
        learning_rate=4e-4,
        critic_learning_rate_factor=1.0,
        betas=(0.0, 0.99),
        critic_steps=1,
        penalty=1.0,
        spectral=False,
    ),
}

DEFAULT_LOSS = "hinge"

GPU_WIDTH = 64  # not measured: what two CPU cores cannot do in minutes is nothing to a GPU


def default_width(device_type: str) -> int:
    """The width for ``cpu``, and that for any accelerator."""
    return CGAN_DEFAULTS.width if device_type == "cpu" else GPU_WIDTH
