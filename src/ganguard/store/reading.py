"""A person's files, opened for reading: regular ones only, and what is read whole within a bound.

A pipe would be waited for without end, a device may never end, and opening one can do something.
"""

from __future__ import annotations

import errno
import io
import json
import os
import stat
from pathlib import Path
from typing import Any, cast

from ganguard.store import durable

SMALL = 16 << 20  # bytes: what JSON and settings never reach
_FLAGS = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)


def open_regular(path: Path, flags: int = os.O_RDONLY) -> io.FileIO:
    """Open a regular file, unbuffered and without ever waiting for it.

    Args:
        flags: as for ``os.open``; a file that is only appended to, say.

    Raises:
        OSError: it cannot be opened, or is a folder, a pipe, a socket or a device.
    """
    return durable.patiently(lambda: _open_regular(path, flags))


def _open_regular(path: Path, flags: int) -> io.FileIO:
    try:
        _require_regular(path.stat(), path)
    except FileNotFoundError:
        if not flags & os.O_CREAT:
            raise
    descriptor = os.open(path, flags | _FLAGS, 0o666)
    try:
        _require_regular(os.fstat(descriptor), path)  # another may have taken the name since
        writes = flags & (os.O_WRONLY | os.O_RDWR)
        mode = "rb" if not writes else "ab" if flags & os.O_APPEND else "rb+"
        return cast(io.FileIO, open(descriptor, mode, buffering=0))  # noqa: PTH123  # a descriptor, not a path
    except BaseException:
        os.close(descriptor)
        raise


def _require_regular(info: os.stat_result, path: Path) -> None:
    if stat.S_ISDIR(info.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    if not stat.S_ISREG(info.st_mode):
        raise OSError(errno.EINVAL, f"it is {_kind(info.st_mode)} and no regular file", str(path))


def _kind(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "a named pipe"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"


def read_whole(path: Path, most: int = SMALL) -> bytes:
    """All bytes of a regular file.

    Raises:
        OSError: it cannot be read, is no regular file, or holds more than ``most`` bytes.
    """
    with open_regular(path) as file:
        parts = []
        left = most + 1
        while left and (part := file.read(min(left, 1 << 20))):
            parts.append(part)
            left -= len(part)
    if not left:
        raise OSError(errno.EFBIG, f"it is larger than the {most:,} bytes that such a file may have", str(path))
    return b"".join(parts)


def read_json(path: Path) -> Any:
    """What a file of JSON says.

    Raises:
        OSError: as ``read_whole``.
        ValueError: it is no JSON.
    """
    return parse_json(read_whole(path))


def parse_json(text: bytes) -> Any:
    """What JSON says. Raises ValueError where it is none, or is nested beyond reason."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
