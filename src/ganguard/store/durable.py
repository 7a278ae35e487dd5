"""Files that survive a power cut, on Linux, macOS and Windows.

The one place of the store that knows how operating systems differ.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from ganguard.store import interruption

WINDOWS = sys.platform == "win32"
Value = TypeVar("Value")
_TRIES = 20
_PAUSE_S = 0.05
_PIECE = 16 << 20
_WRITE_BITS = 0o222
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


# What a folder answers that cannot be flushed at all: some network and FUSE file systems, one that may not be read.
_NO_FOLDER_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES, errno.EPERM}


def sync_file(descriptor: int) -> None:
    """Return once the file's bytes are on the medium."""
    if sys.platform == "darwin":
        # fsync on macOS only reaches the drive's cache.
        with contextlib.suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
    os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    """Return once renames within ``folder`` are on the medium, where its file system can tell that."""
    try:
        _sync_folder(folder)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, each on the medium before the next is needed."""
    place = folder.absolute()
    missing = [p for p in (place, *place.parents) if not p.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for made in reversed(missing):
        sync_folder(made.parent)


def patiently(action: Callable[[], Value]) -> Value:
    """Windows refuses to open, rename or remove what another process renames, or a virus scanner holds, just now."""
    for _ in range(_TRIES - 1 if WINDOWS else 0):
        with contextlib.suppress(PermissionError):
            return action()
        interruption.ask()
        time.sleep(_PAUSE_S)
    return action()


def _although_read_only(path: Path, action: Callable[[], object]) -> None:
    """Windows neither replaces nor removes a read-only file. One that stays after all is read-only again."""
    unlocked = False
    if WINDOWS:
        with contextlib.suppress(FileNotFoundError):
            mode = path.stat().st_mode
            unlocked = not mode & stat.S_IWRITE
            if unlocked:
                path.chmod(mode | stat.S_IWRITE)
    try:
        patiently(action)
    except BaseException:
        if unlocked:
            protect(path)
        raise


def replace(source: Path, target: Path) -> None:
    """Rename over ``target``, which may be read-only. Under Windows the other names of its file end up writable."""
    _although_read_only(target, lambda: source.replace(target))


def remove(path: Path) -> None:
    """Remove a file, read-only or not; one that is gone already is no error. Other names: as in ``replace``."""
    _although_read_only(path, lambda: path.unlink(missing_ok=True))


def protect(path: Path) -> None:
    """Take the right to write from a file and add none; a file system without permissions keeps it writable."""
    with contextlib.suppress(OSError):
        path.chmod(stat.S_IMODE(path.stat().st_mode) & ~_WRITE_BITS)


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
    """A copy that is durable; file systems that can share blocks do (btrfs, XFS), so that it costs no space there."""
    with source.open("rb", buffering=0) as reader:
        copy_open(reader, target)


def copy_open(reader: BinaryIO, target: Path) -> None:
    """``copy`` of an open file. Flushed piece by piece, so that it can be broken off without a long wait."""
    size = os.fstat(reader.fileno()).st_size
    done = 0
    with target.open("xb", buffering=0) as writer:
        while done < size and (count := _copy_piece(reader, writer, done, min(_PIECE, size - done))):
            done += count
            sync_file(writer.fileno())
            interruption.ask()


def _copy_piece(reader: BinaryIO, writer: BinaryIO, start: int, count: int) -> int:
    """Copy up to ``count`` bytes; returns how many, 0 where the file has become shorter."""
    if hasattr(os, "copy_file_range"):
        with contextlib.suppress(OSError):
            if copied := int(os.copy_file_range(reader.fileno(), writer.fileno(), count, start, start)):
                return copied
    reader.seek(start)
    data = reader.read(count)
    writer.seek(start)
    write_all(writer, data)
    return len(data)


def read_only_protects(folder: Path, tag: str = "") -> bool:
    """Whether a read-only file in ``folder`` can really not be written: it can by root, and on some shares."""
    path = temporary_name(folder / "probe", tag)
    path.touch(0o444, exist_ok=False)
    try:
        with path.open("r+b"):
            return False
    except PermissionError:
        return True
    finally:
        with contextlib.suppress(OSError):
            remove(path)


def free_bytes(folder: Path) -> int:
    """Bytes that this user may still write below ``folder``."""
    return shutil.disk_usage(folder).free


@contextlib.contextmanager
def written_atomically(path: Path, tag: str) -> Iterator[Any]:
    """A binary file to write to, which takes the name ``path`` once it is whole and durable.

    Args:
        tag: whose it is meanwhile, see ``temporary_name``: others that start in the folder leave it alone.
    """
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


@contextlib.contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """A file to write that takes the name ``path`` once it is whole; not flushed, so for what can be made again."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            remove(temporary)


TEMPORARY_PREFIX = ".tmp-"


def temporary_name(path: Path, tag: str = "") -> Path:
    """A name beside ``path`` that no scan takes for a checkpoint and that ``clear_temporaries`` removes.

    Args:
        tag: tells writers apart that share the folder.
    """
    mark = f"{tag}-" if tag else ""
    return path.with_name(f"{TEMPORARY_PREFIX}{mark}{os.getpid()}-{time.monotonic_ns()}-{path.name}")


def temporaries(folder: Path, tag: str = "") -> list[Path]:
    """Files of the writer with this ``tag`` that have no name yet."""
    mine = re.compile(rf"{re.escape(TEMPORARY_PREFIX)}{f'{re.escape(tag)}-' if tag else ''}\d+-\d+-\D")
    return [path for path in folder.glob(f"{TEMPORARY_PREFIX}*") if mine.match(path.name)]


def clear_temporaries(folder: Path, tag: str = "") -> int:
    """Remove what an interrupted write left; to be called only by who holds the lock. Returns how many.

    Args:
        tag: of the writer; what others write in the folder is left alone.
    """
    leftovers = temporaries(folder, tag)
    for path in leftovers:
        with contextlib.suppress(OSError):
            remove(path)
    return len(leftovers)


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


def reason(error: Exception) -> str:
    """Any error in words that go on within a sentence: the first line of several."""
    if isinstance(error, OSError):
        return why(error)
    lines = f"{error}".strip().splitlines()
    return lines[0].rstrip(" .:") if lines else type(error).__name__


if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes

    _KERNEL = ctypes.WinDLL("kernel32", use_last_error=True)
    _KERNEL.CreateFileW.restype = wintypes.HANDLE
    _KERNEL.FlushFileBuffers.argtypes = _KERNEL.CloseHandle.argtypes = [wintypes.HANDLE]
    _GENERIC_WRITE, _SHARE_ALL, _OPEN_EXISTING, _BACKUP_SEMANTICS = 0x40000000, 7, 3, 0x02000000  # of a folder
    _INVALID = wintypes.HANDLE(-1).value

    def _sync_folder(folder: Path) -> None:
        name = str(folder.absolute())
        handle = _KERNEL.CreateFileW(name, _GENERIC_WRITE, _SHARE_ALL, None, _OPEN_EXISTING, _BACKUP_SEMANTICS, None)
        if handle == _INVALID:
            raise ctypes.WinError(ctypes.get_last_error())
        try:
            if not _KERNEL.FlushFileBuffers(handle):
                raise ctypes.WinError(ctypes.get_last_error())
        finally:
            _KERNEL.CloseHandle(handle)

else:
    import fcntl

    def _sync_folder(folder: Path) -> None:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
