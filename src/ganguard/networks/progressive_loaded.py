"""A trained progressive generator that is ready to use: at any of its levels, and between two latents."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from ganguard.errors import UsageError
from ganguard.networks.fading import alpha_at
from ganguard.networks.label_rows import Labels
from ganguard.networks.loaded import GeneratorOrigin, LoadedGenerator
from ganguard.networks.progressive import generator_like, level_of, size_of
from ganguard.store.plain import all_of, having, is_count, record

_IS_BEGUN = all_of(having("level", "fades_from", "fade"), record(level=is_count, fades_from=is_count, fade=is_count))
NETWORK = "progan"  # what config["network"] says


class LoadedProgressive(LoadedGenerator):
    """A generator of ``progan_local.py``. It knows no labels.

    Args:
        module: a ``ProgressiveGenerator``.
        level: that its images are made at, until ``at_size``.
        alpha: how far that has faded in.
    """

    def __init__(
        self,
        module: nn.Module,
        origin: GeneratorOrigin,
        *,
        latent_size: int,
        level: int,
        alpha: float = 1.0,
        fixed: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        super().__init__(module, origin, latent_size=latent_size, fixed=fixed)
        self.level = level
        self.alpha = alpha
        self.trained_level = level

    @property
    def image_size(self) -> int:
        """The side of the images that are made, in px."""
        return size_of(self.level)

    def at_size(self, size: int) -> Self:
        """Make images of ``size`` px from now on, faded in wholly; returns itself.

        Raises:
            UsageError: it was not trained up to that.
        """
        level = level_of(size)
        if level > self.trained_level:
            raise UsageError(f"{self.origin.file} was trained up to {size_of(self.trained_level)} px, not to {size}.")
        if level < self.trained_level:
            self.alpha = 1.0
        self.level = level
        return self

    def rows(self, labels: Labels) -> Tensor:
        """One empty label vector.

        Raises:
            UsageError: a label is asked for.
        """
        if labels is not None:
            raise UsageError("This generator was trained without labels; leave them out.")
        return torch.zeros(1, 0)

    def _images(self, latents: Tensor, _label_vectors: Tensor) -> Tensor:
        images: Tensor = self.module(latents, level=self.level, alpha=self.alpha)
        return images


def of_checkpoint(loaded: Mapping[str, Any], origin: GeneratorOrigin) -> LoadedProgressive:
    """The averaged generator of a checkpoint, as it was then.

    Raises:
        UsageError: its tensors are not those of a progressive generator.
    """
    module = generator_like(loaded["ema"])
    now = loaded["growth"]["begun"][-1]
    if not _IS_BEGUN(now) or now["level"] >= module.levels:
        raise UsageError("What it holds of its growth makes no sense.")
    latents = loaded["fixed"]["latents"] if "fixed" in loaded else None
    if latents is not None and latents.shape[1:] != (module.latent_size,):
        raise UsageError("Its latents are another generator's.")
    return LoadedProgressive(
        module,
        origin,
        latent_size=module.latent_size,
        level=now["level"],
        alpha=alpha_at(loaded["progress"]["images"], fades_from=now["fades_from"], fade=now["fade"]),
        fixed=None if latents is None else (latents.float(), torch.zeros(len(latents), 0)),
    )


def of_weights(weights: Mapping[str, Tensor], origin: GeneratorOrigin) -> LoadedProgressive:
    """A generator of a bare state dict: the last trained weights, no average, at its largest size.

    Raises:
        UsageError: its tensors are not those of a progressive generator.
    """
    module = generator_like(weights)
    return LoadedProgressive(module, origin, latent_size=module.latent_size, level=module.levels - 1)


def between(first: Tensor, last: Tensor, count: int) -> Tensor:
    """``count`` latents (count, Z) from ``first`` to ``last`` (Z,), along the great circle between their directions.

    The generator normalizes latents, so that a straight line would be run through unevenly (White 2016, slerp).
    """
    start, end = (v.double() / v.double().norm() for v in (first, last))
    angle = torch.arccos((start @ end).clamp(-1, 1))
    share = torch.linspace(0, 1, count, dtype=torch.float64)[:, None]
    if angle.sin() < 1e-6:  # the same direction, or an opposite one that no single circle leads to
        return torch.lerp(start, end, share).float() * math.sqrt(len(first))
    path: Tensor = (torch.sin((1 - share) * angle) * start + torch.sin(share * angle) * end) / angle.sin()
    return path.float() * math.sqrt(len(first))
