"""All images of a set, decoded once into an array on disk.

A cache is a folder ``<set>-<size>px-<rgb or gray>-<key>`` that holds ``images.npy``, uint8 of shape (N, C, H, W), and
``cache.json``: its key, N, and the names of damaged images with the reason. The key is a digest of the names, sizes
and times of all images, the settings and the decoder's version; labels follow from the listing.

It is written into a folder of another name, made durable and renamed, so that a cache is whole or not there. One
process builds, others wait for it and use its work. What a killed build left is removed at the next start. A cache
that a change of the images superseded is named and never removed: another training may be reading it.

A set that is too large for a cache is decoded once all the same, when it is first opened: only that finds the damaged
images, and a data set must know its length before training. What was found is remembered, so that later starts
don't wait. The other way, putting another image in place of a damaged one when it is met, would start sooner, but
show some images twice as often without anybody being told at the start.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ganguard.data.decode import DECODER_VERSION, DamagedImage
from ganguard.data.pixels import Array, load
from ganguard.data.progress import Progress
from ganguard.data.sources import Entry, Source, digest
from ganguard.errors import DataError, FolderInUse
from ganguard.store import durable
from ganguard.store.lock import Lock

IMAGES = "images.npy"
META = "cache.json"
_BUILDING = ".building-"
_CHUNK_BYTES = 32_000_000
_CHUNK_IMAGES = 256
_NPY_HEADER_BYTES = 128
_SPARE_BYTES = 1_000_000
_ABANDONED_AFTER_S = 24 * 3600
_POLL_S = 0.2

Say = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """Which images are wanted, and how. ``limit`` is how many were asked for, None for all."""

    source: Source
    entries: tuple[Entry, ...]
    image_size: int
    channels: int
    limit: int | None = None

    @cached_property
    def key(self) -> str:
        settings = f"decoder {DECODER_VERSION}, {self.image_size} px, {self.channels} channels"
        return digest(settings, self.entries)

    @property
    def origin(self) -> list[str]:
        """The same for two requests of which the newer supersedes the other."""
        return [str(self.source.path.resolve()), f"{self.image_size} px", f"{self.channels}", f"{self.limit}"]

    @property
    def folder_name(self) -> str:
        color = "rgb" if self.channels == 3 else "gray"
        return f"{self.source.name}-{self.image_size}px-{color}-{self.key[:16]}"

    def file_bytes(self, images: int) -> int:
        return _NPY_HEADER_BYTES + images * self.channels * self.image_size**2


@dataclass(frozen=True)
class Damaged:
    """An image that was left out, and why."""

    name: str
    reason: str


Skipped = tuple[Damaged, ...]


@dataclass(frozen=True)
class Cache:
    """A whole cache on disk."""

    folder: Path
    skipped: Skipped
    built_now: bool = False


def open_cache(cache_dir: Path, request: Request, say: Say) -> Cache:
    """The cache of ``request`` below ``cache_dir``; built first where there is none, or only a damaged one.

    Raises:
        DataError: too little space, a folder that can't be written, an image that can't be read, none readable.
    """
    with _refusing(cache_dir):
        cache_dir.mkdir(parents=True, exist_ok=True)
        _clear_abandoned(cache_dir)
        if (found := find_cache(cache_dir, request)) is not None:
            return found
        with _one_builder(cache_dir, f"{request.folder_name}.lock", say):
            # Another process may have built it while this one waited.
            return find_cache(cache_dir, request) or _build(cache_dir, request, say)


def find_cache(cache_dir: Path, request: Request) -> Cache | None:
    """The cache of ``request`` if it is there and whole: key, counts, header and size fit."""
    folder = cache_dir / request.folder_name
    try:
        skipped = _read_skipped(folder / META, request)
        with (folder / IMAGES).open("rb") as file:
            header = file.read(_NPY_HEADER_BYTES)
            size = file.seek(0, os.SEEK_END)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    kept = len(request.entries) - len(skipped)
    if header != _npy_header(request, kept) or size != request.file_bytes(kept):
        return None
    return Cache(folder, skipped)


def find_damaged(cache_dir: Path, request: Request, say: Say) -> Skipped:
    """Decode every image once, keeping nothing but the names of the damaged ones, and remember these.

    Raises:
        DataError: as for ``open_cache``.
    """
    remembered = cache_dir / f"{request.folder_name}.checked.json"
    try:
        return _read_skipped(remembered, request)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    skipped = tuple(
        Damaged(entry.name, str(result))
        for entry, result in _decode_all(request, "checking images", say)
        if isinstance(result, DamagedImage)
    )
    _check_some_left(request, skipped)
    with _refusing(cache_dir):
        cache_dir.mkdir(parents=True, exist_ok=True)
        with durable.written_atomically(remembered) as file:
            file.write(_meta(request, skipped))
    return skipped


def find_superseded(cache_dir: Path, request: Request) -> dict[Path, int]:
    """Caches of the same data and settings from before its files changed, and the bytes that each takes."""
    found = {}
    for path in sorted(cache_dir.glob(f"*/{META}")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # removed just now, or no cache's
            meta = json.loads(path.read_bytes())
            if meta["origin"] == request.origin and meta["key"] != request.key:
                found[path.parent] = sum(file.stat().st_size for file in path.parent.iterdir())
    return found


def _build(cache_dir: Path, request: Request, say: Say) -> Cache:
    folder = cache_dir / request.folder_name
    if folder.exists():
        say(f"The cache {folder} is not whole; building it again.")
        _discard(folder)
    needed, free = request.file_bytes(len(request.entries)), durable.free_bytes(cache_dir)
    _check_space(cache_dir, needed + _SPARE_BYTES, free)
    say(f"Decoding {len(request.entries):,} images once into {folder}: {bytes_text(needed)}, {bytes_text(free)} free.")
    work = cache_dir / f"{request.folder_name}{_BUILDING}{secrets.token_hex(4)}"
    try:
        work.mkdir()
        skipped = _write_images(work / IMAGES, request, say)
        with durable.written_atomically(work / META) as file:
            file.write(_meta(request, skipped))
        if find_cache(cache_dir, request) is None:  # it can be there where the file system has no locks
            durable.replace(work, folder)
            durable.sync_folder(cache_dir)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Cache(folder, skipped, built_now=True)


def _write_images(path: Path, request: Request, say: Say) -> Skipped:
    """Write the array image by image: on a full disk this is an error, where a mapped file would be a crash."""
    skipped: list[Damaged] = []
    with path.open("xb") as file:
        file.write(_npy_header(request, len(request.entries)))
        for entry, result in _decode_all(request, "decoding images", say):
            if isinstance(result, DamagedImage):
                skipped.append(Damaged(entry.name, str(result)))
            else:
                file.write(result.data)
        _check_some_left(request, tuple(skipped))
        file.seek(0)
        file.write(_npy_header(request, len(request.entries) - len(skipped)))
        file.flush()
        durable.sync_file(file.fileno())
    return tuple(skipped)


def _decode_all(request: Request, what: str, say: Say) -> Iterator[tuple[Entry, Array | DamagedImage]]:
    """Every image in order, decoded by a few threads (Pillow decodes outside Python's global lock)."""

    def result(entry: Entry) -> Array | DamagedImage:
        try:
            return load(request.source, entry.name, request.image_size, request.channels)
        except DamagedImage as error:
            return error

    at_once = max(1, min(_CHUNK_IMAGES, _CHUNK_BYTES // (request.channels * request.image_size**2)))
    with Progress(len(request.entries), what, say) as progress, ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, len(request.entries), at_once):
            chunk = request.entries[start : start + at_once]
            for pair in zip(chunk, pool.map(result, chunk), strict=True):
                yield pair
                progress.advance()


def _npy_header(request: Request, images: int) -> bytes:
    """Version 1.0 of numpy's format, of one length for any count, so that it can be written again at the end."""
    shape = (images, request.channels, request.image_size, request.image_size)
    text = str({"descr": "|u1", "fortran_order": False, "shape": shape})
    length = _NPY_HEADER_BYTES - 10
    return b"\x93NUMPY\x01\x00" + length.to_bytes(2, "little") + text.ljust(length - 1).encode() + b"\n"


def _meta(request: Request, skipped: Skipped) -> bytes:
    kept = len(request.entries) - len(skipped)
    named = [[image.name, image.reason] for image in skipped]
    meta = {"key": request.key, "origin": request.origin, "images": kept, "skipped": named}
    return json.dumps(meta, indent=1).encode()


def _read_skipped(path: Path, request: Request) -> Skipped:
    """The damaged images that ``path`` remembers; ``ValueError`` and the like where it isn't about ``request``."""
    meta = json.loads(path.read_bytes())
    skipped = tuple(Damaged(str(name), str(reason)) for name, reason in meta["skipped"])
    if meta["key"] != request.key or meta["images"] + len(skipped) != len(request.entries):
        raise ValueError(f"{path} belongs to other images")
    return skipped


def _check_some_left(request: Request, skipped: Skipped) -> None:
    if len(skipped) == len(request.entries):
        raise DataError(
            f"None of the {len(skipped):,} images in {request.source.path} can be decoded; the first is "
            f"{skipped[0].name} ({skipped[0].reason}). Open it in an image viewer to see what it is."
        )


def _check_space(cache_dir: Path, needed: int, free: int) -> None:
    if needed > free:
        raise DataError(
            f"The decoded images need {needed:,} bytes ({bytes_text(needed)}), and {cache_dir} has {free:,} bytes free "
            f"({bytes_text(free)}). Make room, put the cache on another drive, choose a smaller image size, or set "
            f"the cache limit to 0, which decodes while training."
        )


@contextmanager
def _refusing(cache_dir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"The cache {cache_dir} can't be written: {durable.why(error)}. Make room, or put it on another drive."
        ) from error


@contextmanager
def _one_builder(cache_dir: Path, lock_name: str, say: Say) -> Iterator[None]:
    """Hold the lock of one cache, waiting for another process that builds it. Without locks both build."""
    told = False
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(Lock(cache_dir, lock_name))
                break
            except FolderInUse:
                if not told:
                    say("Another process is decoding the same images; waiting for it. Ctrl+C leaves.")
                told = True
                time.sleep(_POLL_S)
        yield


def _clear_abandoned(cache_dir: Path) -> None:
    """Remove what killed builds left; a build that goes on holds the lock of its cache."""
    for work in cache_dir.glob(f"*{_BUILDING}*"):
        without_locks: list[str] = []
        try:
            with Lock(cache_dir, work.name.rpartition(_BUILDING)[0] + ".lock", warn=without_locks.append):
                if not without_locks or time.time() - work.stat().st_mtime > _ABANDONED_AFTER_S:
                    shutil.rmtree(work, ignore_errors=True)
        except (FolderInUse, OSError):
            continue


def _discard(folder: Path) -> None:
    """Rename, then remove: a removal that is cut off leaves a name that ``_clear_abandoned`` knows."""
    aside = folder.with_name(f"{folder.name}{_BUILDING}{secrets.token_hex(4)}")
    durable.replace(folder, aside)
    shutil.rmtree(aside, ignore_errors=True)


def bytes_text(count: int) -> str:
    """Bytes for people: ``5.1 MB``; decimal units, as disks are sold."""
    size = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
