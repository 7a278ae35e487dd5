"""IDX files, the format of MNIST and Fashion-MNIST (http://yann.lecun.com/exdb/mnist, "file formats").

A folder holds ``train-images-idx3-ubyte`` and ``train-labels-idx1-ubyte``, gzipped or not; the 10,000 of ``t10k-…`` are
for testing and left alone. Each file is a magic number (two zero bytes, 8 for uint8, the number of dimensions), the
dimensions as big-endian 32-bit integers, then the bytes.
"""

from __future__ import annotations

import gzip
import math
import zlib
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ganguard.data.arrays import Arrays, ArraySource
from ganguard.data.sources import safe_name
from ganguard.errors import DataError
from ganguard.reports.console import counted
from ganguard.store.durable import why
from ganguard.store.reading import read_whole

FASHION = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_IMAGES = ("train-images-idx3-ubyte", "train-images.idx3-ubyte")
_LABELS = ("train-labels-idx1-ubyte", "train-labels.idx1-ubyte")
_LARGEST_FILE = 1 << 33  # bytes
_UINT8 = 8
_GZIP = b"\x1f\x8b"
_FASHION_LABELS_CRC = 0x2ED6E46A  # of the 60,000 training labels


def idx_folder(path: Path) -> Path | None:
    """The folder with IDX files: ``path``, its ``raw`` as torchvision makes it, or None."""
    for folder in (path, path / "raw"):
        if any(_present(folder, stem) for stem in (*_IMAGES, *_LABELS)) or any(folder.glob("t10k-*-ubyte*")):
            return folder
    return None


def idx_source(folder: Path, name: str | None = None) -> ArraySource:
    """The training images of an IDX folder.

    The classes are "0", "1", …; Fashion-MNIST has names, and is known by its labels' checksum or by its folder's name.
    """
    return ArraySource(name or safe_name(folder.resolve().name), folder, partial(read_idx, folder))


def read_idx(folder: Path) -> Arrays:
    """The training images and labels in ``folder``.

    Raises:
        DataError: a file is missing, can't be read or isn't whole; images and labels are not equally many.
    """
    image_file, label_file = _find(folder, _IMAGES), _find(folder, _LABELS)
    images, labels = _read(image_file, dimensions=3), _read(label_file, dimensions=1)
    if len(images) != len(labels):
        raise DataError(
            f"{image_file} holds {counted(len(images), 'image')} and {label_file.name} "
            f"{counted(len(labels), 'label')}. They don't belong together: copy both again."
        )
    if not images.size:
        raise DataError(f"{image_file} holds no images. Copy it again.")
    return Arrays(images, labels.astype(np.int64), _class_names(folder, labels))


def _class_names(folder: Path, labels: NDArray[np.uint8]) -> tuple[str, ...]:
    classes = int(labels.max()) + 1
    real = folder.resolve()
    said = "fashion" in f"{real.parent.name if real.name == 'raw' else ''} {real.name}".lower()
    if classes <= len(FASHION) and (said or zlib.crc32(labels.tobytes()) == _FASHION_LABELS_CRC):
        return FASHION
    return tuple(str(label) for label in range(classes))


def _present(folder: Path, stem: str) -> Path | None:
    return next((path for path in (folder / stem, folder / f"{stem}.gz") if path.is_file()), None)


def _find(folder: Path, stems: tuple[str, ...]) -> Path:
    for stem in stems:
        if (path := _present(folder, stem)) is not None:
            return path
    raise DataError(f"{folder} holds IDX files, but not {stems[0]} (or {stems[0]}.gz). Copy the whole set.")


def _read(path: Path, dimensions: int) -> NDArray[np.uint8]:
    content, magic = _content(path), bytes((0, 0, _UINT8, dimensions))
    if content[:4] != magic:
        raise DataError(
            f"{path} begins with {content[:4].hex() or 'nothing'}, and an IDX file of bytes in {dimensions} dimensions "
            f"with {magic.hex()}. It is another file, or damaged: copy it again."
        )
    start = 4 + 4 * dimensions
    shape = [int.from_bytes(content[at : at + 4], "big") for at in range(4, start, 4)]
    if len(content) != start + math.prod(shape):
        raise DataError(
            f"{path} is not whole: {' x '.join(f'{n:,}' for n in shape)} bytes are announced, "
            f"{max(0, len(content) - start):,} are there. Copy it again."
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _content(path: Path) -> bytes:
    try:
        content = read_whole(path, _LARGEST_FILE)
        return gzip.decompress(content) if content.startswith(_GZIP) else content
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is not a whole gzip file ({error}). Copy it again.") from error
    except OSError as error:
        raise DataError(f"{path} can't be read ({why(error)}). Check its permissions.") from error
