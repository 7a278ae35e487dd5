"""Which source a name or a path stands for."""

from __future__ import annotations

import difflib
import zipfile
from collections.abc import Callable
from pathlib import Path

from ganguard.data.arrays import ArraySource
from ganguard.data.idx import idx_folder, idx_source
from ganguard.data.sources import FileSource, FolderSource, safe_name
from ganguard.data.torchvision_sets import TORCHVISION_NAMES, torchvision_source
from ganguard.data.zips import ZipSource
from ganguard.errors import DataError
from ganguard.paths import expanded

BUILTIN_NAMES = ("emoji", "fashion-mnist-mini")
_GRAYSCALE_NAMES = ("fashion-mnist-mini", "fashion-mnist", "mnist")


def find_source(data: str, *, root: Path, say: Callable[[str], None]) -> FileSource | ArraySource:
    """The source that ``data`` names: a built-in set, a folder or zip of images, an IDX folder, a set of torchvision.

    A built-in name wins over a folder of that name, which is reached as ``./name``; a folder wins over torchvision's.

    Args:
        data: the name or path.
        root: where torchvision's sets are, or are to be downloaded to.
        say: told of a download.

    Raises:
        DataError: nothing is there, or it is neither a folder nor a zip.
    """
    if data in BUILTIN_NAMES:
        return ZipSource(Path(__file__).with_name("builtin") / f"{data}.zip")
    path = expanded(data)
    if path.is_dir():
        with_idx = idx_folder(path)
        return idx_source(with_idx, safe_name(path.resolve().name)) if with_idx else FolderSource(path)
    if path.is_file():
        if zipfile.is_zipfile(path):
            return ZipSource(path)
        if path.suffix.lower() == ".zip":
            raise DataError(f"{data} is not a whole zip file: its end is missing, or it is none. Copy it again.")
        raise DataError(
            f"{data} is a file, but neither a folder nor a zip. Give the folder that holds the class folders."
        )
    if data in TORCHVISION_NAMES:
        return torchvision_source(data, root, say)
    raise DataError(_nothing_there(data))


def default_channels(data: str) -> int:
    """1 for sets known to be grayscale (the MNISTs, IDX folders), else 3; never an error."""
    if data in BUILTIN_NAMES or not expanded(data).is_dir():
        return 1 if data in _GRAYSCALE_NAMES else 3
    return 1 if idx_folder(expanded(data)) else 3


def _nothing_there(data: str) -> str:
    names = (*BUILTIN_NAMES, *TORCHVISION_NAMES)
    close = difflib.get_close_matches(data.lower(), names, n=1)
    meant = f" Did you mean {close[0]!r}?" if close else ""
    if any(ord(character) < ord(" ") for character in data):
        meant = r" Between quotes a backslash begins an escape: write C:/photos, or r'C:\photos' in Python."
    return (
        f"There is no folder {data!r}.{meant} Give the path of a folder of images (for gan.py one folder a class), "
        f"one of the built-in sets ({', '.join(BUILTIN_NAMES)}), or one that torchvision knows "
        f"({', '.join(TORCHVISION_NAMES)})."
    )
