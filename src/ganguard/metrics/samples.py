"""What a measurement asks a generator for, and the images that it gives as bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from ganguard.errors import UsageError

Sample: TypeAlias = Callable[[Tensor, torch.Generator], Tensor]
"""``sample(labels, generator)``: images (B, C, S, S) in [-1, 1], one for each row of ``labels`` (B,) or (B, A).

``generator`` lives on the CPU; latents drawn from it alone are the same at every measurement and on every device.
"""


def draw(sample: Sample, labels: Tensor, generator: torch.Generator) -> Tensor | None:
    """Images as bytes, uint8 (B, C, S, S), where ``sample`` put them; None where a value isn't finite.

    Rounded as a saved picture would be: -1 is 0 and 1 is 255, what lies beyond is cut off.

    Raises:
        UsageError: there is not one image for each label.
    """
    with torch.no_grad():
        images = sample(labels, generator)
    if images.ndim != 4 or len(images) != len(labels) or images.shape[1] not in (1, 3):
        raise UsageError(
            f"{len(labels)} labels were given and a tensor of {tuple(images.shape)} came back. Return one image of "
            f"shape (C, S, S) for each, with 1 or 3 channels."
        )
    images = images.detach().float()
    if not torch.isfinite(images).all():
        return None
    return ((images + 1) * 127.5).round().clamp(0, 255).byte()
