"""``open_images``: a name or a path in, a data set of labelled images out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ganguard.data import cache
from ganguard.data.pixels import CachedPixels, DecodedPixels, Pixels
from ganguard.data.sources import balanced_subset, find_source, list_images
from ganguard.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    Batch: TypeAlias = tuple[Tensor, Tensor]

_NAMED_AT_MOST = 20


class LabelledImages:
    """A map-style data set for ``torch.utils.data.DataLoader``.

    ``dataset[i]`` is one image, uint8 of shape (C, H, W), and its label. A loader asks for a whole batch at once
    (``__getitems__``) if it is given ``collate_fn=LabelledImages.collate``, which is much faster. It can be pickled
    to spawned workers, which open the cache themselves.

    Attributes:
        name: short, usable as a folder's name.
        label_names: sorted; a label is an index into them.
        labels: (N,) int64.
        fingerprint: hexadecimal; changes with the files' names, sizes and times, and with the settings.
        skipped: names of the damaged images, which are not part of the set.
    """

    def __init__(
        self,
        pixels: Pixels,
        labels: NDArray[np.int64],
        *,
        name: str,
        label_names: tuple[str, ...],
        fingerprint: str,
        skipped: tuple[str, ...] = (),
    ) -> None:
        self._pixels = pixels
        self.labels = labels
        self.name = name
        self.label_names = label_names
        self.fingerprint = fingerprint
        self.skipped = skipped

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        images, labels = self.__getitems__([index])
        return images[0], int(labels[0])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Images (B, C, H, W) uint8 and labels (B,) int64, in memory of their own."""
        import torch

        rows = np.asarray(indices, np.int64)
        if rows.size and not -len(self) <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"index out of range for {len(self):,} images")
        rows = rows % len(self)
        return torch.from_numpy(self._pixels.take(rows)), torch.from_numpy(self.labels[rows])

    @staticmethod
    def collate(batch: Any) -> Batch:
        """Pass on what ``__getitems__`` gave; stack single items where a loader fetched one by one."""
        if isinstance(batch, tuple):
            return batch
        import torch

        images, labels = zip(*batch, strict=True)
        return torch.stack(images), torch.tensor(labels, dtype=torch.int64)


def open_images(
    data: str,
    *,
    image_size: int,
    channels: int,
    cache_dir: Path,
    cache_limit: int = 20 * 10**9,
    limit: int | None = None,
    say: Callable[[str], None] = print,
) -> LabelledImages:
    """Open a built-in set, a folder of class folders or a zip of them, decoding it into a cache where there is none.

    Args:
        data: ``fashion-mnist-mini``, ``emoji``, or a path.
        image_size: width and height of the images, pixels.
        channels: 1 for grayscale, 3 for RGB.
        cache_dir: where caches are kept; made where it isn't there.
        cache_limit: bytes; a set that would be larger is decoded while training (a cache that exists is used).
        limit: take at most so many images, as evenly from all classes as they allow.
        say: told what happens, a line at a time.

    Raises:
        DataError: nothing is there, no class folders, no readable image, too little space for the cache.
    """
    _check_settings(image_size, channels)
    tell = _telling(say)
    source = find_source(data)
    listing = list_images(source)
    for notice in listing.notices:
        tell(notice)
    if limit is not None:
        listing = balanced_subset(listing, limit)
    request = cache.Request(source, listing.entries, image_size, channels)
    cached = _find_or_build(request, cache_dir, cache_limit, tell)
    skipped = cached.skipped if cached else cache.find_damaged(cache_dir, request, tell)

    damaged = frozenset(image.name for image in skipped)
    kept = [entry for entry in listing.entries if entry.name not in damaged]
    labels = np.array([entry.label for entry in kept], np.int64)
    pixels: Pixels
    if cached:
        pixels = CachedPixels(cached.folder / cache.IMAGES)
    else:
        pixels = DecodedPixels(source, [entry.name for entry in kept], labels, image_size, channels)
    dataset = LabelledImages(
        pixels,
        labels,
        name=source.name,
        label_names=listing.label_names,
        fingerprint=_fingerprint(request.key, skipped),
        skipped=tuple(image.name for image in skipped),
    )
    where = f"cached in {cached.folder} ({cache.bytes_text(request.file_bytes(len(kept)))})" if cached else "not cached"
    _report(dataset, skipped, f"{image_size}x{image_size}, {'RGB' if channels == 3 else 'grayscale'}, {where}", tell)
    return dataset


def _check_settings(image_size: int, channels: int) -> None:
    if image_size < 1:
        raise DataError(f"An image size of {image_size} is not possible. Give the pixels of a side, such as 32.")
    if channels not in (1, 3):
        raise DataError(f"Images have 1 channel (grayscale) or 3 (RGB), not {channels}. Choose one of these.")


def _find_or_build(
    request: cache.Request, cache_dir: Path, cache_limit: int, say: Callable[[str], None]
) -> cache.Cache | None:
    """The cache, or None where it would exceed ``cache_limit`` and isn't there yet."""
    size = request.file_bytes(len(request.entries))
    if size <= cache_limit:
        return cache.open_cache(cache_dir, request, say)
    found = cache.find_cache(cache_dir, request)
    if found is None:
        say(
            f"A cache would take {cache.bytes_text(size)}, more than the limit of {cache.bytes_text(cache_limit)}: "
            f"images are decoded while training. The first start checks every image once."
        )
    return found


def _fingerprint(key: str, skipped: cache.Skipped) -> str:
    # The key already covers all files; the damaged ones are added since they decide the length.
    text = "\n".join((key, *(image.name for image in skipped)))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _report(dataset: LabelledImages, skipped: cache.Skipped, how: str, say: Callable[[str], None]) -> None:
    if skipped:
        say(f"{len(skipped):,} of {len(dataset) + len(skipped):,} images are damaged and left out:")
    for image in skipped[:_NAMED_AT_MOST]:
        say(f"  {image.name}: {image.reason}")
    if len(skipped) > _NAMED_AT_MOST:
        say(f"  and {len(skipped) - _NAMED_AT_MOST:,} more")
    present = np.bincount(dataset.labels, minlength=len(dataset.label_names))
    for name, count in zip(dataset.label_names, present.tolist(), strict=True):
        if not count:
            say(f"No image of class {name} is left.")
    classes = "1 class" if len(dataset.label_names) == 1 else f"{len(dataset.label_names):,} classes"
    say(f"{dataset.name}: {len(dataset):,} images in {classes}, {how}.")


def _telling(say: Callable[[str], None]) -> Callable[[str], None]:
    """``say``, with what a console cannot show (a file name in another script) written as escapes."""

    def tell(text: str) -> None:
        try:
            say(text)
        except UnicodeEncodeError:
            say(text.encode("ascii", "backslashreplace").decode())

    return tell
