"""Which values of images with more than 8 bits a channel become black and white: one rule for a whole set."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

AUTO = "auto"
FULL = "full"
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_TEXT = re.compile(rf"\s*({_NUMBER})\s*:\s*({_NUMBER})\s*")
_BLOCK = 1 << 20  # values that are shaded at once, as float64
_INNER = 0.001  # the share of values, and of images, at each end that may be faults


class PixelRange(NamedTuple):
    """``low`` becomes black, ``high`` white; what lies beyond is clipped."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low!r}:{self.high!r}"

    def shade(self, values: NDArray[np.generic]) -> NDArray[np.uint8]:
        """The values as 0 to 255, each of which has an equal share of the range; what is no number becomes black.

        Of 0 to 2**b - 1 these are the upper 8 bits.
        """
        if values.dtype.kind == "u" and values.dtype.itemsize == 2:
            return np.take(self._shade(np.arange(1 << 16)), cast(NDArray[np.uint16], values))
        shaded = np.empty(values.shape, np.uint8)
        rows = max(1, _BLOCK * len(values) // max(1, values.size))
        for top in range(0, len(values), rows):
            shaded[top : top + rows] = self._shade(values[top : top + rows])
        return shaded

    def _shade(self, values: NDArray[np.generic]) -> NDArray[np.uint8]:
        scaled = (values.astype(np.float64) - self.low) * 256 / (self.high - self.low)
        return np.clip(np.nan_to_num(scaled, nan=0.0), 0, 255).astype(np.uint8)


class Extent(NamedTuple):
    """The values of one image: all of them, and without the most extreme at each end."""

    low: float
    high: float
    inner_low: float
    inner_high: float
    whole: bool  # whole numbers


def extent_of(values: NDArray[np.generic]) -> Extent | None:
    """None where no value is a number."""
    whole = values.dtype.kind in "iu"
    flat = values.reshape(-1)
    flat = flat if whole else flat[np.isfinite(flat)]
    if not flat.size:
        return None
    some = np.sort(flat[:: max(1, flat.size // _BLOCK)])
    edge = int(len(some) * _INNER)
    low, high, *inner = (end.item() for end in (flat.min(), flat.max(), some[edge], some[len(some) - 1 - edge]))
    return Extent(low, high, inner[0], inner[1], whole)


def range_of(extents: Sequence[Extent]) -> PixelRange:
    """The range that images have together.

    Whole numbers from 0 up were measured with some number of bits: 0 to the smallest 2**b - 1 that holds all.
    Negative numbers and fractions have no such scale: from the least to the greatest.
    """
    return _range(min(e.low for e in extents), max(e.high for e in extents), all(e.whole for e in extents))


def inner_range(extents: Sequence[Extent]) -> PixelRange:
    """``range_of`` without the values, and then the images, that are the most extreme; at least one image an end."""
    edge = min(max(1, int(len(extents) * _INNER)), (len(extents) - 1) // 2)
    low = sorted(e.inner_low for e in extents)[edge]
    high = sorted(e.inner_high for e in extents)[len(extents) - 1 - edge]
    return _range(low, high, all(e.whole for e in extents))


def _range(low: float, high: float, whole: bool) -> PixelRange:
    if whole and low >= 0:
        return PixelRange(0, (1 << max(1, int(high).bit_length())) - 1)
    return PixelRange(low, high if high > low else low + 1)


def parse(text: str) -> PixelRange:
    """``0:4095``.

    Raises:
        ValueError: it is none.
    """
    found = _TEXT.fullmatch(text)
    low, high = (float(number) for number in found.groups()) if found else (math.nan, math.nan)
    if not (low < high and math.isfinite(high - low)):
        raise ValueError(
            f"a pixel range is auto, full, or two numbers from black to white, such as 0:4095, not {text!r}"
        )
    return PixelRange(_plain(low), _plain(high))


def canonical(text: str) -> str:
    """One text for each range: ``0 : 4095.0`` is ``0:4095``.

    Raises:
        ValueError: it is none.
    """
    return text if text in (AUTO, FULL) else str(parse(text))


def _plain(number: float) -> float:
    return int(number) if number.is_integer() else number
