"""The bytes of an image file to one small array, the same for the cache and on the fly."""

from __future__ import annotations

import io
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

# Part of what a cache is keyed by: raise it whenever the same bytes would give other pixels.
DECODER_VERSION = 1

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

# Pillow loads its plugins at the first file that needs them, and not safely: a second thread may meanwhile take a
# good webp for no image.
Image.init()


class DamagedImage(ValueError):
    """The bytes are no image, or not a whole one; the text is a short reason."""


def decode(content: bytes, image_size: int, channels: int) -> NDArray[np.uint8]:
    """Decode an image file of any kind that Pillow reads.

    The EXIF orientation is applied, transparency is laid on white, 16 bits are cut to their upper 8, CMYK and
    palettes become RGB. Of an animation the first frame is taken. The centre square (its side is the image's shorter
    side) is brought to ``image_size``: down by a box filter, so that each pixel is the mean of those it covers, up
    bicubically. An image of exactly 28 x 28 pixels asked for at 32 is not enlarged but gets a frame of 2 pixels that
    repeats its border, which is the background in the sets of that size.

    Args:
        content: the file's bytes.
        image_size: width and height of the result, pixels.
        channels: 1 for grayscale (ITU-R 601-2 luma), 3 for RGB.

    Returns:
        (channels, image_size, image_size), uint8, contiguous.

    Raises:
        DamagedImage: the bytes can't be decoded whole.
    """
    if not content:
        raise DamagedImage("empty file")
    try:
        with Image.open(io.BytesIO(content)) as opened:
            opened.load()
            image = _plain(_upright(opened), "L" if channels == 1 else "RGB")
            pixels = np.asarray(_square(image, image_size))
    except DamagedImage:
        raise
    except MemoryError:
        raise
    except UnidentifiedImageError:
        raise DamagedImage("not an image, or damaged in its first bytes") from None
    except Exception as error:  # Pillow's decoders let nearly any exception through on damaged bytes
        raise DamagedImage(str(error).strip()[:120] or type(error).__name__) from error
    if pixels.shape[0] != image_size:
        pixels = np.pad(pixels, [(2, 2), (2, 2), (0, 0)][: pixels.ndim], mode="edge")
    return np.ascontiguousarray(pixels.reshape(image_size, image_size, channels).transpose(2, 0, 1))


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a broken EXIF block says nothing about the pixels
        return image
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def _plain(image: Image.Image, mode: Literal["L", "RGB"]) -> Image.Image:
    """8 bits a channel, opaque."""
    if image.mode.startswith("I"):
        image = _upper_byte(image)
    elif image.mode == "F":
        raise DamagedImage("floating-point pixels, whose range isn't known; save it with 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == mode else image.convert(mode)


def _upper_byte(image: Image.Image) -> Image.Image:
    wide = np.asarray(image)
    if wide.size and (wide.min() < 0 or wide.max() > 0xFFFF):
        raise DamagedImage("32-bit pixels beyond 16 bits; save it with 8 or 16 bits")
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
