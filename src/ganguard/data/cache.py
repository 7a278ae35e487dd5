"""What a cache is: all images of a set at one size in one array on disk.

It is a folder ``<set>-<size>px-<rgb or gray>-<key>`` that holds ``images.npy``, uint8 of shape (N, C, H, W), and
``cache.json``: its key, N, the names of images that were left out with the reason, and what the others were like. The
key is a digest of the names, sizes and times of all images, the settings and the decoder's version; labels follow from
the listing.

A cache that a change of the images superseded is named and never removed: another training may be reading it.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from ganguard.data.decode import AS_EVER, DECODER_VERSION, Decoding
from ganguard.data.remarks import Seen
from ganguard.data.sources import Entry, Source, digest
from ganguard.errors import DataError
from ganguard.store.durable import why
from ganguard.store.reading import parse_json, read_json, read_whole

IMAGES = "images.npy"
META = "cache.json"
_LARGEST_META = 1 << 30  # bytes: it names every image that is left out
_NPY_HEADER_BYTES = 128


@dataclass(frozen=True)
class Request:
    """Which images are wanted, and how.

    Attributes:
        source, entries: the images.
        image_size: their size in the cache.
        channels: 1 or 3.
        limit: how many were asked for, None for all.
        reduced_from: the size that they are decoded at and reduced from by box means; None for ``image_size``.
        decoding: how.
    """

    source: Source
    entries: tuple[Entry, ...]
    image_size: int
    channels: int
    limit: int | None = None
    reduced_from: int | None = None
    decoding: Decoding = AS_EVER

    @property
    def decoded_at(self) -> int:
        return self.reduced_from or self.image_size

    @property
    def _size_text(self) -> str:
        reduced = self.decoded_at != self.image_size
        return f"{self.image_size} px from {self.decoded_at} px" if reduced else f"{self.image_size} px"

    @cached_property
    def key(self) -> str:
        return self._digest(self.decoding.text)

    @property
    def images_key(self) -> str:
        """``key`` without what only decides which images are left out."""
        return self._digest(self.decoding.range_text)

    def _digest(self, how: str) -> str:
        return digest(f"decoder {DECODER_VERSION}, {self._size_text}, {self.channels} channels{how}", self.entries)

    @property
    def origin(self) -> list[str]:
        """The same for two requests of which the newer supersedes the other."""
        how = [self.decoding.text] if self.decoding.text else []
        return [str(self.source.path.resolve()), self._size_text, f"{self.channels}", f"{self.limit}", *how]

    @property
    def folder_name(self) -> str:
        color = "rgb" if self.channels == 3 else "gray"
        return f"{self.source.name}-{self.image_size}px-{color}-{self.key[:16]}"

    def file_bytes(self, images: int) -> int:
        return array_bytes(images, self.channels, self.image_size)


def array_bytes(images: int, channels: int, image_size: int) -> int:
    """The size of ``images.npy``."""
    return _NPY_HEADER_BYTES + images * channels * image_size**2


@dataclass(frozen=True)
class Damaged:
    """An image that was left out, and why."""

    name: str
    reason: str


Skipped = tuple[Damaged, ...]


class Checked(NamedTuple):
    """What decoding a set's images showed: those that were left out, and what the others are like, where it is known.

    Caches of earlier versions don't tell the latter.
    """

    skipped: Skipped
    seen: Seen | None


@dataclass(frozen=True)
class Cache:
    """A whole cache on disk."""

    folder: Path
    checked: Checked


def find_cache(cache_dir: Path, request: Request) -> Cache | None:
    """The cache of ``request`` if it is there and whole: key, counts, header and size fit."""
    folder = cache_dir / request.folder_name
    try:
        checked = read_checked(folder / META, request)
        with (folder / IMAGES).open("rb") as file:
            header = file.read(_NPY_HEADER_BYTES)
            size = file.seek(0, os.SEEK_END)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    kept = len(request.entries) - len(checked.skipped)
    if header != npy_header(request, kept) or size != request.file_bytes(kept):
        return None
    return Cache(folder, checked)


def find_superseded(cache_dir: Path, request: Request) -> dict[Path, int]:
    """Caches of the same data and settings from before its files changed, and the bytes that each takes."""
    found = {}
    for path in sorted(cache_dir.glob(f"*/{META}")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # removed just now, or no cache's
            meta = read_json(path)
            if meta["origin"] == request.origin and meta["key"] != request.key:
                found[path.parent] = sum(file.stat().st_size for file in path.parent.iterdir())
    return found


def npy_header(request: Request, images: int) -> bytes:
    """Version 1.0 of numpy's format, of one length for any count, so that it can be written again at the end."""
    shape = (images, request.channels, request.image_size, request.image_size)
    text = str({"descr": "|u1", "fortran_order": False, "shape": shape})
    length = _NPY_HEADER_BYTES - 10
    return b"\x93NUMPY\x01\x00" + length.to_bytes(2, "little") + text.ljust(length - 1).encode() + b"\n"


def meta_text(request: Request, checked: Checked) -> bytes:
    kept = len(request.entries) - len(checked.skipped)
    named = [[image.name, image.reason] for image in checked.skipped]
    meta = {"key": request.key, "origin": request.origin, "images": kept, "skipped": named}
    return json.dumps(meta | ({"seen": asdict(checked.seen)} if checked.seen else {}), indent=1).encode()


def read_checked(path: Path, request: Request) -> Checked:
    """What ``path`` remembers; ``ValueError`` and the like where it isn't about ``request``."""
    meta = parse_json(read_whole(path, _LARGEST_META))
    skipped = tuple(Damaged(str(name), str(reason)) for name, reason in meta["skipped"])
    if meta["key"] != request.key or meta["images"] + len(skipped) != len(request.entries):
        raise ValueError(f"{path} belongs to other images")
    return Checked(skipped, Seen(**meta["seen"]) if "seen" in meta else None)


@contextlib.contextmanager
def refusing(cache_dir: Path) -> Iterator[None]:
    """An error of writing into ``cache_dir`` as a ``DataError``."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"The cache {cache_dir} can't be written: {why(error)}. Make room, or put it on another drive."
        ) from error


def bytes_text(count: int) -> str:
    """Bytes for people: ``5.1 MB``; decimal units, as disks are sold."""
    size = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
