"""Where the bytes of images come from: what any source gives, and the folder on disk.

A source gives the bytes of one image by name. What its images are, and their labels, is an ``Entry`` for each: see
``listing`` for class folders, ``attributes`` for a table, ``arrays`` for sets that are not files, ``zips`` for zips.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from ganguard.errors import DataError

_LONGEST_NAME = 160  # bytes; file systems end at 255, and a cache's temporary names take 50 more
_NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)  # where a link may lead
_WINDOWS_CANNOT_FOLLOW = 1921


class File(NamedTuple):
    """A file as a source finds it.

    ``name`` is relative to the source, with forward slashes. ``stamp`` changes with the content: nanoseconds of the
    last change on disk, the CRC-32 within a zip.
    """

    name: str
    size: int
    stamp: int


class Found(NamedTuple):
    """What lies in a source, hidden files left out.

    ``folders`` are the names of the top folders, also of empty ones; ``dangling`` links that lead nowhere and
    ``unreadable`` what permissions keep closed, both by name.
    """

    files: tuple[File, ...]
    folders: tuple[str, ...]
    dangling: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()


class Entry(NamedTuple):
    """An image: a ``File``, the index of its class (0 where there are none) and its attributes, a byte 0 or 1 each."""

    name: str
    label: int
    size: int
    stamp: int
    attributes: bytes = b""


class Listing(NamedTuple):
    """All images of a source in a fixed order; ``notices`` say what was left out.

    ``label_names`` are the classes, or the attributes.
    """

    label_names: tuple[str, ...]
    entries: tuple[Entry, ...]
    notices: tuple[str, ...] = ()


class Source(Protocol):
    """Images with names; picklable, and usable from several threads and forked processes."""

    @property
    def name(self) -> str: ...

    @property
    def path(self) -> Path: ...

    def read(self, name: str) -> bytes:
        """The bytes of one image; ``OSError`` where they can't be read, ``BadZipFile`` where they are damaged."""
        ...

    def start(self, name: str, count: int) -> bytes:
        """Its first ``count`` bytes, likewise."""
        ...


class FileSource(Source, Protocol):
    """Images that are files in folders."""

    def find(self) -> Found:
        """Raises ``DataError`` where the source can't be read."""
        ...


class FolderSource:
    """A folder on disk."""

    def __init__(self, path: Path, name: str | None = None) -> None:
        self.path = path
        self.name = name or safe_name(path.resolve().name)

    def find(self) -> Found:
        walk = _Walk(self.path)
        files = tuple(walk.files())
        return Found(files, tuple(walk.folders), tuple(walk.dangling), tuple(walk.unreadable))

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def start(self, name: str, count: int) -> bytes:
        with (self.path / name).open("rb", buffering=0) as file:
            return file.read(count)


class _Walk:
    """Goes through a folder, through links too, and keeps what it could not follow or read."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.folders: list[str] = []
        self.dangling: list[str] = []
        self.unreadable: list[str] = []

    def files(self, prefix: str = "", above: frozenset[str] = frozenset()) -> Iterator[File]:
        """Files in and below the folder ``prefix``; ``above`` are the real paths of the folders that lead here."""
        real = os.path.realpath(self._root / prefix)
        if real in above:  # a link to a folder that holds it would never end
            return
        for item in self._scan(prefix):
            status = self._status(item, prefix)
            if status is None:
                continue
            if stat.S_ISDIR(status.st_mode):
                if not prefix:
                    self.folders.append(item.name)
                yield from self.files(f"{prefix}{item.name}/", above | {real})
            elif stat.S_ISREG(status.st_mode):
                yield File(prefix + item.name, status.st_size, status.st_mtime_ns)

    def _scan(self, prefix: str) -> list[os.DirEntry[str]]:
        """What lies in a folder, by name; nothing hidden. Only a permission is told and passed over."""
        try:
            with os.scandir(self._root / prefix) as items:
                return sorted((item for item in items if not is_hidden(item.name)), key=lambda item: item.name)
        except PermissionError as error:
            if not prefix:
                raise _unreadable(self._root, error) from error
            self.unreadable.append(prefix.rstrip("/"))
            return []
        except OSError as error:
            raise _unreadable(self._root / prefix, error) from error

    def _status(self, item: os.DirEntry[str], prefix: str) -> os.stat_result | None:
        """Of what a link leads to; None where it leads nowhere or may not be looked at."""
        try:
            return item.stat()
        except PermissionError:
            self.unreadable.append(prefix + item.name)
        except OSError as error:
            nowhere = error.errno in _NOWHERE or getattr(error, "winerror", None) == _WINDOWS_CANNOT_FOLLOW
            if not nowhere:
                raise _unreadable(Path(item.path), error) from error
            if item.is_symlink():  # else it was removed just now
                self.dangling.append(prefix + item.name)
        return None


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path} can't be read ({error.strerror}). Check its permissions and its drive.")


def is_hidden(name: str) -> bool:
    """Whether a file's or folder's name hides it; trash is no secret: what lies in it is counted."""
    return name.startswith(".") and not name.startswith(".Trash")


def digest(settings: str, entries: Iterable[Entry]) -> str:
    """32 hexadecimal digits that change with the settings and with any name, class, size or stamp.

    A name's Unicode form doesn't count: a copy on another system may have another.
    """
    state = hashlib.sha256(settings.encode())
    for entry in entries:
        state.update(name_bytes(f"\n{nfc(entry.name)}\0{entry.label}\0{entry.size}\0{entry.stamp}"))
    return state.hexdigest()[:32]


def name_bytes(name: str) -> bytes:
    """``name`` as bytes, also where it is no valid Unicode, as names on disk need not be."""
    return name.encode("utf-8", "surrogatepass")


def nfc(name: str) -> str:
    """``name`` in Unicode's composed form: é is one character or two, by system, and one name."""
    return unicodedata.normalize("NFC", name)


def safe_name(name: str) -> str:
    """``name`` as a folder name for any system, at most 160 bytes long."""
    plain = re.sub(r"[^\w.-]+", "_", name).strip("._") or "images"
    content = plain.encode()
    if len(content) <= _LONGEST_NAME:
        return plain
    mark = hashlib.sha256(name_bytes(name)).hexdigest()[:4]  # two such names stay two
    return f"{content[: _LONGEST_NAME - 5].decode(errors='ignore').rstrip('._')}-{mark}"
