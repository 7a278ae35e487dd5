"""Where a set's images come from while training: the cached array, or the image files themselves.

Both give the same bytes and survive pickling to a data worker, which opens its own array or file.
"""

from __future__ import annotations

import time
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ganguard.data.decode import AS_EVER, DamagedImage, Decoding, decode
from ganguard.data.reduction import box_means
from ganguard.data.sources import Source
from ganguard.errors import DataError

Array = NDArray[np.uint8]
Rows = NDArray[np.int64]
_T = TypeVar("_T")

_RETRY_AFTER_S = (0.1, 0.5, 2.0)
_STAND_INS = 8


class Pixels(Protocol):
    """Images by row."""

    def take(self, rows: Rows) -> Array:
        """A fresh (len(rows), C, H, W) uint8 array."""
        ...


class CachedPixels:
    """Rows of a memory-mapped ``.npy`` file of shape (N, C, H, W)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # The plain view spares each access numpy's memmap bookkeeping.
        self._array: Array = np.asarray(np.lib.format.open_memmap(path, mode="r"))

    def take(self, rows: Rows) -> Array:
        return self._array[rows]

    def __reduce__(self) -> tuple[type[CachedPixels], tuple[Path]]:
        return CachedPixels, (self._path,)


class DecodedPixels:
    """Images decoded whenever they are asked for.

    They were all readable when the set was opened. One that no longer is must not end a training of days: after a
    few tries another one stands in for it, of its group where there is one, the same one each time, with a warning.
    Only where several of these can't be read either (the drive is gone) is it an error.

    Args:
        source: opens the files.
        names: the file of each row.
        groups: (N,) rows of the same number, a class say, stand in for each other.
        image_size: width and height, pixels.
        decoded_at: the size that files are decoded at; box means lead from there to ``image_size``.
        channels, decoding: as for ``decode``.
    """

    def __init__(
        self,
        source: Source,
        names: Sequence[str],
        groups: Rows,
        *,
        image_size: int,
        decoded_at: int,
        channels: int,
        decoding: Decoding,
    ) -> None:
        self._source, self._names, self._groups = source, names, groups
        self._image_size, self._decoded_at, self._channels = image_size, decoded_at, channels
        self._decoding = decoding

    def take(self, rows: Rows) -> Array:
        if not len(rows):
            return np.empty((0, self._channels, self._image_size, self._image_size), np.uint8)
        return np.stack([self._image(int(row)) for row in rows])

    def _image(self, row: int) -> Array:
        failure: Exception | None = None
        for candidate in self._candidates(row):
            waits = _RETRY_AFTER_S if candidate == row else ()
            try:
                name = self._names[candidate]
                decoded = load(
                    self._source, name, self._decoded_at, self._channels, self._decoding, retry_after_s=waits
                )
                return box_means(decoded, [self._image_size])[0]
            except (DamagedImage, DataError) as error:
                failure = failure or error
                warnings.warn(
                    f"{self._names[candidate]} can't be used any more ({error}); another image stands in.",
                    RuntimeWarning,
                    stacklevel=2,
                )
        raise DataError(
            f"{self._source.path / self._names[row]} and other images can no longer be read. "
            f"Check that the drive is there, and start the same command again."
        ) from failure

    def _candidates(self, row: int) -> Iterator[int]:
        yield row
        alike = np.roll(self._groups == self._groups[row], -row - 1)[:-1]
        others = np.concatenate([np.flatnonzero(alike), np.flatnonzero(~alike)])
        yield from ((row + 1 + others[:_STAND_INS]) % len(self._groups)).tolist()


def load(
    source: Source,
    name: str,
    image_size: int,
    channels: int,
    decoding: Decoding = AS_EVER,
    *,
    retry_after_s: Sequence[float] = _RETRY_AFTER_S,
) -> Array:
    """One image, (channels, image_size, image_size) uint8.

    Raises:
        DamagedImage, DataError: as of ``retrying``.
    """
    return retrying(source, name, lambda name: decode(source.read(name), image_size, channels, decoding), retry_after_s)


def retrying(
    source: Source, name: str, work: Callable[[str], _T], retry_after_s: Sequence[float] = _RETRY_AFTER_S
) -> _T:
    """``work(name)``, which reads an image of ``source``.

    Raises:
        DamagedImage: proven damage: its bytes were read, and are not a whole image.
        DataError: it can't be read, also after waiting ``retry_after_s`` seconds between tries, or there is too little
            memory; nothing is proven.
    """
    for wait_s in (*retry_after_s, None):
        try:
            return work(name)
        except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
            raise DamagedImage(str(error)) from error
        except MemoryError as error:
            raise DataError(
                f"{source.path / name}: {error or 'there is too little memory for it'}. Close other programs and start "
                f"the same command again."
            ) from error
        except OSError as error:
            if wait_s is None or isinstance(error, FileNotFoundError):
                raise DataError(
                    f"{source.path / name} can't be read ({error.strerror or error}). "
                    f"Make it readable or remove it, and start the same command again."
                ) from error
            time.sleep(wait_s)
    raise AssertionError("the last try returns or raises")
