"""Latents of images that are made to be looked at: each is a function of a seed and its place, and of nothing else."""

from __future__ import annotations

import math
from numbers import Real

import torch
from torch import Tensor, nn

from ganguard.errors import UsageError
from ganguard.streams import derive


def draw_latents(count: int, size: int, *, seed: int, first: int = 0, truncation: float | None = None) -> Tensor:
    """Latents (count, size), float32 on the CPU: those at the places ``first``, ``first`` + 1, …

    The latent at a place depends on ``seed`` and the place, so more images begin with the fewer ones. With
    ``truncation`` they are drawn from the standard normal distribution cut off at ± ``truncation`` (the truncation
    trick, Brock et al. 2019, section 3.1): the smaller, the more typical and the less various. Another version of
    torch may cut off in another way, and then gives other latents. No global random stream is touched.

    Raises:
        UsageError: ``truncation`` is not above 0.
    """
    number = isinstance(truncation, Real) and not isinstance(truncation, bool)
    if truncation is not None and not (number and truncation > 0 and math.isfinite(truncation)):
        raise UsageError(f"Truncation is a number above 0, such as 0.7, not {truncation!r}; leave it out for none.")
    return torch.stack(
        [_latent(size, derive(seed, "latent", place), truncation) for place in range(first, first + count)]
    )


def _latent(size: int, seed: int, truncation: float | None) -> Tensor:
    own = torch.Generator().manual_seed(seed)
    if truncation is None:
        return torch.randn(size, generator=own)
    # float64: in float32 the inverse of the distribution function is infinite at its ends.
    numbers = torch.empty(size, dtype=torch.float64)
    return nn.init.trunc_normal_(numbers, a=-truncation, b=truncation, generator=own).float()
