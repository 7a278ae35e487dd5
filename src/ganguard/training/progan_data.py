"""The images of a progressive GAN, a level at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ganguard.data import Pyramid, open_pyramid
from ganguard.networks.progressive import size_of
from ganguard.training.progan_config import ProganConfig


class LevelImages(Dataset[Tensor]):
    """A map-style data set of images (C, S, S) uint8 of one level.

    ``fingerprint`` is the pyramid's own: a growth does not change what is trained on.
    """

    def __init__(self, pyramid: Pyramid, level: int) -> None:
        self._images = pyramid.level(size_of(level))
        self.fingerprint = pyramid.fingerprint

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Tensor:
        return self._images[index]

    def __getitems__(self, indices: Sequence[int]) -> Tensor:
        """Images (B, C, S, S), in memory of their own."""
        return self._images.__getitems__(indices)

    @staticmethod
    def collate(batch: Any) -> Tensor:
        """Pass on what ``__getitems__`` gave; stack single images where a loader fetched one by one."""
        return torch.stack(batch) if isinstance(batch, list) else batch


def open_data(config: ProganConfig, say: Callable[[str], None]) -> Pyramid:
    """The images in all sizes of the training, decoded once.

    Raises:
        DataError: they cannot be trained on.
    """
    return open_pyramid(
        config.data_dir,
        largest=size_of(config.levels - 1),
        channels=config.channels_img,
        cache_dir=Path(config.cache_dir),
        cache_limit=config.cache_bytes,
        limit=config.limit_images,
        say=say,
    )
