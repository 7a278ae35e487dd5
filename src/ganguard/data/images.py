"""``open_images``: a name or a path in, a data set of labelled images out."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ganguard.data import cache
from ganguard.data.arrays import ArraySource
from ganguard.data.attributes import AttributeTable, list_attributes
from ganguard.data.finding import find_source
from ganguard.data.listing import balanced_subset, check_classes, list_classes, named
from ganguard.data.pixels import CachedPixels, DecodedPixels, Pixels
from ganguard.data.sources import Entry, FileSource, Listing, name_bytes
from ganguard.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    Batch: TypeAlias = tuple[Tensor, Tensor]

Labels: TypeAlias = NDArray[np.int64] | NDArray[np.uint8]

_NAMED_AT_MOST = 20


class LabelledImages:
    """A map-style data set for ``torch.utils.data.DataLoader``.

    ``dataset[i]`` is one image, uint8 of shape (C, H, W), and its label: an int, or (A,) uint8 where there are
    attributes. A loader asks for a whole batch at once (``__getitems__``) if it is given
    ``collate_fn=LabelledImages.collate``, which is much faster. It can be pickled to spawned workers, which open the
    cache themselves.

    With ``flip`` each image is mirrored left to right with probability 1/2. The draws come from torch's default
    generator, once a batch: a guard seeds it for every batch by (seed, position), so they are the same after a resume
    and with any number of workers. Use ``as_stored()`` to look at images without drawing.

    Attributes:
        name: short, usable as a folder's name.
        label_names: the classes, sorted, a label being an index into them; or the attributes, in the labels' order.
        labels: (N,) int64 classes, or (N, A) uint8 attributes, 0 or 1.
        attributes: whether the labels are attributes.
        fingerprint: hexadecimal; changes with the files' names, sizes and times, the attributes, and the settings that
            the images' pixels depend on.
        skipped: names of the damaged images, which are not part of the set.
    """

    def __init__(
        self,
        pixels: Pixels,
        labels: Labels,
        *,
        name: str,
        label_names: tuple[str, ...],
        fingerprint: str,
        skipped: tuple[str, ...] = (),
        flip: bool = False,
    ) -> None:
        self._pixels = pixels
        self._flip = flip
        self.labels = labels
        self.attributes = labels.ndim == 2
        self.name = name
        self.label_names = label_names
        self.fingerprint = fingerprint
        self.skipped = skipped

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int | Tensor]:
        images, labels = self.__getitems__([index])
        return images[0], labels[0] if self.attributes else int(labels[0])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Images (B, C, H, W) uint8 and labels (B,) int64 or (B, A) uint8, in memory of their own."""
        import torch

        rows = np.asarray(indices, np.int64)
        if rows.size and not -len(self) <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"index out of range for {len(self):,} images")
        rows = rows % len(self)
        images = self._pixels.take(rows)
        if self._flip:
            mirrored = torch.rand(len(rows)).numpy() < 0.5
            images[mirrored] = images[mirrored, :, :, ::-1]
        return torch.from_numpy(images), torch.from_numpy(self.labels[rows])

    def as_stored(self) -> LabelledImages:
        """The same images, never mirrored: nothing is drawn."""
        plain = copy.copy(self)
        plain._flip = False
        return plain

    @staticmethod
    def collate(batch: Any) -> Batch:
        """Pass on what ``__getitems__`` gave; stack single items where a loader fetched one by one."""
        if isinstance(batch, tuple):
            return batch
        import torch

        images, labels = zip(*batch, strict=True)
        return torch.stack(images), torch.stack([torch.as_tensor(label) for label in labels])


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
    root: Path | None = None,
    say: Callable[[str], None] = print,
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
        root: where torchvision's sets lie or are downloaded to; ``datasets`` beside ``cache_dir`` by default.
        say: told what happens, a line at a time.

    Raises:
        DataError: nothing is there, no class folders, one class only, a table that doesn't fit, no readable image,
            too little space for the cache.
    """
    _check_settings(image_size, channels)
    tell = _telling(say)
    source = find_source(data, root=root or cache_dir.parent / "datasets", say=tell)
    listing = _listing(source, attributes)
    for notice in listing.notices:
        tell(notice)
    if limit is not None:
        listing = balanced_subset(listing, limit)
    request = cache.Request(source, listing.entries, image_size, channels, limit)
    cached = _find_or_build(request, cache_dir, cache_limit, tell)
    skipped = cached.skipped if cached else cache.find_damaged(cache_dir, request, tell)
    _tell_superseded(cache_dir, request, tell)

    damaged = frozenset(image.name for image in skipped)
    kept = [entry for entry in listing.entries if entry.name not in damaged]
    labels = _labels(kept)
    pixels: Pixels
    if cached:
        pixels = CachedPixels(cached.folder / cache.IMAGES)
    else:
        pixels = DecodedPixels(source, [entry.name for entry in kept], _groups(labels), image_size, channels)
    dataset = LabelledImages(
        pixels,
        labels,
        name=source.name,
        label_names=listing.label_names,
        fingerprint=_fingerprint(request.key, skipped, listing.label_names, labels),
        skipped=tuple(image.name for image in skipped),
        flip=flip,
    )
    where = f"cached in {cached.folder} ({cache.bytes_text(request.file_bytes(len(kept)))})" if cached else "not cached"
    _report(dataset, skipped, f"{image_size}x{image_size}, {'RGB' if channels == 3 else 'grayscale'}, {where}", tell)
    return dataset


def _listing(source: FileSource | ArraySource, attributes: AttributeTable | None) -> Listing:
    if not isinstance(source, ArraySource):
        return list_attributes(source, attributes) if attributes else list_classes(source)
    if attributes:
        raise DataError(f"{source.path} has classes, and no files that a table of attributes could name. Leave it out.")
    return source.listing()


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


def _tell_superseded(cache_dir: Path, request: cache.Request, say: Callable[[str], None]) -> None:
    old = cache.find_superseded(cache_dir, request)
    if old:
        size = cache.bytes_text(sum(old.values()))
        say(
            f"Caches of {request.source.path} from before its files changed take {size}; remove them once no other "
            f"training reads them: {named([str(folder) for folder in old])}."
        )


def _fingerprint(key: str, skipped: cache.Skipped, label_names: Sequence[str], labels: Labels) -> str:
    # The key already covers all files and classes; the damaged ones are added since they decide the length.
    state = hashlib.sha256(name_bytes("\n".join((key, *(image.name for image in skipped)))))
    if labels.ndim == 2:
        state.update(name_bytes("\n".join(("", *label_names, ""))) + labels.tobytes())
    return state.hexdigest()[:32]


def _report(dataset: LabelledImages, skipped: cache.Skipped, how: str, say: Callable[[str], None]) -> None:
    if skipped:
        say(f"{len(skipped):,} of {len(dataset) + len(skipped):,} images are damaged and left out:")
    for image in skipped[:_NAMED_AT_MOST]:
        say(f"  {image.name}: {image.reason}")
    if len(skipped) > _NAMED_AT_MOST:
        say(f"  and {len(skipped) - _NAMED_AT_MOST:,} more")
    said = f"with {_shares(dataset)}" if dataset.attributes else f"in {_classes(dataset, say)}"
    say(f"{dataset.name}: {len(dataset):,} images {said}, {how}.")


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
    return f"{len(shares):,} attributes ({named(shares)})"


def _telling(say: Callable[[str], None]) -> Callable[[str], None]:
    """``say``, with what a console cannot show (a file name in another script) written as escapes."""

    def tell(text: str) -> None:
        try:
            say(text)
        except UnicodeEncodeError:
            say(text.encode("ascii", "backslashreplace").decode())

    return tell
