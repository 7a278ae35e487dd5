"""A sketch of a set of images: by a few of them it is known again, wherever it lies and whatever was added or removed.

It holds the 32 images whose names have the smallest hashes (a bottom-k sketch: Cohen and Kaplan, "Summarizing data
using bottom-k sketches", PODC 2007), each with a checksum of its content. So the share of images that two sets have in
common is estimated from one set and the sketch of the other, reading 32 files. Times of files and the place of the
folder are no part of it: copied, moved or restored images are the same ones.
"""

from __future__ import annotations

import heapq
import unicodedata
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import xxhash

from ganguard.data.sources import Entry, FolderSource, Source, name_bytes

_IMAGES = 32
_PIECES, _PIECE = 4, 16_384  # of a file's content, and the bytes of one: scans may take hundreds of megabytes
_OTHER_BELOW = 0.5  # of the smaller set: adding to a set, or clearing it out, leaves it the same


class Overlap(NamedTuple):
    """Images with the smallest hashes: how many two sets have in common, and how many each of them has."""

    common: int
    before: int
    now: int

    @property
    def is_same(self) -> bool:
        """Whether every image that was looked at is in both."""
        return self.common == max(self.before, self.now)

    @property
    def is_other(self) -> bool:
        """Whether the smaller set has most of its images for itself."""
        return self.common < _OTHER_BELOW * max(1, min(self.before, self.now))


class Sketch:
    """Of the images of ``source``, before any limit."""

    def __init__(self, source: Source, entries: Sequence[Entry]) -> None:
        self._source = source
        self._entries = {_hash(entry.name): entry for entry in entries}
        self._marks: dict[str, str] = {}

    @property
    def text(self) -> str:
        """``hash:checksum`` of each image of the sketch, with spaces between: what is recorded."""
        return " ".join(f"{key}:{self._mark(key)}" for key in heapq.nsmallest(_IMAGES, self._entries))

    def overlap(self, recorded: str) -> Overlap | None:
        """With the set whose ``text`` was recorded; None where that is none."""
        before = {key: mark for key, colon, mark in (word.partition(":") for word in recorded.split()) if colon}
        if not before:
            return None
        last = max(before) if len(before) == _IMAGES else "~"  # it held all its images: any may be compared
        now = [key for key in self._entries if key <= last]
        common = sum(before.get(key) == self._mark(key) for key in now if key in before)
        return Overlap(common, len(before), len(now))

    def _mark(self, key: str) -> str:
        if key not in self._marks:
            self._marks[key] = _checksum(self._source, self._entries[key])
        return self._marks[key]


def _hash(name: str) -> str:
    """The same for both Unicode forms of a name: systems turn one into the other."""
    return xxhash.xxh3_64_hexdigest(name_bytes(unicodedata.normalize("NFC", name)))[:10]


def _checksum(source: Source, entry: Entry) -> str:
    """Of a file's size and some of its content; where a set is no folder, an entry's stamp is a checksum already."""
    if not isinstance(source, FolderSource):
        return f"{entry.stamp & 0xFFFFFFFF:08x}"
    sum_ = zlib.crc32(str(entry.size).encode())
    try:
        with (source.path / entry.name).open("rb") as file:
            for piece in range(_PIECES):
                file.seek(piece * entry.size // _PIECES)
                sum_ = zlib.crc32(file.read(_PIECE), sum_)
    except OSError:
        return "unread"  # decoding names it with the reason
    return f"{sum_:08x}"
