"""The values of images with more than 8 bits a channel.

Of colours with 16 bits Pillow gives the upper 8 only. The lower 8 come out where the same bytes are read in the other
byte order.
"""

from __future__ import annotations

import io
import sys
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_COLOURS = ("RGB", "RGBA", "RGBX", "LA")
_BIG = {"B": True, "L": False, "N": sys.byteorder == "big"}


class Deep(NamedTuple):
    """``values`` (H, W) or (H, W, 3), of any type; ``alpha`` (H, W), uint8, where there is any."""

    values: NDArray[Any]
    alpha: NDArray[np.uint8] | None


def is_deep(opened: Image.Image) -> bool:
    """Whether an image that was opened, and not yet loaded, has more than 8 bits a channel."""
    return opened.mode[:1] in ("I", "F") or bool(_order(opened))


def read(opened: Image.Image, content: bytes) -> Deep:
    """The values of an image that ``is_deep``; to be called before it is loaded.

    Args:
        content: the bytes that ``opened`` was opened from.
    """
    order = _order(opened)
    if not order:
        opened.load()
        return Deep(np.asarray(opened), None)
    raw_mode = _raw_mode(opened)
    if raw_mode.startswith("LA"):  # which is stored as four bytes a pixel
        with Image.open(io.BytesIO(content)) as again:
            pairs = _loaded_as(again, "RGBA")
        return Deep(pairs[..., 0] * np.uint16(256) + pairs[..., 1], pairs[..., 2])
    with Image.open(io.BytesIO(content)) as again:
        lower = _loaded_as(again, raw_mode[:-1] + ("L" if _BIG[order] else "B"))
    opened.load()
    upper = np.asarray(opened)
    values = upper[..., :3] * np.uint16(256) + lower[..., :3]
    return Deep(values, upper[..., 3] if upper.shape[2] == 4 else None)


def _order(opened: Image.Image) -> str:
    """``B``, ``L`` or ``N``, the byte order of colours with 16 bits; empty for other images."""
    kind, _, bits = _raw_mode(opened).partition(";")
    return bits[2:] if kind in _COLOURS and bits in ("16B", "16L", "16N") else ""


def _raw_mode(opened: Image.Image) -> str:
    """How the pixels lie in the file, in Pillow's words; they need not all lie alike."""
    modes = {_first(tile[3]) for tile in getattr(opened, "tile", ())}
    return str(modes.pop()) if len(modes) == 1 else ""


def _first(arguments: Any) -> Any:
    return arguments[0] if isinstance(arguments, tuple) and arguments else arguments


def _loaded_as(opened: Any, raw_mode: str) -> NDArray[np.uint8]:
    """The pixels, as if the file said that they lay otherwise."""
    opened.tile = [
        tile._replace(args=(raw_mode, *tile.args[1:]) if isinstance(tile.args, tuple) else raw_mode)
        for tile in opened.tile
    ]
    opened.load()
    return np.asarray(opened)
