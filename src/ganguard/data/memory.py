"""How much memory this process may still take. Each operating system tells in its own way."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

if sys.platform == "win32":
    import ctypes

    def _answers() -> Iterator[int]:
        """``GlobalMemoryStatusEx``: its fourth number is the physical memory that is free."""

        class Status(ctypes.Structure):
            _fields_ = (
                ("length", ctypes.c_uint32),
                ("load", ctypes.c_uint32),
                ("total", ctypes.c_uint64),
                ("free", ctypes.c_uint64),
                ("others", ctypes.c_uint64 * 5),
            )

        status = Status(length=ctypes.sizeof(Status))
        if ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
            yield int(status.free)

else:
    import os
    import resource

    _GROUPS = Path("/sys/fs/cgroup")

    def _answers() -> Iterator[int]:
        yield from _machine()
        yield from _control_groups()
        yield from _address_space()

    def _machine() -> Iterator[int]:
        """Linux tells what is available; elsewhere the whole memory is an upper bound."""
        with contextlib.suppress(OSError, ValueError, IndexError, StopIteration):
            lines = Path("/proc/meminfo").read_text().splitlines()
            yield 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
            return
        with contextlib.suppress(OSError, ValueError, AttributeError):
            yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

    def _control_groups() -> Iterator[int]:
        """Limits of a container or a job, which hold for all groups around it too."""
        with contextlib.suppress(OSError, ValueError):
            for line in Path("/proc/self/cgroup").read_text().splitlines():
                _, controllers, path = line.split(":", 2)
                if controllers in ("", "memory"):  # of the second version, or of the first
                    inner = _GROUPS / controllers / path.lstrip("/")
                    for folder in (inner, *inner.parents):
                        if folder.is_relative_to(_GROUPS):
                            yield from _group(folder)

    def _group(folder: Path) -> Iterator[int]:
        """Pages that only cache files are given back when memory is asked for."""
        for limit, used, cached in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            with contextlib.suppress(OSError, ValueError):  # not of this version, or without a limit
                most, taken = int((folder / limit).read_text()), int((folder / used).read_text())
                stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                yield most - taken + int(stat.get(cached, 0))

    def _address_space() -> Iterator[int]:
        """``ulimit -v``."""
        with contextlib.suppress(OSError, ValueError):
            most = resource.getrlimit(resource.RLIMIT_AS)[0]
            if most != resource.RLIM_INFINITY:
                pages = int(Path("/proc/self/statm").read_text().split()[0])
                yield most - pages * os.sysconf("SC_PAGE_SIZE")


def available() -> int | None:
    """Bytes; the least of what the machine has left and what limits leave. None where nobody tells."""
    return min((max(0, answer) for answer in _answers()), default=None)
