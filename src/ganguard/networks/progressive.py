"""The progressive GAN (Karras et al. 2018): a generator and a critic that hold the layers of every level from 4 px on.

Level 0 is 4 px, and each level doubles the size. A pass computes the levels in use and nothing else. All levels'
parameters are there from the start: a checkpoint has the same keys and the average of the generator goes on unbroken
whatever the level, and what is not in use takes weights, but no moments (an optimizer keeps none where there were no
gradients).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn

from ganguard.errors import UsageError
from ganguard.networks import as_stored
from ganguard.networks.cgan import pixel_norm
from ganguard.networks.equalized import (
    HE_GAIN,
    EqualizedConv,
    EqualizedLinear,
    halved,
    leaky,
    upsampled,
    with_deviation,
)

BASE_SIZE = 4
LARGEST_SIZE = 1024
PAPER_WIDTH = 512


def size_of(level: int) -> int:
    """The side of a level's images in px."""
    return BASE_SIZE << level


def level_of(size: int) -> int:
    """The level whose images have sides of ``size`` px.

    Raises:
        UsageError: there is none.
    """
    level = (size // BASE_SIZE).bit_length() - 1
    if level < 0 or size_of(level) != size or size > LARGEST_SIZE:
        sizes = ", ".join(str(size_of(i)) for i in range(level_of(LARGEST_SIZE) + 1))
        raise UsageError(f"{size} px is no size of a progressive GAN: choose one of {sizes}.")
    return level


def channels_at(level: int, width: int) -> int:
    """Feature channels: min(8192 / 2^stage, 512) at a width of 512, where 4 px is stage 1; scaled by the width."""
    return max(1, min(8192 >> (level + 1), PAPER_WIDTH) * width // PAPER_WIDTH)


class _GeneratorBlock(nn.Module):
    """Twice the size, then two convolutions."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        super().__init__()
        self.first = EqualizedConv(incoming, outgoing, 3, gain=HE_GAIN)
        self.second = EqualizedConv(outgoing, outgoing, 3, gain=HE_GAIN)

    def forward(self, features: Tensor) -> Tensor:
        features = pixel_norm(leaky(self.first(upsampled(features))))
        return pixel_norm(leaky(self.second(features)))


class ProgressiveGenerator(nn.Module):
    """Latents to images of any level up to ``image_size``.

    Args:
        image_size: side of the last level's images, px.
        channels: of the images, 1 or 3.
        width: feature channels at 4 to 32 px; see ``channels_at``.
        latent_size: numbers in a latent.
    """

    def __init__(self, *, image_size: int, channels: int, width: int, latent_size: int) -> None:
        super().__init__()
        features = [channels_at(level, width) for level in range(level_of(image_size) + 1)]
        self.latent_size = latent_size
        self.channels = channels
        self.base = EqualizedLinear(latent_size, features[0] * BASE_SIZE**2, gain=HE_GAIN / 4)
        self.base_conv = EqualizedConv(features[0], features[0], 3, gain=HE_GAIN)
        self.blocks = nn.ModuleList(_GeneratorBlock(*pair) for pair in pairwise(features))
        self.to_image = nn.ModuleList(EqualizedConv(count, channels, 1, gain=1) for count in features)

    @property
    def levels(self) -> int:
        return len(self.to_image)

    def forward(self, latents: Tensor, *, level: int, alpha: float = 1.0) -> Tensor:
        """Images (B, channels, S, S) of latents (B, latent_size), any length: they are normalized here.

        ``alpha`` below 1 blends with the enlarged image of the level below: 0 is nothing but that. The range is not
        bounded; [-1, 1] is what it is trained towards.
        """
        features = self.base(pixel_norm(latents)).unflatten(1, (-1, BASE_SIZE, BASE_SIZE))
        features = pixel_norm(leaky(features))
        features = pixel_norm(leaky(self.base_conv(features)))
        below = features
        for block in self.blocks[:level]:
            below, features = features, block(features)
        images: Tensor = self.to_image[level](features)
        if level and alpha < 1:
            images = torch.lerp(upsampled(self.to_image[level - 1](below)), images, alpha)
        return images


class _CriticBlock(nn.Module):
    """Two convolutions, then half the size."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        super().__init__()
        self.first = EqualizedConv(incoming, incoming, 3, gain=HE_GAIN)
        self.second = EqualizedConv(incoming, outgoing, 3, gain=HE_GAIN)

    def forward(self, features: Tensor) -> Tensor:
        return halved(leaky(self.second(leaky(self.first(features)))))


class ProgressiveCritic(nn.Module):
    """How real an image of any level looks; higher is more real. Arguments as of the generator."""

    def __init__(self, *, image_size: int, channels: int, width: int) -> None:
        super().__init__()
        features = [channels_at(level, width) for level in range(level_of(image_size) + 1)]
        self.from_image = nn.ModuleList(EqualizedConv(channels, count, 1, gain=HE_GAIN) for count in features)
        self.blocks = nn.ModuleList(_CriticBlock(upper, lower) for lower, upper in pairwise(features))
        self.last_conv = EqualizedConv(features[0] + 1, features[0], 3, gain=HE_GAIN)
        self.last_dense = EqualizedLinear(features[0] * BASE_SIZE**2, features[0], gain=HE_GAIN)
        self.score = EqualizedLinear(features[0], 1, gain=1)

    def forward(self, images: Tensor, *, level: int, alpha: float = 1.0) -> Tensor:
        """Scores (B,) of images (B, channels, S, S); ``alpha`` as in the generator."""
        features = leaky(self.from_image[level](images))
        for index in range(level - 1, -1, -1):
            features = self.blocks[index](features)
            if index == level - 1 and alpha < 1:
                features = torch.lerp(leaky(self.from_image[index](halved(images))), features, alpha)
        features = leaky(self.last_conv(with_deviation(features)))
        features = leaky(self.last_dense(features.flatten(1)))
        scores: Tensor = self.score(features).squeeze(1)
        return scores


def generator_like(state: Mapping[str, Tensor]) -> ProgressiveGenerator:
    """A generator that the tensors of ``state`` fit into and are loaded into: its shape is read off them.

    Raises:
        UsageError: they are not those of a progressive generator.
    """
    try:
        first, base = state["to_image.0.weight"], state["base.weight"]
        last = max(level for level in range(level_of(LARGEST_SIZE) + 1) if f"to_image.{level}.weight" in state)
        shape = {"channels": first.shape[0], "width": first.shape[1], "latent_size": base.shape[1]}
        return as_stored.built(lambda: ProgressiveGenerator(image_size=size_of(last), **shape), dict(state))
    except (KeyError, ValueError, RuntimeError, AttributeError, TypeError, IndexError) as error:
        raise UsageError("These weights are not those of a progressive generator.") from error
