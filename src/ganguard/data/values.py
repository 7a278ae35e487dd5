"""Which values a set's images with more than 8 bits hold, and the range that follows for all of them.

The first bytes of a file tell of nearly all images that they have 8 bits; only the others are decoded for this, once,
and what was found is remembered beside the caches.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from ganguard.data import pixel_range
from ganguard.data.arrays import ArraySource
from ganguard.data.cache import refusing
from ganguard.data.decode import DamagedImage, Decoding, extent
from ganguard.data.listing import counted
from ganguard.data.pixel_range import AUTO, FULL, Extent, PixelRange
from ganguard.data.pixels import retrying
from ganguard.data.progress import Progress
from ganguard.data.sources import Entry, Source, digest
from ganguard.errors import DataError
from ganguard.store import durable
from ganguard.store.reading import read_json

Say = Callable[[str], None]

_FIRST_BYTES = 64
_AT_ONCE = 64
_EIGHT_BITS = (b"\xff\xd8", b"GIF8", b"BM", b"P1", b"P4")
_PNG_SIDES, _PNG_DEPTH = slice(16, 24), 24  # where a PNG tells its width and height, and its bits a channel
_LARGE_PIXELS = 20_000_000  # opened too, so that too little memory is known before any image is decoded
_NETPBM = re.compile(rb"P[2356]\s+\d+\s+\d+\s+(\d{1,3})\s")
_FULL_RANGE = PixelRange(0, 0xFFFF)


@dataclass(frozen=True)
class Values:
    """Of the images with more than 8 bits: how many there are, and what they hold together.

    ``found`` is the range for that, ``inner`` that without the most extreme; as texts.
    """

    images: int
    low: float
    high: float
    found: str
    inner: str


def decoding_for(
    source: Source, entries: Sequence[Entry], asked: str, max_pixels: int, cache_dir: Path, say: Say
) -> tuple[Decoding, str]:
    """How a set is to be decoded, and the text of its range for the record.

    Args:
        asked: ``auto``, ``full`` or ``LOW:HIGH``.
        max_pixels: see ``Decoding``.
        cache_dir: where it is remembered what the images hold.
        say: told of the range, if any image has more than 8 bits.

    Raises:
        DataError: ``asked`` is none of these, or an image can't be read.
    """
    try:
        asked = pixel_range.canonical(asked)
    except ValueError as error:
        raise DataError(f"pixel_range: {error}.") from error
    values = _find(source, entries, max_pixels, cache_dir, say)
    if values is None:
        return Decoding(None, max_pixels), FULL if asked == AUTO else asked
    chosen = None if asked == FULL else pixel_range.parse(values.found if asked == AUTO else asked)
    if asked == AUTO and chosen == _FULL_RANGE:
        chosen = None  # the upper 8 bits are the same
    _tell(values, chosen, len(entries), asked, say)
    return Decoding(chosen, max_pixels), str(chosen or FULL) if asked == AUTO else asked


def _find(source: Source, entries: Sequence[Entry], max_pixels: int, cache_dir: Path, say: Say) -> Values | None:
    if isinstance(source, ArraySource):
        return None  # uint8
    key = digest(f"values, at most {max_pixels} pixels", entries)
    remembered = cache_dir / f"{source.name}-{key[:16]}.values.json"
    try:
        found = read_json(remembered)
        if found["key"] == key:
            return Values(**found["values"]) if found["values"] else None
    except (OSError, ValueError, KeyError, TypeError):
        pass
    values = _together(list(_extents(source, entries, max_pixels, say)))
    with refusing(cache_dir):
        cache_dir.mkdir(parents=True, exist_ok=True)
        with durable.written_atomically(remembered, "data") as file:
            file.write(json.dumps({"key": key, "values": asdict(values) if values else None}).encode())
    return values


def _together(extents: Sequence[Extent]) -> Values | None:
    if not extents:
        return None
    low, high = min(e.low for e in extents), max(e.high for e in extents)
    found, inner = pixel_range.range_of(extents), pixel_range.inner_range(extents)
    return Values(len(extents), low, high, str(found), str(inner))


def _extents(source: Source, entries: Sequence[Entry], max_pixels: int, say: Say) -> Iterator[Extent]:
    def look(some: Sequence[Entry]) -> list[Extent]:
        found = []
        for entry in some:
            try:
                values = retrying(source, entry.name, lambda name: _extent(source, name, max_pixels))
            except DamagedImage:
                continue  # decoding it will tell
            found += [values] if values else []
        return found

    parts = [entries[start : start + _AT_ONCE] for start in range(0, len(entries), _AT_ONCE)]
    with (
        Progress(len(entries), "looking for images with more than 8 bits", say) as progress,
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
    ):
        for part, found in zip(parts, pool.map(look, parts), strict=True):
            yield from found
            progress.advance(len(part))


def _extent(source: Source, name: str, max_pixels: int) -> Extent | None:
    return None if _has_8_bits(source.start(name, _FIRST_BYTES)) else extent(source.read(name), max_pixels)


def _has_8_bits(start: bytes) -> bool:
    """Whether a file's first bytes tell that its image is of 8 bits a channel, or fewer; False where they don't."""
    if start.startswith(b"\x89PNG"):
        sides = start[_PNG_SIDES]
        pixels = int.from_bytes(sides[:4], "big") * int.from_bytes(sides[4:], "big")
        return len(start) > _PNG_DEPTH and start[_PNG_DEPTH] <= 8 and pixels <= _LARGE_PIXELS
    if start.startswith(b"RIFF") or start[4:12] in (b"ftypavif", b"ftypavis"):
        return True
    netpbm = _NETPBM.match(start)
    return start.startswith(_EIGHT_BITS) or (netpbm is not None and int(netpbm[1]) <= 0xFF)


def _tell(values: Values, chosen: PixelRange | None, images: int, asked: str, say: Say) -> None:
    used = chosen or _FULL_RANGE
    others = images - values.images
    rest = f"; the other {others:,} have 8 and stay as they are" if others else ""
    say(
        f"{counted(values.images)} {'has' if values.images == 1 else 'have'} more than 8 bits a channel, with values "
        f"from {_short(values.low)} to {_short(values.high)}: {_short(used.low)} becomes black, {_short(used.high)} "
        f"white (--pixel-range){rest}."
    )
    found, inner = pixel_range.parse(values.found), pixel_range.parse(values.inner)
    if asked == AUTO and _span(inner) * 4 <= _span(found):
        say(
            f"Nearly all of these values lie in {inner}; where the others are faults, a new run with "
            f"--pixel-range={inner} shows the rest with more contrast."
        )
    elif asked != AUTO and found != used:
        say(
            f"That is the range that was given, or that the run began with; these values would make it {found}: "
            f"a new run with --pixel-range={found} takes that."
        )


def _span(range_: PixelRange) -> float:
    return range_.high - range_.low


def _short(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:.6g}"
