"""The bytes of an image file to one small array, the same for the cache and on the fly."""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

from ganguard.data import deep, faults, memory
from ganguard.data.pixel_range import Extent, PixelRange, extent_of

# Part of what a cache is keyed by: raise it whenever the same bytes would give other pixels.
DECODER_VERSION = 1
MAX_PIXELS = 10**9

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_DRAFT_ABOVE = 178_956_970  # pixels; up to here JPEGs have always been decoded whole, and caches hold what came of it
_LARGE_PIXELS = 2_000_000  # what has no more cannot take ``_LARGE_BYTES``
_LARGE_BYTES = 50_000_000  # what takes more is decoded alone, and only where there is memory for it
_GRAY_MODES = frozenset({"1", "L", "LA", "La", "I", "F"})
_GRAY_WITHIN = 8  # of 255: as far as a JPEG's colours may drift from gray
_SAMPLES = 32  # a side of the grid of pixels that tells gray from colour

# Pillow loads its plugins at the first file that needs them, and not safely: a second thread may meanwhile take a
# good webp for no image.
Image.init()
# Tried in this order; by itself Pillow tries some rare formats first, which costs as much as decoding a small JPEG.
_FORMATS = tuple(dict.fromkeys(("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "AVIF", *Image.ID)))

_large = threading.Lock()
_T = TypeVar("_T")


class DamagedImage(ValueError):
    """The file can't be used as an image; the text is a short reason."""


class NoRoom(MemoryError):
    """An image takes more memory than there is; the text says how much. Nothing is wrong with the file."""


@dataclass(frozen=True)
class Decoding:
    """How a set's files become pixels.

    Attributes:
        pixel_range: of images with more than 8 bits a channel; None takes the upper 8 of 16 bits.
        max_pixels: an image with more is not decoded.
    """

    pixel_range: PixelRange | None = None
    max_pixels: int = MAX_PIXELS

    @property
    def range_text(self) -> str:
        """What a key of decoded images adds for the range."""
        return f", values {self.pixel_range}" if self.pixel_range else ""

    @property
    def text(self) -> str:
        """What a key adds for everything; nothing by default, as in caches from before there was a choice."""
        most = f", at most {self.max_pixels} pixels" if self.max_pixels != MAX_PIXELS else ""
        return self.range_text + most


AS_EVER = Decoding()


class Look(NamedTuple):
    """What an image file was like: its shorter side in pixels, whether it was enlarged, gray, one of several frames."""

    side: int
    enlarged: bool
    gray: bool
    several: bool


def decode(
    content: bytes,
    image_size: int,
    channels: int,
    decoding: Decoding = AS_EVER,
) -> NDArray[np.uint8]:
    """Decode an image file of any kind that Pillow reads.

    The EXIF orientation is applied, transparency is laid on white, more than 8 bits become 8, CMYK and palettes become
    RGB. Of an animation or of several pages the first is taken. The centre square (its side is the image's shorter
    side) is brought to ``image_size``: down by a box filter, so that each pixel is the mean of those it covers, up
    bicubically. An image of exactly 28 x 28 pixels asked for at 32 is not enlarged but gets a frame of 2 pixels that
    repeats its border, which is the background in the sets of that size.

    Args:
        content: the file's bytes.
        image_size: width and height of the result, pixels.
        channels: 1 for grayscale (ITU-R 601-2 luma), 3 for RGB.
        decoding: the rest of how.

    Returns:
        (channels, image_size, image_size), uint8, contiguous.

    Raises:
        DamagedImage: the bytes can't be decoded whole, or are not to be.
        MemoryError: there is too little memory; ``NoRoom`` where that is known beforehand.
    """
    return decode_and_look(content, image_size, channels, decoding)[0]


def decode_and_look(
    content: bytes, image_size: int, channels: int, decoding: Decoding
) -> tuple[NDArray[np.uint8], Look]:
    """``decode``, and what the file was like."""

    def work(opened: Image.Image, side: int) -> tuple[NDArray[np.uint8], Look]:
        several = _has_more_frames(opened)
        image, gray = _plain(opened, content, "L" if channels == 1 else "RGB", decoding.pixel_range)
        pixels = np.asarray(_square(image, image_size))
        padded = pixels.shape[0] != image_size
        if padded:
            pixels = np.pad(pixels, [(2, 2), (2, 2), (0, 0)][: pixels.ndim], mode="edge")
        planes = np.ascontiguousarray(pixels.reshape(image_size, image_size, channels).transpose(2, 0, 1))
        return planes, Look(side, side < image_size and not padded, gray, several)

    return _with_image(content, channels, decoding.max_pixels, work, image_size)


def extent(content: bytes, max_pixels: int) -> Extent | None:
    """The values of an image with more than 8 bits a channel; None for others, and where there are no numbers.

    Raises:
        DamagedImage, MemoryError: as ``decode``.
    """

    def work(opened: Image.Image, _side: int) -> Extent | None:
        found = deep.read(opened, content) if deep.is_deep(opened) else None
        return extent_of(found.values) if found else None

    return _with_image(content, 1, max_pixels, work)


def _with_image(
    content: bytes, channels: int, max_pixels: int, work: Callable[[Image.Image, int], _T], image_size: int = 0
) -> _T:
    """``work`` on the opened image; a PNG that fails is tried once more without what lies beside its pixels.

    Args:
        work: given the image and its shorter side.
        image_size: pixels that are wanted; a huge JPEG is decoded no larger than that needs. 0: as it is.
    """
    if not content:
        raise DamagedImage("empty file")
    try:
        with (
            _without_pillows_limit(),
            Image.open(io.BytesIO(content), formats=_FORMATS) as opened,
            _room(opened, channels, max_pixels, image_size) as side,
        ):
            return work(opened, side)
    except (DamagedImage, MemoryError):
        raise
    except Exception as error:  # Pillow's decoders let nearly any exception through on damaged bytes
        bare = faults.bare_png(content)
        if bare is None:
            raise DamagedImage(faults.reason(content, error)) from error
    return _with_image(bare, channels, max_pixels, work, image_size)


class _Limit:
    """Pillow's own limit of pixels, which belongs to the whole process, and how many decoders need it gone."""

    lock = threading.Lock()
    users = 0
    before: int | None = None


@contextlib.contextmanager
def _without_pillows_limit() -> Iterator[None]:
    """Pillow warns or refuses by a number of its own; here ``max_pixels`` and the memory decide."""
    with _Limit.lock:
        if not _Limit.users:
            _Limit.before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        _Limit.users += 1
    try:
        yield
    finally:
        with _Limit.lock:
            _Limit.users -= 1
            if not _Limit.users:
                Image.MAX_IMAGE_PIXELS = _Limit.before


@contextlib.contextmanager
def _room(opened: Image.Image, channels: int, max_pixels: int, image_size: int) -> Iterator[int]:
    """Refuse an image that is too large; where it is large, decode no other large one meanwhile. Gives its side."""
    width, height = opened.size
    pixels = width * height
    if pixels > max_pixels:
        raise DamagedImage(f"too large: {width:,} x {height:,} pixels; --max-pixels {pixels} takes it")
    needed = _drafted(opened, image_size) if image_size and pixels > _DRAFT_ABOVE else 0
    needed += opened.width * opened.height * (_bytes_a_pixel(opened, channels) if pixels > _LARGE_PIXELS else 0)
    if needed <= _LARGE_BYTES:
        yield min(width, height)
        return
    with _large:
        free = memory.available()
        if free is not None and needed > free:
            raise NoRoom(
                f"its {width:,} x {height:,} pixels take {needed / 1e9:.1f} GB to decode, and "
                f"{free / 1e9:.1f} GB are free; --max-pixels {pixels - 1} leaves it out"
            )
        yield min(width, height)


def _drafted(opened: Image.Image, image_size: int) -> int:
    """Let a JPEG be decoded at a fraction of its size; returns the bytes that are needed beside its pixels.

    The coefficients of a progressive one are held whole: two bytes for each of up to three channels.
    """
    if opened.format not in ("JPEG", "MPO"):
        return 0
    coefficients = 6 * opened.width * opened.height if opened.info.get("progressive") else 0
    opened.draft(None, (2 * image_size, 2 * image_size))
    return coefficients


def _bytes_a_pixel(opened: Image.Image, channels: int) -> int:
    """At most, with all copies that are held at once."""
    stored = 1 if opened.mode in ("1", "L", "P") else 2 if opened.mode.startswith("I;16") else 4
    if deep.is_deep(opened):
        return 4 * stored + 4
    target = 1 if channels == 1 else 4
    converted = (
        12 if opened.has_transparency_data else 0 if opened.mode in ("L", "RGB") and stored == target else target
    )
    return stored * (2 if opened.format in ("WEBP", "AVIF") else 1) + max(converted, target)


def _has_more_frames(opened: Image.Image) -> bool:
    """A phone's JPEG with a second picture for its screen (MPO) is one photo."""
    return bool(getattr(opened, "is_animated", False)) and opened.format != "MPO"


def _plain(
    opened: Image.Image, content: bytes, mode: Literal["L", "RGB"], pixel_range: PixelRange | None
) -> tuple[Image.Image, bool]:
    """8 bits a channel, opaque, upright; and whether it is gray."""
    image: Image.Image = opened
    if deep.is_deep(opened):
        image = _shaded(opened, content, pixel_range)
    else:
        opened.load()
    turn = _TURNS.get(_orientation(opened))
    if turn is not None:
        image = image.transpose(turn)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    gray = opened.mode.startswith("I;") or opened.mode in _GRAY_MODES or _looks_gray(image)
    return (image if image.mode == mode else image.convert(mode)), gray


def _orientation(opened: Image.Image) -> Any:
    try:
        return opened.getexif().get(_ORIENTATION, 1)
    except Exception:  # a broken EXIF block says nothing about the pixels
        return 1


def _looks_gray(image: Image.Image) -> bool:
    red, green, blue = image.resize((_SAMPLES, _SAMPLES), Image.Resampling.NEAREST).convert("RGB").split()
    return all(
        ImageChops.difference(green, other).getextrema()[1] <= _GRAY_WITHIN  # type: ignore[operator]  # of one band
        for other in (red, blue)
    )


def _shaded(opened: Image.Image, content: bytes, pixel_range: PixelRange | None) -> Image.Image:
    """More than 8 bits as 8."""
    if pixel_range is not None:
        values, alpha = deep.read(opened, content)
        shades = pixel_range.shade(values)
        return Image.fromarray(shades if alpha is None else np.dstack([shades, alpha]))
    opened.load()
    if opened.mode == "F":
        raise DamagedImage("floating-point pixels, which have no upper 8 bits: give --pixel-range=LOW:HIGH")
    if not opened.mode.startswith("I"):
        return opened  # Pillow has taken the upper 8 bits of each channel
    wide = np.asarray(opened)
    if wide.size and (wide.min() < 0 or wide.max() > 0xFFFF):
        raise DamagedImage("32-bit pixels beyond 16 bits, which have no upper 8: give --pixel-range=LOW:HIGH")
    return Image.fromarray((wide >> 8).astype(np.uint8))


def _square(image: Image.Image, size: int) -> Image.Image:
    """The centre square at ``size``, or at 28 where ``decode`` is to pad it."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    if side == size or (image.size == (28, 28) and size == 32):
        return image.crop(box)
    filter_ = Image.Resampling.BOX if side > size else Image.Resampling.BICUBIC
    return image.resize((size, size), filter_, cast(tuple[float, float, float, float], box))
