"""``open_pyramid``: images without labels in every size from 4 px up, for a GAN that grows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ganguard.data import cache
from ganguard.data.arrays import ArraySource
from ganguard.data.datasets import UnlabelledImages
from ganguard.data.decode import MAX_PIXELS
from ganguard.data.finding import find_source
from ganguard.data.listing import balanced_subset, counted, list_flat
from ganguard.data.opening import Stored, check_channels, kind_of, open_stored, telling
from ganguard.data.pixel_range import AUTO
from ganguard.data.remarks import Names, remarks
from ganguard.data.sources import Entry, FileSource, Listing, Source, digest
from ganguard.data.values import decoding_for
from ganguard.errors import DataError
from ganguard.reports import console

SMALLEST = 4


def pyramid_sizes(largest: int) -> tuple[int, ...]:
    """4, 8, 16 … ``largest``.

    Raises:
        DataError: ``largest`` is none of these.
    """
    if largest < SMALLEST or largest & (largest - 1):
        raise DataError(f"The largest size is a power of two from {SMALLEST} up, such as 256 or 1024, not {largest}.")
    return tuple(SMALLEST << step for step in range(largest.bit_length() - SMALLEST.bit_length() + 1))


def pyramid_bytes(count: int, channels: int, largest: int) -> dict[int, int]:
    """The bytes on disk of each level's cache, by size, for ``count`` images."""
    return {size: cache.array_bytes(count, channels, size) for size in pyramid_sizes(largest)}


class Pyramid:
    """The same images at every size, in the same order.

    Attributes:
        name: short, usable as a folder's name.
        sizes: of the levels, pixels, from 4 up.
        channels: 1 or 3.
        fingerprint: of the files and channels; the same at every level, and whatever the largest size is.
        skipped: names of the images that can't be used, which are not part of the set.
        pixel_range: how more than 8 bits became 8: ``full`` or ``LOW:HIGH``.
        cached: the sizes that are read from a cache; the others are decoded while training.
    """

    def __init__(self, stored: Stored, *, name: str, fingerprint: str, pixel_range: str, flip: bool) -> None:
        self._stored, self._flip = stored, flip
        self.name = name
        self.fingerprint = fingerprint
        self.pixel_range = pixel_range
        self.channels = stored.requests[0].channels
        self.sizes = tuple(request.image_size for request in reversed(stored.requests))
        self.skipped = tuple(image.name for image in stored.skipped)
        pairs = zip(stored.requests, stored.caches, strict=True)
        self.cached = tuple(sorted(request.image_size for request, found in pairs if found is not None))

    def __len__(self) -> int:
        return len(self._stored.entries)

    def level(self, size: int) -> UnlabelledImages:
        """The images at ``size`` pixels.

        Raises:
            DataError: the pyramid has no such level.
        """
        if size not in self.sizes:
            raise DataError(f"There is no level of {size} px; there are {', '.join(map(str, self.sizes))}.")
        return UnlabelledImages(
            self._stored.pixels(size, np.zeros(len(self), np.int64)),
            len(self),
            name=self.name,
            fingerprint=self.fingerprint,
            skipped=self.skipped,
            flip=self._flip,
        )


def open_pyramid(
    data: str,
    *,
    largest: int,
    channels: int,
    cache_dir: Path,
    cache_limit: int = 20 * 10**9,
    limit: int | None = None,
    flip: bool = False,
    pixel_range: str = AUTO,
    max_pixels: int = MAX_PIXELS,
    root: Path | None = None,
    say: Callable[[str], None] = console.say,
    listed: Callable[[Source, Listing], None] | None = None,
) -> Pyramid:
    """Open a set of images without labels, decoding each once into caches of all sizes where there are none.

    An image is decoded at ``largest``; each smaller level holds box means of that, exact but for one rounding.

    Args:
        data: as for ``open_images``; folders are no classes, all images in and below them are taken.
        largest: width and height of the largest level, pixels; a power of two.
        channels: 1 for grayscale, 3 for RGB.
        cache_dir: where caches are kept; made where it isn't there.
        cache_limit: bytes for all levels together; the largest levels that don't fit are decoded while training
            (a cache that exists is used).
        limit: take at most so many images, always the same ones.
        flip: mirror each image left to right with probability 1/2 when it is asked for.
        pixel_range, max_pixels: as for ``open_images``.
        root: where torchvision's sets lie or are downloaded to; ``datasets`` beside ``cache_dir`` by default.
        say: told what happens, a line at a time.
        listed: given all images before anything is decoded; may refuse them.

    Raises:
        DataError: nothing is there, no readable image, too little space for the caches.
    """
    sizes = pyramid_sizes(largest)
    check_channels(channels)
    tell = telling(say)
    source = find_source(data, root=root or cache_dir.parent / "datasets", say=tell)
    listing = _listing(source)
    if listed is not None:
        listed(source, listing)
    for notice in listing.notices:
        tell(notice)
    if limit is not None:
        listing = balanced_subset(listing, limit)
    decoding, range_text = decoding_for(source, listing.entries, pixel_range, max_pixels, cache_dir, tell)
    requests = [
        cache.Request(source, listing.entries, size, channels, limit, reduced_from=largest, decoding=decoding)
        for size in reversed(sizes)
    ]
    stored = open_stored(requests, cache_dir, cache_limit, tell)
    fingerprint = stored.fingerprint(digest(f"pyramid, {channels} channels{decoding.range_text}", listing.entries))
    pyramid = Pyramid(stored, name=source.name, fingerprint=fingerprint, pixel_range=range_text, flip=flip)
    tell(f"{pyramid.name}: {counted(len(pyramid))}, {kind_of(channels)}, {_where(pyramid, cache_dir)}.")
    if stored.seen:
        names = Names("--img-size", sizes, "--channels-img")
        for remark in remarks(stored.seen, image_size=largest, channels=channels, names=names):
            tell(remark)
    return pyramid


def _listing(source: FileSource | ArraySource) -> Listing:
    if not isinstance(source, ArraySource):
        return list_flat(source)
    return Listing((), _without_labels(source.listing().entries))


def _without_labels(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    return tuple(entry._replace(label=0) for entry in entries)


def _where(pyramid: Pyramid, cache_dir: Path) -> str:
    levels = f"{pyramid.sizes[0]} to {pyramid.sizes[-1]:,} px"
    if not pyramid.cached:
        return f"{levels}, not cached"
    size = pyramid_bytes(len(pyramid), pyramid.channels, pyramid.sizes[-1])
    taken = cache.bytes_text(sum(size[level] for level in pyramid.cached))
    if pyramid.cached == pyramid.sizes:
        return f"{levels}, cached in {cache_dir} ({taken})"
    return f"{levels}, of which {', '.join(map(str, pyramid.cached))} px are cached in {cache_dir} ({taken})"
