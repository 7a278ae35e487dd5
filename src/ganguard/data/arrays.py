"""Sets that are arrays and not files of images: each image is handed out as the bytes of a PGM or PPM file.

So they go the same way as any other: the same decoder, the same cache.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ganguard.data.sources import Entry, Listing


class Arrays(NamedTuple):
    """A whole set.

    ``images`` are (N, H, W) for grayscale or (N, H, W, 3) for RGB, uint8, contiguous; ``labels`` (N,) are indices into
    ``label_names``.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    label_names: tuple[str, ...]


class ArraySource:
    """A set read into memory when it is first asked for; pickled without it.

    Args:
        name: short, usable as a folder's name.
        path: where it lies.
        load: reads it; must be picklable.
    """

    def __init__(self, name: str, path: Path, load: Callable[[], Arrays]) -> None:
        self.name = name
        self.path = path
        self._load = load
        self._arrays: Arrays | None = None

    def listing(self) -> Listing:
        """The images in the set's own order; an entry's stamp is the CRC-32 of its pixels.

        Raises:
            DataError: the set can't be read, or is damaged.
        """
        images, labels, label_names = self._all()
        entries = tuple(
            Entry(str(row), label, image.nbytes, zlib.crc32(image))
            for row, (image, label) in enumerate(zip(images, labels.tolist(), strict=True))
        )
        return Listing(label_names, entries)

    def read(self, name: str) -> bytes:
        image = self._all().images[int(name)]
        kind = b"P5" if image.ndim == 2 else b"P6"
        return b"%s %d %d 255\n%s" % (kind, image.shape[1], image.shape[0], image.tobytes())

    def start(self, name: str, count: int) -> bytes:
        return self.read(name)[:count]

    def _all(self) -> Arrays:
        if self._arrays is None:
            self._arrays = self._load()
        return self._arrays

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_arrays": None}
