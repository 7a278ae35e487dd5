"""The data sets that a loader is given: images with labels, and images alone.

Both are map-style sets for ``torch.utils.data.DataLoader``. A loader asks for a whole batch at once (``__getitems__``)
if it is given the set's ``collate``, which is much faster. They can be pickled to spawned workers, which open the cache
themselves.

With ``flip`` each image is mirrored left to right with probability 1/2. The draws come from torch's default generator,
once a batch: a guard seeds it for every batch by (seed, position), so they are the same after a resume and with any
number of workers. Use ``as_stored()`` to look at images without drawing.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ganguard.data.pixel_range import FULL
from ganguard.data.pixels import Pixels

if TYPE_CHECKING:
    from torch import Tensor

    Batch: TypeAlias = tuple[Tensor, Tensor]

Labels: TypeAlias = NDArray[np.int64] | NDArray[np.uint8]


class _Images:
    """Rows of pixels, mirrored where asked."""

    def __init__(
        self, pixels: Pixels, count: int, *, name: str, fingerprint: str, skipped: tuple[str, ...], flip: bool
    ) -> None:
        self._pixels, self._count, self._flip = pixels, count, flip
        self.name = name
        self.fingerprint = fingerprint
        self.skipped = skipped

    def __len__(self) -> int:
        return self._count

    def as_stored(self) -> Self:
        """The same images, never mirrored: nothing is drawn."""
        plain = copy.copy(self)
        plain._flip = False
        return plain

    def _rows(self, indices: Sequence[int]) -> NDArray[np.int64]:
        rows = np.asarray(indices, np.int64)
        if rows.size and not -len(self) <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"index out of range for {len(self):,} images")
        return rows % len(self)

    def _take(self, rows: NDArray[np.int64]) -> Tensor:
        import torch

        images = self._pixels.take(rows)
        if self._flip:
            mirrored = torch.rand(len(rows)).numpy() < 0.5
            images[mirrored] = images[mirrored, :, :, ::-1]
        return torch.from_numpy(images)


class LabelledImages(_Images):
    """Images with labels: ``dataset[i]`` is one image, uint8 of shape (C, H, W), and its label.

    The label is an int, or (A,) uint8 where there are attributes.

    Attributes:
        name: short, usable as a folder's name.
        label_names: the classes, sorted, a label being an index into them; or the attributes, in the labels' order.
        labels: (N,) int64 classes, or (N, A) uint8 attributes, 0 or 1.
        attributes: whether the labels are attributes.
        fingerprint: hexadecimal; changes with the files' names, sizes and times, the attributes, and the settings that
            the images' pixels depend on.
        skipped: names of the images that can't be used, which are not part of the set.
        pixel_range: how more than 8 bits became 8: ``full`` or ``LOW:HIGH``.
    """

    def __init__(
        self,
        pixels: Pixels,
        labels: Labels,
        *,
        name: str,
        label_names: tuple[str, ...],
        fingerprint: str,
        skipped: tuple[str, ...] = (),
        pixel_range: str = FULL,
        flip: bool = False,
    ) -> None:
        super().__init__(pixels, len(labels), name=name, fingerprint=fingerprint, skipped=skipped, flip=flip)
        self.pixel_range = pixel_range
        self.labels = labels
        self.attributes = labels.ndim == 2
        self.label_names = label_names

    def __getitem__(self, index: int) -> tuple[Tensor, int | Tensor]:
        images, labels = self.__getitems__([index])
        return images[0], labels[0] if self.attributes else int(labels[0])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Images (B, C, H, W) uint8 and labels (B,) int64 or (B, A) uint8, in memory of their own."""
        import torch

        rows = self._rows(indices)
        return self._take(rows), torch.from_numpy(self.labels[rows])

    @staticmethod
    def collate(batch: Any) -> Batch:
        """Pass on what ``__getitems__`` gave; stack single items where a loader fetched one by one."""
        if isinstance(batch, tuple):
            return batch
        import torch

        images, labels = zip(*batch, strict=True)
        return torch.stack(images), torch.stack([torch.as_tensor(label) for label in labels])


class UnlabelledImages(_Images):
    """Images alone: ``dataset[i]`` is uint8 of shape (C, H, W).

    Attributes:
        name, fingerprint, skipped: as of ``LabelledImages``.
    """

    def __getitem__(self, index: int) -> Tensor:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> Tensor:
        """(B, C, H, W) uint8, in memory of its own."""
        return self._take(self._rows(indices))

    @staticmethod
    def collate(batch: Any) -> Tensor:
        """Pass on what ``__getitems__`` gave; stack single items where a loader fetched one by one."""
        import torch

        return torch.stack(batch) if isinstance(batch, list) else batch
