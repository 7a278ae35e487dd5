"""Smaller images as means of a larger one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def box_means(pixels: NDArray[np.uint8], sizes: Sequence[int]) -> list[NDArray[np.uint8]]:
    """``pixels`` at each of ``sizes``.

    A pixel is the mean of the square of pixels that it covers: 2 x 2 means over and over, in whole numbers without
    loss, rounded once at each size (halves up).

    Args:
        pixels: (C, S, S), uint8.
        sizes: each S or S divided by a power of two.

    Returns:
        (C, size, size) for each size; ``pixels`` itself where it is S.
    """
    means, sums, bits = {pixels.shape[-1]: pixels}, pixels, 0
    while sums.shape[-1] > min(sizes):
        rows = np.add(sums[:, ::2], sums[:, 1::2], dtype=np.uint32)
        sums = rows[:, :, ::2] + rows[:, :, 1::2]
        bits += 2
        means[sums.shape[-1]] = ((sums + (1 << (bits - 1))) >> bits).astype(np.uint8)
    return [means[size] for size in sizes]
