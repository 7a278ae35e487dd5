"""Where images come from: class folders on disk or in a zip, behind one listing.

A source lists its images as ``Entry`` and opens the bytes of one by name. The classes are the top folders, sorted by
name; nested files belong to their top folder. Hidden files and other suffixes than those of images are left out.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from ganguard.errors import DataError

BUILTIN_NAMES = ("emoji", "fashion-mnist-mini")
SUFFIXES = frozenset(
    {
        ".avif",
        ".bmp",
        ".gif",
        ".jfif",
        ".jpe",
        ".jpeg",
        ".jpg",
        ".pbm",
        ".pgm",
        ".png",
        ".ppm",
        ".tif",
        ".tiff",
        ".webp",
    }
)
_SPLIT_NAMES = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})


class File(NamedTuple):
    """A file as a source finds it.

    ``name`` is relative to the source, with forward slashes. ``stamp`` changes with the content: nanoseconds of the
    last change on disk, the CRC-32 within a zip.
    """

    name: str
    size: int
    stamp: int


class Entry(NamedTuple):
    """An image: a ``File`` and the index of its class."""

    name: str
    label: int
    size: int
    stamp: int


class Listing(NamedTuple):
    """All images of a source, ordered by class and name; ``notices`` say what was left out."""

    label_names: tuple[str, ...]
    entries: tuple[Entry, ...]
    notices: tuple[str, ...] = ()


class Source(Protocol):
    """Files with names; picklable, and usable from several threads and forked processes."""

    @property
    def name(self) -> str: ...

    @property
    def path(self) -> Path: ...

    def files(self) -> Iterator[File]: ...

    def read(self, name: str) -> bytes:
        """The bytes of one file; ``OSError`` where they can't be read, ``BadZipFile`` where they are damaged."""
        ...


class FolderSource:
    """A folder on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = safe_name(path.resolve().name)

    def files(self) -> Iterator[File]:
        yield from _walk(self.path, "", frozenset({os.path.realpath(self.path)}))

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()


def _walk(folder: Path, prefix: str, above: frozenset[str]) -> Iterator[File]:
    """Files below ``folder``, through links too; ``above`` are the real paths of the folders that lead here."""
    try:
        found = sorted(os.scandir(folder), key=lambda item: item.name)
    except OSError as error:
        raise DataError(f"The folder {folder} can't be read ({error.strerror}). Check its permissions.") from error
    for item in found:
        if item.name.startswith("."):
            continue
        if item.is_dir():
            real = os.path.realpath(item.path) if item.is_symlink() else item.path
            if real not in above:  # a link to a folder that holds it would never end
                yield from _walk(Path(item.path), f"{prefix}{item.name}/", above | {real})
        elif item.is_file():
            status = item.stat()
            yield File(prefix + item.name, status.st_size, status.st_mtime_ns)


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

    def read(self, name: str) -> bytes:
        return self._archive().read(name)

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


def find_source(data: str) -> Source:
    """The source that ``data`` names: a built-in set, a folder of class folders, or a zip of them.

    A built-in name wins over a folder of that name, which is reached as ``./name``.

    Raises:
        DataError: nothing is there, or it is neither a folder nor a zip.
    """
    if data in BUILTIN_NAMES:
        return ZipSource(Path(__file__).with_name("builtin") / f"{data}.zip")
    path = Path(data).expanduser()
    if path.is_dir():
        return FolderSource(path)
    if path.is_file():
        if zipfile.is_zipfile(path):
            return ZipSource(path)
        raise DataError(
            f"{data} is a file, but neither a folder nor a zip. Give the folder that holds the class folders."
        )
    close = difflib.get_close_matches(data.lower(), BUILTIN_NAMES, n=1)
    meant = f" Did you mean {close[0]!r}?" if close else ""
    raise DataError(
        f"There is no folder {data!r}.{meant} Give the path of a folder that holds one folder a class, "
        f"or one of the built-in sets: {', '.join(BUILTIN_NAMES)}."
    )


def list_images(source: Source) -> Listing:
    """Sort the source's files into classes.

    Raises:
        DataError: no images, or no class folders around them.
    """
    inside: dict[str, list[File]] = {}
    loose = 0
    others: Counter[str] = Counter()
    for file in source.files():
        class_name, slash, _ = file.name.partition("/")
        suffix = Path(file.name).suffix.lower()
        if suffix not in SUFFIXES:
            others[suffix or "no suffix"] += 1
        elif slash:
            inside.setdefault(class_name, []).append(file)
        else:
            loose += 1
    if not inside:
        raise DataError(_nothing_found(source.path, loose, others))
    label_names = tuple(sorted(inside))
    entries = tuple(
        Entry(file.name, label, file.size, file.stamp)
        for label, class_name in enumerate(label_names)
        for file in sorted(inside[class_name])
    )
    return Listing(label_names, entries, tuple(_notices(source.path, label_names, loose, others)))


def _nothing_found(path: Path, loose: int, others: Counter[str]) -> str:
    if loose:
        return (
            f"{path} holds {loose:,} images but no class folders. Put the images of each class into a folder of "
            f"its own, such as {path / 'cats' / '1.jpg'}."
        )
    seen = f", only other files ({_most_common(others)})" if others else ""
    return (
        f"{path} holds no images{seen}. Expected are class folders with images in them, such as "
        f"{path / 'cats' / '1.jpg'}; known suffixes: {' '.join(sorted(SUFFIXES))}."
    )


def _notices(path: Path, label_names: tuple[str, ...], loose: int, others: Counter[str]) -> Iterator[str]:
    if loose:
        yield f"{loose:,} images lie directly in {path}, in no class folder: left out."
    if others:
        yield f"{others.total():,} files in {path} are no images ({_most_common(others)}): left out."
    if {name.lower() for name in label_names} <= _SPLIT_NAMES:
        yield (
            f"The classes are named {', '.join(label_names)}, which looks like a split of a data set: "
            f"did you mean {path / label_names[0]}?"
        )


def _most_common(others: Counter[str]) -> str:
    return ", ".join(f"{count:,} {suffix}" for suffix, count in others.most_common(3))


def balanced_subset(listing: Listing, limit: int) -> Listing:
    """At most ``limit`` images, as evenly from all classes as they allow; the same ones each time.

    Which images of a class are taken depends on their names alone, so that new files displace few of the others.

    Raises:
        DataError: fewer images than classes were asked for.
    """
    if limit < len(listing.label_names):
        raise DataError(
            f"A limit of {limit:,} images is less than the {len(listing.label_names):,} classes. "
            f"Raise the limit, so that every class has an image."
        )
    ranked = sorted(listing.entries, key=lambda entry: hashlib.sha256(_bytes(entry.name)).digest())
    seen: Counter[int] = Counter()
    turns = []
    for entry in ranked:
        seen[entry.label] += 1
        turns.append((seen[entry.label], entry.label, entry))
    chosen = sorted(entry for _, _, entry in sorted(turns)[:limit])
    chosen.sort(key=lambda entry: (entry.label, entry.name))
    return listing._replace(entries=tuple(chosen))


def digest(settings: str, entries: Iterable[Entry]) -> str:
    """32 hexadecimal digits that change with the settings and with any name, class, size or stamp."""
    state = hashlib.sha256(settings.encode())
    for entry in entries:
        state.update(_bytes(f"\n{entry.name}\0{entry.label}\0{entry.size}\0{entry.stamp}"))
    return state.hexdigest()[:32]


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")  # names on disk need not be valid Unicode


def safe_name(name: str) -> str:
    """``name`` as a folder name for any system."""
    return re.sub(r"[^\w.-]+", "_", name).strip("._") or "images"
