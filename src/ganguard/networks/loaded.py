"""A generator that was trained and is ready to use: one way to make images, whatever network it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from ganguard.errors import UsageError
from ganguard.networks.cgan_spec import CganSpec
from ganguard.networks.label_rows import Labels, is_whole, label_rows
from ganguard.networks.latents import draw_latents

_BATCH = 16


@dataclass(frozen=True, kw_only=True)
class GeneratorOrigin:
    """Where a generator comes from, as far as its file tells."""

    file: Path
    epoch: int | None = None
    """Epochs that were finished."""
    batch: int = 0
    """Batches of the epoch that was under way; 0 at an epoch's end."""
    step: int | None = None
    """Iterations over the whole run."""
    score: Mapping[str, Any] | None = None
    """The score of this very state: name, value, about."""
    means: Mapping[str, float] = field(default_factory=dict)
    """What was logged in the epoch, such as losses."""
    notes: tuple[str, ...] = ()
    """What was stepped over in a folder to find it, in words; nothing where its newest checkpoint is good."""

    @property
    def position(self) -> str:
        """The position in the training, in words."""
        if self.epoch is None:
            return self.file.name
        return f"epoch {self.epoch + 1}, batch {self.batch}" if self.batch else f"epoch {self.epoch}"


class LoadedGenerator(ABC):
    """Made by ``ganguard.load_generator``.

    Args:
        module: on the CPU; it is put into evaluation mode, without gradients.
        latent_size: numbers in a latent.
        label_names: the classes or attributes; () where it knows none.
        multi_label: whether those are attributes.
        fixed: latents (R, latent_size) and label vectors (R, labels) of the run's sample grids, where known.
    """

    def __init__(
        self,
        module: nn.Module,
        origin: GeneratorOrigin,
        *,
        latent_size: int,
        label_names: tuple[str, ...] = (),
        multi_label: bool = False,
        fixed: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self.module = module.eval().requires_grad_(False)
        self.origin = origin
        self.latent_size = latent_size
        self.label_names = label_names
        self.multi_label = multi_label
        self.fixed = fixed

    @abstractmethod
    def _images(self, latents: Tensor, label_vectors: Tensor) -> Tensor:
        """Images (B, C, S, S) of latents (B, latent_size) and label vectors (B, labels), all on ``device``."""

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    def to(self, device: str | torch.device) -> Self:
        """Move to another device; returns itself.

        Raises:
            UsageError: there is no such device.
        """
        try:
            self.module.to(torch.empty(0, device=device).device)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise UsageError(f"This PyTorch sees no device {device}. Use cpu.") from error
        return self

    def rows(self, labels: Labels) -> Tensor:
        """The label vectors (rows, labels) that ``labels`` stand for; see ``label_rows``."""
        return label_rows(labels, self.label_names, multi_label=self.multi_label)

    def present(self, label_vector: Tensor) -> list[str]:
        """What a label vector (labels,) stands for: the class, or the attributes that are set; none where none is."""
        pairs = zip(self.label_names, label_vector.tolist(), strict=True)
        return [name for name, value in pairs if value > 0] or ["none"][: len(self.label_names)]

    def sample(
        self,
        count: int,
        *,
        labels: Labels = None,
        seed: int = 0,
        truncation: float | None = None,
        first: int = 0,
    ) -> Tensor:
        """Images (count, C, S, S), float32 on the CPU, in [-1, 1]: those at the places ``first``, ``first`` + 1, …

        The image at a place depends on ``seed``, the place and its label, bit for bit on one machine and thread
        count; not on ``count`` or ``first``. Draws from no global random stream.

        Args:
            labels: a class by name or number (from 0), or several in turn; a list of attributes by name; label vectors
                (rows, labels), which are taken in turn. None: every class in turn, or no attribute and then each alone.
            truncation: cut latents off at ± this; see ``draw_latents``.

        Raises:
            UsageError: there is no such class or attribute, or a number that cannot be.
        """
        if not (is_whole(count) and is_whole(first) and is_whole(seed)):
            raise UsageError(f"count, seed and first are whole numbers, not {count!r}, {seed!r} and {first!r}.")
        if count < 1 or first < 0:
            raise UsageError(f"At least one image can be made, from place 0 on; not {count} from {first} on.")
        rows = self.rows(labels)
        batches = range(first // _BATCH, (first + count - 1) // _BATCH + 1)
        made = torch.cat([self._batch(index, rows, seed, truncation) for index in batches])
        begin = first - batches.start * _BATCH
        return made[begin : begin + count]

    def _batch(self, index: int, rows: Tensor, seed: int, truncation: float | None) -> Tensor:
        """Always a whole batch: the last bits of an image may depend on how many are computed at once."""
        places = range(index * _BATCH, (index + 1) * _BATCH)
        latents = draw_latents(_BATCH, self.latent_size, seed=seed, first=places.start, truncation=truncation)
        return self.images_of(latents, rows[[place % len(rows) for place in places]])

    @torch.no_grad()
    def images_of(self, latents: Tensor, label_vectors: Tensor) -> Tensor:
        """Images (B, C, S, S), float32 on the CPU, in [-1, 1], of latents (B, latent_size) and vectors (B, labels)."""
        images = self._images(latents.to(self.device), label_vectors.to(self.device))
        return images.float().cpu().clamp(-1, 1)


class LoadedCgan(LoadedGenerator):
    """A generator of ``gan.py``."""

    def __init__(
        self, module: nn.Module, spec: CganSpec, origin: GeneratorOrigin, *, fixed: tuple[Tensor, Tensor] | None = None
    ) -> None:
        super().__init__(
            module,
            origin,
            latent_size=spec.latent_size,
            label_names=spec.label_names,
            multi_label=spec.multi_label,
            fixed=fixed,
        )
        self.spec = spec

    def _images(self, latents: Tensor, label_vectors: Tensor) -> Tensor:
        images: Tensor = self.module(latents, label_vectors)
        return images
