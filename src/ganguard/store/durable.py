"""Files that survive a power cut, on Linux, macOS and Windows.

The one place of the store that knows how operating systems differ.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

WINDOWS = sys.platform == "win32"
_REPLACE_TRIES = 20
_REPLACE_PAUSE_S = 0.05
_WRITING_S = 60.0
# What open() of a read-only folder, link() on exFAT, or chmod() on a network share answer.
_NO_HARD_LINKS = {
    errno.EPERM,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.EMLINK,
    errno.EXDEV,
    errno.ENOSYS,
    errno.EINVAL,
}


def sync_file(descriptor: int) -> None:
    """Return once the file's bytes are on the medium."""
    if sys.platform == "darwin":
        import fcntl

        # fsync on macOS only reaches the drive's cache.
        with contextlib.suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
    os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    """Return once renames within ``folder`` are on the medium. Windows has no such call."""
    if WINDOWS:
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network and FUSE file systems cannot sync a folder; the rename itself went through.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, each on the medium before the next is needed."""
    place = folder.absolute()
    missing = [p for p in (place, *place.parents) if not p.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for made in reversed(missing):
        sync_folder(made.parent)


def _patiently(action: Callable[[], object]) -> None:
    """Windows refuses to rename or remove what a virus scanner or an indexer holds open for a moment."""
    for attempt in range(_REPLACE_TRIES if WINDOWS else 1):
        try:
            action()
            return
        except PermissionError:
            if attempt == _REPLACE_TRIES - 1 or not WINDOWS:
                raise
            time.sleep(_REPLACE_PAUSE_S)


def replace(source: Path, target: Path) -> None:
    """Rename over ``target``, which may be read-only."""
    if WINDOWS and target.exists():
        target.chmod(stat.S_IWRITE)
    _patiently(lambda: source.replace(target))


def remove(path: Path) -> None:
    """Remove a file, read-only or not; one that is gone already is no error."""
    if WINDOWS and path.exists():
        path.chmod(stat.S_IWRITE)
    _patiently(lambda: path.unlink(missing_ok=True))


def protect(path: Path) -> None:
    """Make a file read-only; a file system without permissions keeps it writable."""
    with contextlib.suppress(OSError):
        path.chmod(0o444)


def write_all(file: BinaryIO, data: bytes | memoryview) -> None:
    """Write every byte: an unbuffered file may take fewer without an error, as it does on a disk that fills up."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def link(source: Path, target: Path) -> bool:
    """Give ``source`` a second name; False where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno in _NO_HARD_LINKS:
            return False
        raise
    return True


def copy(source: Path, target: Path) -> None:
    """Copy bytes; file systems that can share blocks do (btrfs, XFS), so that it costs no space there."""
    with source.open("rb") as reader:
        copy_open(reader, target)


def copy_open(reader: BinaryIO, target: Path) -> None:
    """``copy`` of an open file."""
    size = os.fstat(reader.fileno()).st_size
    with target.open("xb") as writer:
        if hasattr(os, "copy_file_range"):
            with contextlib.suppress(OSError):
                while (done := writer.seek(0, os.SEEK_END)) < size:
                    if not os.copy_file_range(reader.fileno(), writer.fileno(), size - done, done, done):
                        break
        reader.seek(writer.seek(0, os.SEEK_END))
        shutil.copyfileobj(reader, writer, 1 << 20)


def read_only_protects(folder: Path) -> bool:
    """Whether a read-only file in ``folder`` can really not be written: it can by root, and on some shares."""
    probe, name = tempfile.mkstemp(prefix=".tmp-probe-", dir=folder)
    os.close(probe)
    path = Path(name)
    try:
        path.chmod(0o444)
        with path.open("r+b"):
            return False
    except PermissionError:
        return True
    finally:
        remove(path)


def free_bytes(folder: Path) -> int:
    """Bytes that this user may still write below ``folder``."""
    return shutil.disk_usage(folder).free


@contextlib.contextmanager
def written_atomically(path: Path, tag: str = "") -> Iterator[Any]:
    """A binary file to write to, which takes the name ``path`` once it is whole and durable."""
    temporary = temporary_name(path, tag)
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            sync_file(file.fileno())
        replace(temporary, path)
        sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            remove(temporary)
        raise


TEMPORARY_PREFIX = ".tmp-"


def temporary_name(path: Path, tag: str = "") -> Path:
    """A name beside ``path`` that no scan takes for a checkpoint and that ``clear_temporaries`` removes.

    Args:
        tag: tells writers apart that share the folder.
    """
    mark = f"{tag}-" if tag else ""
    return path.with_name(f"{TEMPORARY_PREFIX}{mark}{os.getpid()}-{time.monotonic_ns()}-{path.name}")


def clear_temporaries(folder: Path, tag: str = "") -> int:
    """Remove what an interrupted write left; to be called only by who holds the lock. Returns how many.

    Args:
        tag: only those of this writer, where others share the folder.
    """
    leftovers = list(folder.glob(f"{TEMPORARY_PREFIX}{tag}{'-' if tag else ''}*"))
    for path in leftovers:
        with contextlib.suppress(OSError):
            remove(path)
    return len(leftovers)


def is_writing(folder: Path, tag: str = "") -> bool:
    """Whether a file of the writer with this ``tag`` has been written to in the last minute, and has no name yet."""
    now = time.time()
    for path in folder.glob(f"{TEMPORARY_PREFIX}{tag}{'-' if tag else ''}*"):
        with contextlib.suppress(OSError):
            if now - path.stat().st_mtime < _WRITING_S:
                return True
    return False


def why(error: OSError) -> str:
    """An operating system's error in words that tell what to do."""
    if error.errno == errno.ENOSPC:
        return "the disk is full"
    if error.errno == getattr(errno, "EDQUOT", -1):
        return "your disk quota is used up"
    if error.errno == errno.EROFS:
        return "the file system is mounted read-only"
    if error.errno == errno.ENOENT:
        return "there is no such file or folder"
    if error.errno == errno.EIO:
        return "the disk answers with an input/output error"
    return error.strerror or str(error)
