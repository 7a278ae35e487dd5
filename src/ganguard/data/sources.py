"""Where the bytes of images come from: a folder on disk, or a zip.

A source gives the bytes of one image by name. What its images are, and their labels, is an ``Entry`` for each: see
``listing`` for class folders, ``attributes`` for a table, ``arrays`` for sets that are not files.
"""

from __future__ import annotations

import hashlib
import os
import re
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from ganguard.errors import DataError

_IN_ZIPS_OF_MACS = "__MACOSX"


class File(NamedTuple):
    """A file as a source finds it.

    ``name`` is relative to the source, with forward slashes. ``stamp`` changes with the content: nanoseconds of the
    last change on disk, the CRC-32 within a zip.
    """

    name: str
    size: int
    stamp: int


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

    def files(self) -> Iterator[File]: ...

    def folders(self) -> tuple[str, ...]:
        """The names of the top folders, also of empty ones."""
        ...


class FolderSource:
    """A folder on disk."""

    def __init__(self, path: Path, name: str | None = None) -> None:
        self.path = path
        self.name = name or safe_name(path.resolve().name)

    def files(self) -> Iterator[File]:
        yield from _walk(self.path, "", frozenset({os.path.realpath(self.path)}))

    def folders(self) -> tuple[str, ...]:
        return tuple(item.name for item in _scan(self.path) if item.is_dir())

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def start(self, name: str, count: int) -> bytes:
        with (self.path / name).open("rb", buffering=0) as file:
            return file.read(count)


def _walk(folder: Path, prefix: str, above: frozenset[str]) -> Iterator[File]:
    """Files below ``folder``, through links too; ``above`` are the real paths of the folders that lead here."""
    for item in _scan(folder):
        if item.is_dir():
            real = os.path.realpath(item.path) if item.is_symlink() else item.path
            if real not in above:  # a link to a folder that holds it would never end
                yield from _walk(Path(item.path), f"{prefix}{item.name}/", above | {real})
        elif item.is_file():
            status = item.stat()
            yield File(prefix + item.name, status.st_size, status.st_mtime_ns)


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    """What lies in ``folder``, by name; nothing hidden."""
    try:
        found = [item for item in os.scandir(folder) if not item.name.startswith(".")]
    except OSError as error:
        raise DataError(f"The folder {folder} can't be read ({error.strerror}). Check its permissions.") from error
    return sorted(found, key=lambda item: item.name)


class ZipSource:
    """A zip file, read without unpacking it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = safe_name(path.stem)
        self._opened: tuple[int, zipfile.ZipFile] | None = None

    def files(self) -> Iterator[File]:
        archive = self._archive()
        for info in map(archive.getinfo, sorted(set(archive.namelist()))):
            if not info.is_dir() and not any(part.startswith(".") for part in info.filename.split("/")):
                yield File(info.filename, info.file_size, info.CRC)

    def folders(self) -> tuple[str, ...]:
        tops = {name.partition("/")[0] for name in self._archive().namelist() if "/" in name}
        return tuple(sorted(top for top in tops if not top.startswith(".") and top != _IN_ZIPS_OF_MACS))

    def read(self, name: str) -> bytes:
        return self._archive().read(name)

    def start(self, name: str, count: int) -> bytes:
        with self._archive().open(name) as file:
            return file.read(count)

    def _archive(self) -> zipfile.ZipFile:
        # A forked worker shares its parent's file position, so each process opens the zip itself.
        if self._opened is None or self._opened[0] != os.getpid():
            try:
                self._opened = os.getpid(), zipfile.ZipFile(self.path)
            except zipfile.BadZipFile as error:
                raise DataError(f"{self.path} is not a whole zip file ({error}). Copy it again.") from error
            except OSError as error:
                raise DataError(f"{self.path} can't be read ({error.strerror}). Check that it is there.") from error
        return self._opened[1]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_opened": None}


def digest(settings: str, entries: Iterable[Entry]) -> str:
    """32 hexadecimal digits that change with the settings and with any name, class, size or stamp."""
    state = hashlib.sha256(settings.encode())
    for entry in entries:
        state.update(name_bytes(f"\n{entry.name}\0{entry.label}\0{entry.size}\0{entry.stamp}"))
    return state.hexdigest()[:32]


def name_bytes(name: str) -> bytes:
    """``name`` as bytes, also where it is no valid Unicode, as names on disk need not be."""
    return name.encode("utf-8", "surrogatepass")


def safe_name(name: str) -> str:
    """``name`` as a folder name for any system."""
    return re.sub(r"[^\w.-]+", "_", name).strip("._") or "images"
