"""The conditional GAN: a generator and a projection critic for square images.

Both take labels as one float vector an image: one-hot for classes, 0 and 1 for binary attributes. Any
power of two from 8 px up can be built; the defaults were measured at 32 px.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from ganguard.errors import UsageError
from ganguard.networks.cgan_spec import CganSpec
from ganguard.networks.presets import CGAN_DEFAULTS

BASE_SIZE = 4
SMALLEST_SIZE = 8
WIDEST = 4  # the most channels anywhere, in multiples of ``width``
LEAK = 0.2
EPSILON = 1e-8


def resolutions(image_size: int) -> list[int]:
    """The sides that an image passes through, in px: 4, 8, … ``image_size``.

    Raises UsageError unless ``image_size`` is a power of two and at least 8.
    """
    if image_size < SMALLEST_SIZE or image_size & (image_size - 1):
        raise UsageError(
            f"image size {image_size} cannot be built: choose a power of two such as 32 or 64 (at least 8)"
        )
    return [BASE_SIZE << level for level in range((image_size // BASE_SIZE).bit_length())]


def channels_at(resolution: int, *, image_size: int, width: int) -> int:
    """Feature channels at ``resolution`` px: ``width`` at full size, doubling downwards to 4 ``width``."""
    return width * min(image_size // resolution, WIDEST)


def pixel_norm(features: Tensor) -> Tensor:
    """Scale the channels (dimension 1) of every pixel to a mean square of 1; shape unchanged.

    Karras et al. 2018, section 4.2. It has no batch statistics, so an image never depends on its neighbours
    in the batch and there are no buffers to average or to restore.
    """
    return features * torch.rsqrt(features.square().mean(1, keepdim=True) + EPSILON)


def channels_last(features: Tensor) -> Tensor:
    """The same values in the memory order that convolutions are fastest in.

    Parameters keep the ordinary order, so that checkpoints and optimizer moments do.
    """
    return features.contiguous(memory_format=torch.channels_last)


def as_it_is(layer: nn.Module) -> nn.Module:
    """No normalization."""
    return layer


def build_generator(spec: CganSpec) -> ConditionalGenerator:
    """The generator of ``spec``, freshly initialized from torch's global random stream."""
    return ConditionalGenerator(
        image_size=spec.image_size,
        channels=spec.channels,
        labels=len(spec.label_names),
        width=spec.width,
        latent_size=spec.latent_size,
    )


def build_critic(spec: CganSpec, *, spectral: bool) -> ProjectionCritic:
    """The critic of ``spec``, freshly initialized from torch's global random stream."""
    return ProjectionCritic(
        image_size=spec.image_size,
        channels=spec.channels,
        labels=len(spec.label_names),
        width=spec.width,
        normalize=spectral_norm if spectral else as_it_is,
    )


class ConditionalGenerator(nn.Module):
    """Latents and label vectors to images.

    Latents and an embedding of the labels together set the first 4x4 features and, at every later size, the
    scale and shift of normalized features (Dumoulin et al. 2017, equation 5; Brock et al. 2019, appendix B
    for the latent in every block).
    """

    def __init__(
        self, *, image_size: int, channels: int, labels: int, width: int, latent_size: int = CGAN_DEFAULTS.latent_size
    ) -> None:
        super().__init__()
        sizes = resolutions(image_size)
        features = [channels_at(size, image_size=image_size, width=width) for size in sizes]
        self.latent_size = latent_size
        self.labels = labels
        self.label_embedding = nn.Linear(labels, latent_size, bias=False)
        self.base = nn.Linear(2 * latent_size, features[0] * BASE_SIZE**2)
        self.blocks = nn.ModuleList(
            _UpBlock(incoming, outgoing, 2 * latent_size) for incoming, outgoing in pairwise(features)
        )
        self.to_image = nn.Conv2d(features[-1], channels, 3, padding=1)

    def forward(self, latents: Tensor, label_vectors: Tensor) -> Tensor:
        """Images (B, channels, S, S) in [-1, 1] of latents (B, latent_size) and label vectors (B, labels)."""
        styles = torch.cat([latents, pixel_norm(self.label_embedding(label_vectors))], 1)
        features = self.base(styles).unflatten(1, (-1, BASE_SIZE, BASE_SIZE))
        features = channels_last(functional.leaky_relu(pixel_norm(features), LEAK))
        for block in self.blocks:
            features = block(features, styles)
        images: Tensor = torch.tanh(self.to_image(features))
        return images


class _UpBlock(nn.Module):
    """Twice the size: a transposed convolution, normalization, then the style's scale and shift."""

    def __init__(self, incoming: int, outgoing: int, style_size: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(incoming, outgoing, 4, stride=2, padding=1, bias=False)
        self.style = nn.Linear(style_size, 2 * outgoing)

    def forward(self, features: Tensor, styles: Tensor) -> Tensor:
        scale, shift = self.style(styles)[:, :, None, None].chunk(2, 1)
        features = torch.addcmul(shift, pixel_norm(self.up(features)), 1 + scale)
        return functional.leaky_relu(features, LEAK)


class ProjectionCritic(nn.Module):
    """How real an image looks for its label vector; higher is more real.

    The score is psi(phi(x)) + y^T V phi(x), linear in the label vector y (Miyato and Koyama 2018,
    figure 1d). There is no batch norm. ``normalize`` is applied to every layer: ``spectral_norm`` (Miyato et al.
    2018, equation 8), or ``as_it_is`` where a gradient penalty bounds the critic.
    """

    def __init__(
        self,
        *,
        image_size: int,
        channels: int,
        labels: int,
        width: int,
        normalize: Callable[[nn.Module], nn.Module] = spectral_norm,
    ) -> None:
        super().__init__()
        sizes = resolutions(image_size)[::-1]
        features = [channels_at(size, image_size=image_size, width=width) for size in sizes]
        self.from_image = normalize(nn.Conv2d(channels, features[0], 3, padding=1))
        self.blocks = nn.ModuleList(
            normalize(nn.Conv2d(incoming, outgoing, 4, stride=2, padding=1))
            for incoming, outgoing in pairwise(features)
        )
        self.score = normalize(nn.Linear(features[-1], 1))
        self.projection = normalize(nn.Linear(labels, features[-1], bias=False))

    def forward(self, images: Tensor, label_vectors: Tensor) -> Tensor:
        """Scores (B,) of images (B, channels, S, S) in [-1, 1] with label vectors (B, labels)."""
        features = channels_last(functional.leaky_relu(self.from_image(images), LEAK))
        for block in self.blocks:
            features = functional.leaky_relu(block(features), LEAK)
        pooled = features.sum((2, 3))
        scores: Tensor = self.score(pooled).squeeze(1) + (self.projection(label_vectors) * pooled).sum(1)
        return scores
