"""How freed memory is kept: glibc only, and the one place that calls into the C library."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGEST_MMAP_THRESHOLD = 32 * 1024 * 1024  # glibc takes no more
_NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """Let the C library keep what tensors on the CPU give back, instead of handing it to the system after each step.

    The same pages would be mapped and zeroed again in the next step: 13 % of a small GAN's time, measured by
    ``benchmarks/cgan_speed.py``. The process stays as large as its largest step. See mallopt(3). Does nothing where the
    C library is another one.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl has none
        return
    mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
    mallopt(_M_TRIM_THRESHOLD, _NEVER)
