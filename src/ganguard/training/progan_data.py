"""The images of a progressive GAN: one data set a level, all of them the same images in the same order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from ganguard.data import LabelledImages, open_images
from ganguard.networks.progressive import size_of
from ganguard.training.progan_config import ProganConfig


class LevelImages(Dataset[Tensor]):
    """A map-style data set of images (C, S, S) uint8 of one level.

    ``fingerprint`` is the same at every level: a growth does not change what is trained on.
    """

    def __init__(self, images: LabelledImages, fingerprint: str) -> None:
        self._images = images
        self.fingerprint = fingerprint

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Tensor:
        image: Tensor = self._images[index][0]
        return image

    def __getitems__(self, indices: Sequence[int]) -> Tensor:
        """Images (B, C, S, S), in memory of their own."""
        images: Tensor = self._images.__getitems__(indices)[0]
        return images

    @staticmethod
    def collate(batch: Any) -> Tensor:
        """Pass on what ``__getitems__`` gave."""
        images: Tensor = batch
        return images


class Pyramid:
    """The images at every level of a training, cached on first use."""

    def __init__(self, config: ProganConfig, say: Callable[[str], None]) -> None:
        self._config = config
        self._first = self._open(config.first_level, say)
        self.name = self._first.name

    def __len__(self) -> int:
        return len(self._first)

    def level(self, level: int) -> LevelImages:
        images = self._first if level == self._config.first_level else self._open(level, lambda _line: None)
        return LevelImages(images, self._first.fingerprint)

    def _open(self, level: int, say: Callable[[str], None]) -> LabelledImages:
        config = self._config
        return open_images(
            config.data_dir,
            image_size=size_of(level),
            channels=config.channels_img,
            cache_dir=Path(config.cache_dir),
            cache_limit=config.cache_bytes,
            limit=config.limit_images,
            say=say,
        )
