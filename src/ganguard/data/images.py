"""``open_images``: a name or a path in, a data set of labelled images out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ganguard.data import cache
from ganguard.data.arrays import ArraySource
from ganguard.data.attributes import AttributeTable, list_attributes
from ganguard.data.datasets import LabelledImages, Labels
from ganguard.data.decode import MAX_PIXELS
from ganguard.data.finding import find_source
from ganguard.data.listing import balanced_subset, check_classes, counted, list_classes, named, places
from ganguard.data.opening import check_channels, kind_of, open_stored, telling
from ganguard.data.pixel_range import AUTO
from ganguard.data.remarks import Names, remarks
from ganguard.data.sources import Entry, FileSource, Listing, Source, name_bytes
from ganguard.data.values import decoding_for
from ganguard.errors import DataError
from ganguard.reports import console

_NAMES = Names("--image-size", (32, 64, 128), "--channels")


def open_images(
    data: str,
    *,
    image_size: int,
    channels: int,
    cache_dir: Path,
    cache_limit: int = 20 * 10**9,
    limit: int | None = None,
    attributes: AttributeTable | None = None,
    flip: bool = False,
    pixel_range: str = AUTO,
    max_pixels: int = MAX_PIXELS,
    label_names: Sequence[str] = (),
    root: Path | None = None,
    say: Callable[[str], None] = console.say,
    listed: Callable[[Source, Listing], None] | None = None,
) -> LabelledImages:
    """Open a set of labelled images, decoding it into a cache where there is none.

    Args:
        data: a built-in set (``fashion-mnist-mini``, ``emoji``), the path of a folder or zip of class folders (with
            ``attributes``: of images), of an IDX folder, or a set that torchvision knows (``mnist``,
            ``fashion-mnist``, ``cifar10``, ``celeba``).
        image_size: width and height of the images, pixels.
        channels: 1 for grayscale, 3 for RGB.
        cache_dir: where caches are kept; made where it isn't there.
        cache_limit: bytes; a set that would be larger is decoded while training (a cache that exists is used).
        limit: take at most so many images, as evenly from all classes as they allow.
        attributes: take the labels from a table of binary attributes; folders are no classes then.
        flip: mirror each image left to right with probability 1/2 when it is asked for.
        pixel_range: which values of images with more than 8 bits a channel become black and white: ``0:4095``, say;
            ``full`` for 0 to 65535, by cutting off the lower 8 bits; ``auto`` for what the set's images hold.
        max_pixels: larger images are left out.
        label_names: the classes or attributes that a checkpoint was trained with; labels are indices into these then.
        root: where torchvision's sets lie or are downloaded to; ``datasets`` beside ``cache_dir`` by default.
        say: told what happens, a line at a time.
        listed: given all images before anything is decoded; may refuse them.

    Raises:
        DataError: nothing is there, no class folders, one class only, a table that doesn't fit, no readable image,
            too little space for the cache.
        DoesNotFit: the classes or attributes are others than ``label_names``; nothing is decoded then.
    """
    if image_size < 1:
        raise DataError(f"An image size of {image_size} is not possible. Give the pixels of a side, such as 32.")
    check_channels(channels)
    tell = telling(say)
    source = find_source(data, root=root or cache_dir.parent / "datasets", say=tell)
    listing = _listing(source, attributes, label_names)
    if listed is not None:
        listed(source, listing)
    for notice in listing.notices:
        tell(notice)
    if limit is not None:
        listing = balanced_subset(listing, limit)
    decoding, range_text = decoding_for(source, listing.entries, pixel_range, max_pixels, cache_dir, tell)
    request = cache.Request(source, listing.entries, image_size, channels, limit, decoding=decoding)
    stored = open_stored([request], cache_dir, cache_limit, tell)
    labels = _labels(stored.entries)
    dataset = LabelledImages(
        stored.pixels(image_size, _groups(labels)),
        labels,
        name=source.name,
        label_names=listing.label_names,
        fingerprint=stored.fingerprint(request.images_key, _attributes_text(listing.label_names, labels)),
        skipped=tuple(image.name for image in stored.skipped),
        pixel_range=range_text,
        flip=flip,
    )
    cached = stored.caches[0]
    size = cache.bytes_text(request.file_bytes(len(dataset)))
    where = f"cached in {cached.folder} ({size})" if cached else "not cached"
    labelled = f"with {_shares(dataset)}" if dataset.attributes else f"in {_classes(dataset, tell)}"
    how = f"{image_size}x{image_size}, {kind_of(channels)}, {where}"
    tell(f"{dataset.name}: {counted(len(dataset))} {labelled}, {how}.")
    if stored.seen:
        for remark in remarks(stored.seen, image_size=image_size, channels=channels, names=_NAMES):
            tell(remark)
    return dataset


def _listing(source: FileSource | ArraySource, attributes: AttributeTable | None, known: Sequence[str]) -> Listing:
    if not isinstance(source, ArraySource):
        return list_attributes(source, attributes, known) if attributes else list_classes(source, known)
    if attributes:
        raise DataError(f"{source.path} has classes, and no files that a table of attributes could name. Leave it out.")
    listing = source.listing()
    return _with_labels(listing, known) if known else listing


def _with_labels(listing: Listing, known: Sequence[str]) -> Listing:
    """The same images, labelled by the known classes."""
    place = places(listing.label_names, known, "classes")
    entries = tuple(entry._replace(label=place[entry.label]) for entry in listing.entries)
    return listing._replace(label_names=tuple(known), entries=entries)


def _labels(entries: Sequence[Entry]) -> Labels:
    if not entries[0].attributes:
        return np.array([entry.label for entry in entries], np.int64)
    joined = b"".join(entry.attributes for entry in entries)
    return np.frombuffer(joined, np.uint8).reshape(len(entries), -1)


def _groups(labels: Labels) -> NDArray[np.int64]:
    """(N,) equal where the labels are."""
    if labels.ndim == 1:
        return labels.astype(np.int64)
    return np.unique(labels, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _attributes_text(label_names: Sequence[str], labels: Labels) -> bytes:
    """What tells labels from others; nothing for classes, which the files' names already tell."""
    return name_bytes("\n".join(("", *label_names, ""))) + labels.tobytes() if labels.ndim == 2 else b""


def _classes(dataset: LabelledImages, say: Callable[[str], None]) -> str:
    counts = np.bincount(dataset.labels, minlength=len(dataset.label_names)).tolist()
    by_name = dict(zip(dataset.label_names, counts, strict=True))
    present = [name for name, count in by_name.items() if count]
    for name in by_name:
        if name not in present:
            say(f"No image of class {name} is left.")
    check_classes(dataset.name, present, len(dataset))
    return f"{len(by_name):,} classes"


def _shares(dataset: LabelledImages) -> str:
    percents = (100 * dataset.labels.mean(axis=0)).tolist()
    shares = [f"{name} {percent:.0f} %" for name, percent in zip(dataset.label_names, percents, strict=True)]
    return f"{console.counted(len(shares), 'attribute')} ({named(shares)})"
