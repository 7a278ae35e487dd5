"""Elapsed time that may be divided by.

Windows' ``time.monotonic`` stands still for 15.6 ms at a time, which is longer than a small epoch takes;
``time.perf_counter`` moves on many times a microsecond everywhere.
"""

from __future__ import annotations

import time

_LEAST_S = 1e-6


class Stopwatch:
    """Runs from the moment that it is made."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    @property
    def seconds(self) -> float:
        """So far; never 0, whatever the clock's resolution."""
        return max(time.perf_counter() - self._began, _LEAST_S)
