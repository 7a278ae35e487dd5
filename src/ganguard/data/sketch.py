"""A sketch of a set of images: by a few of them it is known again, wherever it lies and whatever was added or removed.

It holds the 32 images whose names have the smallest hashes (a bottom-k sketch: Cohen and Kaplan, "Summarizing data
using bottom-k sketches", PODC 2007), each with a checksum of its content. So the share of images that two sets have in
common is estimated from one set and the sketch of the other, reading 32 files. Times of files and the place of the
folder are no part of it: copied, moved or restored images are the same ones.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xxhash

from ganguard.data.sources import Entry, FolderSource, Source, name_bytes, nfc

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
        self._source, self._entries = source, entries
        self._hashes = np.fromiter((_hash(entry.name) for entry in entries), np.uint64, len(entries))
        self._marks: dict[int, str] = {}

    @property
    def text(self) -> str:
        """``hash:checksum`` of each image of the sketch, with spaces between: what is recorded."""
        smallest = np.argsort(self._hashes)[:_IMAGES].tolist()
        return " ".join(f"{self._hashes[place]:016x}:{self._mark(place)}" for place in smallest)

    def overlap(self, recorded: str) -> Overlap | None:
        """With the set whose ``text`` was recorded; None where that is none."""
        try:
            before = {int(key, 16): mark for key, _, mark in (word.partition(":") for word in recorded.split())}
        except ValueError:
            return None
        if not before:
            return None
        everything = len(before) < _IMAGES  # all images of that set are there, so any of this one may be compared
        now = np.arange(len(self._entries)) if everything else np.flatnonzero(self._hashes <= max(before))
        both = [place for place in now.tolist() if int(self._hashes[place]) in before]
        common = sum(before[int(self._hashes[place])] == self._mark(place) for place in both)
        return Overlap(common, len(before), len(now))

    def _mark(self, place: int) -> str:
        if place not in self._marks:
            self._marks[place] = _checksum(self._source, self._entries[place])
        return self._marks[place]


def _hash(name: str) -> int:
    """The same for both Unicode forms of a name: systems turn one into the other."""
    return xxhash.xxh3_64_intdigest(name_bytes(nfc(name)))


def _checksum(source: Source, entry: Entry) -> str:
    """Of a file's size and some of its content; where a set is no folder, an entry's stamp is a checksum already."""
    if not isinstance(source, FolderSource):
        return f"{entry.stamp & 0xFFFFFFFF:08x}"
    sum_ = zlib.crc32(str(entry.size).encode())
    try:
        with (source.path / entry.name).open("rb") as file:
            for piece in range(_PIECES):
                file.seek(piece * max(0, entry.size - _PIECE) // (_PIECES - 1))  # its beginning and its end too
                sum_ = zlib.crc32(file.read(_PIECE), sum_)
    except OSError:
        return "unread"  # decoding names it with the reason
    return f"{sum_:08x}"
