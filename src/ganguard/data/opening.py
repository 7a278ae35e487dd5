"""What opening any data set has in common: which sizes are cached, where the pixels come from, what is told."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ganguard.data import building, cache
from ganguard.data.cache import Cache, Request, Skipped, bytes_text
from ganguard.data.listing import counted, named
from ganguard.data.pixels import CachedPixels, DecodedPixels, Pixels
from ganguard.data.remarks import Seen
from ganguard.data.sources import Entry, name_bytes
from ganguard.errors import DataError

_NAMED_AT_MOST = 20

Say = Callable[[str], None]


class Stored(NamedTuple):
    """Images that were found readable: ``caches`` as the requests, None where images are decoded while training."""

    requests: tuple[Request, ...]
    caches: tuple[Cache | None, ...]
    entries: tuple[Entry, ...]
    skipped: Skipped
    seen: Seen | None

    def pixels(self, image_size: int, groups: NDArray[np.int64]) -> Pixels:
        """The images at one of the sizes. ``groups`` (N,) says which images stand in for each other."""
        for request, cached in zip(self.requests, self.caches, strict=True):
            if request.image_size == image_size:
                return CachedPixels(cached.folder / cache.IMAGES) if cached else self._decoded(request, groups)
        raise ValueError(f"no request for {image_size} px")

    def _decoded(self, request: Request, groups: NDArray[np.int64]) -> Pixels:
        return DecodedPixels(
            request.source,
            [entry.name for entry in self.entries],
            groups,
            image_size=request.image_size,
            decoded_at=request.decoded_at,
            channels=request.channels,
            decoding=request.decoding,
        )

    def fingerprint(self, key: str, more: bytes = b"") -> str:
        """32 hexadecimal digits of ``key``, which covers the files, the damaged ones, which decide the length, more."""
        state = hashlib.sha256(name_bytes("\n".join((key, *(image.name for image in self.skipped)))))
        state.update(more)
        return state.hexdigest()[:32]


def open_stored(requests: Sequence[Request], cache_dir: Path, cache_limit: int, say: Say) -> Stored:
    """Build the caches that fit into ``cache_limit`` bytes together, the smallest images first; find those there are.

    Args:
        requests: the same images in different sizes, from the largest down.
        cache_dir: where caches are kept.
        cache_limit: bytes.
        say: told what happens.

    Raises:
        DataError: no readable image, too little space, caches that contradict each other.
    """
    wanted = _affordable(requests, cache_limit)
    building.build_caches(cache_dir, wanted, say)
    caches = tuple(cache.find_cache(cache_dir, request) for request in requests)
    without = [request for request, found in zip(requests, caches, strict=True) if found is None]
    if without:
        _tell_not_cached(without, cache_limit, checked=any(caches), say=say)
    found_skipped = {found.checked.skipped for found in caches if found is not None}
    if len(found_skipped) > 1:
        folders = named([str(cache_dir / request.folder_name) for request in requests])
        raise DataError(f"Not all of these caches are of the same images: {folders}. Remove them and start again.")
    known = [found.checked for found in caches if found is not None]
    known = known or [building.check_images(cache_dir, requests[0], say)]
    skipped, seen = known[0].skipped, next((checked.seen for checked in known if checked.seen), None)
    _tell_skipped(skipped, len(requests[0].entries), say)
    if skipped and seen is None:
        records = [found.folder for found in caches if found is not None]
        records = records or [building.record_of(cache_dir, requests[0])]
        say(
            "An earlier version, which could read fewer kinds of files, left these out; remove "
            f"{named([str(record) for record in records])} to try them again."
        )
    _tell_superseded(cache_dir, requests, say)
    damaged = frozenset(image.name for image in skipped)
    kept = tuple(entry for entry in requests[0].entries if entry.name not in damaged)
    return Stored(tuple(requests), caches, kept, skipped, seen)


def _affordable(requests: Sequence[Request], cache_limit: int) -> list[Request]:
    left, chosen = cache_limit, []
    for request in reversed(requests):
        left -= request.file_bytes(len(request.entries))
        if left >= 0:
            chosen.append(request)
    return chosen[::-1]


def _tell_not_cached(requests: Sequence[Request], cache_limit: int, *, checked: bool, say: Say) -> None:
    size = bytes_text(sum(request.file_bytes(len(request.entries)) for request in requests))
    sizes = ", ".join(f"{request.image_size:,}" for request in requests)
    first = "" if checked else " The first start checks every image once."
    say(
        f"At {sizes} px a cache would take {size}, more than the limit of {bytes_text(cache_limit)} leaves: "
        f"images are decoded while training.{first}"
    )


def _tell_skipped(skipped: Skipped, images: int, say: Say) -> None:
    if skipped:
        say(f"{len(skipped):,} of {counted(images)} can't be used and {'is' if len(skipped) == 1 else 'are'} left out:")
    for image in skipped[:_NAMED_AT_MOST]:
        say(f"  {image.name}: {image.reason}")
    if len(skipped) > _NAMED_AT_MOST:
        say(f"  and {len(skipped) - _NAMED_AT_MOST:,} more")


def _tell_superseded(cache_dir: Path, requests: Sequence[Request], say: Say) -> None:
    old: dict[Path, int] = {}
    for request in requests:
        old |= cache.find_superseded(cache_dir, request)
    if old:
        say(
            f"Caches of {requests[0].source.path} from before its files changed take {bytes_text(sum(old.values()))}; "
            f"remove them once no other training reads them: {named([str(folder) for folder in old])}."
        )


def telling(say: Say) -> Say:
    """``say``, with what a console cannot show (a file name in another script) written as escapes."""

    def tell(text: str) -> None:
        try:
            say(text)
        except UnicodeEncodeError:
            say(text.encode("ascii", "backslashreplace").decode())

    return tell


def check_channels(channels: int) -> None:
    """Raises ``DataError`` for other than 1 or 3."""
    if channels not in (1, 3):
        raise DataError(f"Images have 1 channel (grayscale) or 3 (RGB), not {channels}. Choose one of these.")


def kind_of(channels: int) -> str:
    return "RGB" if channels == 3 else "grayscale"
