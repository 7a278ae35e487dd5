"""Layers of the progressive GAN: equalized learning rate, pixel norm's place, minibatch standard deviation.

Karras et al. 2018, sections 3 and 4; where the paper leaves something open, as its official code does it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

LEAK = 0.2
GROUP = 4  # images whose standard deviation is taken together
EPSILON = 1e-8
HE_GAIN = math.sqrt(2)  # for what a leaky ReLU follows


class EqualizedLinear(nn.Module):
    """A dense layer whose weights are N(0, 1) and scaled by gain / sqrt(inputs) at run time; the bias is not scaled."""

    def __init__(self, inputs: int, outputs: int, *, gain: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale = gain / math.sqrt(inputs)

    def forward(self, features: Tensor) -> Tensor:
        """(B, inputs) to (B, outputs)."""
        return functional.linear(features, self.weight * self.scale, self.bias)


class EqualizedConv(nn.Module):
    """A convolution that keeps the size, equalized like ``EqualizedLinear``; inputs are channels times kernel area."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, gain: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale = gain / math.sqrt(inputs * kernel**2)

    def forward(self, features: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H, W)."""
        return functional.conv2d(features, self.weight * self.scale, self.bias, padding=self.weight.shape[-1] // 2)


def leaky(features: Tensor) -> Tensor:
    """LeakyReLU with slope 0.2."""
    return functional.leaky_relu(features, LEAK)


def upsampled(images: Tensor) -> Tensor:
    """(B, C, S, S) at twice the size: each pixel four times."""
    return functional.interpolate(images, scale_factor=2.0, mode="nearest")


def halved(images: Tensor) -> Tensor:
    """(B, C, S, S) at half the size: means of two by two pixels, a box filter."""
    return functional.avg_pool2d(images, 2)


def with_deviation(features: Tensor) -> Tensor:
    """``features`` (B, C, H, W) and one more channel: how much the images of a group differ.

    The channel of every image holds the mean, over all features and pixels, of the standard deviation within its
    group (biased variance, + 1e-8). Groups have 4 images, i, i + B/4, i + 2B/4 and i + 3B/4; where 4 does not divide
    B, the whole batch is one group (Karras et al. 2018, section 3, and the official code).
    """
    batch, _, height, width = features.shape
    size = GROUP if batch % GROUP == 0 else batch
    groups = features.reshape(size, batch // size, *features.shape[1:])
    deviations = (groups.var(0, correction=0) + EPSILON).sqrt().mean((1, 2, 3))
    channel = deviations.repeat(size).view(batch, 1, 1, 1).expand(-1, -1, height, width)
    return torch.cat([features, channel], 1)
