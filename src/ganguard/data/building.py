"""Caches made: every image decoded once, for one size or for several at the same time.

A cache is written into a folder of another name, made durable and renamed, so that it is whole or not there. One
process builds, others wait for it and use its work. What a killed build left is removed at the next start.

A set that is too large for a cache is decoded once all the same, when it is first opened: only that finds the damaged
images, and a data set must know its length before training. What was found is remembered, so that later starts
don't wait. The other way, putting another image in place of a damaged one when it is met, would start sooner, but
show some images twice as often without anybody being told at the start.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from ganguard.data.cache import (
    IMAGES,
    META,
    Checked,
    Damaged,
    Request,
    bytes_text,
    find_cache,
    meta_text,
    npy_header,
    read_checked,
    refusing,
)
from ganguard.data.decode import DamagedImage, Look, decode_and_look
from ganguard.data.listing import counted
from ganguard.data.pixels import Array, retrying
from ganguard.data.progress import Progress
from ganguard.data.reduction import box_means
from ganguard.data.remarks import summed_up
from ganguard.data.sources import Entry
from ganguard.errors import DataError, FolderInUse
from ganguard.store import durable
from ganguard.store.lock import Lock

_BUILDING = ".building-"
_CHUNK_BYTES = 32_000_000
_CHUNK_IMAGES = 256
_SPARE_BYTES = 1_000_000
_ABANDONED_AFTER_S = 24 * 3600
_POLL_S = 0.2

Say = Callable[[str], None]


def build_caches(cache_dir: Path, requests: Sequence[Request], say: Say) -> None:
    """Build the cache of each request below ``cache_dir`` where there is none, or only a damaged one.

    Args:
        cache_dir: made where it isn't there.
        requests: the same images in different sizes, from the largest down; those to build are built in one pass.
        say: told what happens.

    Raises:
        DataError: too little space, a folder that can't be written, an image that can't be read, none readable.
    """
    with refusing(cache_dir), ExitStack() as building:
        cache_dir.mkdir(parents=True, exist_ok=True)
        _clear_abandoned(cache_dir)
        # The order of locks is the same in every process, so that no two wait for each other.
        for request in requests:
            if find_cache(cache_dir, request) is None:
                building.enter_context(_one_builder(cache_dir, f"{request.folder_name}.lock", say))
        # Another process may have built them while this one waited.
        missing = [request for request in requests if find_cache(cache_dir, request) is None]
        if missing:
            _build(cache_dir, missing, say)


def check_images(cache_dir: Path, request: Request, say: Say) -> Checked:
    """Decode every image once, keeping nothing but what that showed, and remember it.

    Raises:
        DataError: as for ``build_caches``.
    """
    remembered = record_of(cache_dir, request)
    try:
        return read_checked(remembered, request)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    skipped, looks = [], []
    for entry, result in _decode_all([request], "checking images", say):
        if isinstance(result, DamagedImage):
            skipped.append(Damaged(entry.name, str(result)))
        else:
            looks.append(result.look)
    checked = Checked(tuple(skipped), summed_up(looks))
    _check_some_left(request, checked)
    with refusing(cache_dir):
        cache_dir.mkdir(parents=True, exist_ok=True)
        with durable.written_atomically(remembered, "data") as file:
            file.write(meta_text(request, checked))
    return checked


def record_of(cache_dir: Path, request: Request) -> Path:
    """The file that remembers what checking the images of a set without a cache showed."""
    return cache_dir / f"{request.folder_name}.checked.json"


def _build(cache_dir: Path, requests: Sequence[Request], say: Say) -> None:
    folders = [cache_dir / request.folder_name for request in requests]
    for folder in folders:
        if folder.exists():
            say(f"The cache {folder} is not whole; building it again.")
            _discard(folder)
    count = len(requests[0].entries)
    needed, free = sum(request.file_bytes(count) for request in requests), durable.free_bytes(cache_dir)
    _check_space(cache_dir, needed + _SPARE_BYTES, free)
    into = str(folders[0]) + (f" and {len(folders) - 1:,} of smaller sizes" if len(folders) > 1 else "")
    say(f"Decoding {counted(count)} once into {into}: {bytes_text(needed)}, {bytes_text(free)} free.")
    works = [folder.with_name(f"{folder.name}{_BUILDING}{secrets.token_hex(4)}") for folder in folders]
    try:
        for work in works:
            work.mkdir()
        checked = _write_images([work / IMAGES for work in works], requests, say)
        for request, work, folder in zip(requests, works, folders, strict=True):
            with durable.written_atomically(work / META, "data") as file:
                file.write(meta_text(request, checked))
            if find_cache(cache_dir, request) is None:  # it can be there where the file system has no locks
                durable.replace(work, folder)
        durable.sync_folder(cache_dir)
    finally:
        for work in works:
            shutil.rmtree(work, ignore_errors=True)


def _write_images(paths: Sequence[Path], requests: Sequence[Request], say: Say) -> Checked:
    """Write the arrays image by image: on a full disk this is an error, where a mapped file would be a crash."""
    skipped: list[Damaged] = []
    looks: list[Look] = []
    with ExitStack() as opened:
        files = [opened.enter_context(path.open("xb")) for path in paths]
        for file, request in zip(files, requests, strict=True):
            file.write(npy_header(request, len(request.entries)))
        for entry, result in _decode_all(requests, "decoding images", say):
            if isinstance(result, DamagedImage):
                skipped.append(Damaged(entry.name, str(result)))
                continue
            looks.append(result.look)
            for file, pixels in zip(files, result.pixels, strict=True):
                file.write(pixels.data)
        checked = Checked(tuple(skipped), summed_up(looks))
        _check_some_left(requests[0], checked)
        for file, request in zip(files, requests, strict=True):
            file.seek(0)
            file.write(npy_header(request, len(looks)))
            file.flush()
            durable.sync_file(file.fileno())
    return checked


class _Decoded(NamedTuple):
    """An image in several sizes, and what its file was like."""

    pixels: list[Array]
    look: Look


def _decode_all(requests: Sequence[Request], what: str, say: Say) -> Iterator[tuple[Entry, _Decoded | DamagedImage]]:
    """Every image in order, in the sizes of all requests; by a few threads (Pillow works outside Python's lock)."""
    first, sizes = requests[0], [request.image_size for request in requests]

    def decoded(name: str) -> _Decoded:
        content = first.source.read(name)
        pixels, look = decode_and_look(content, first.decoded_at, first.channels, first.decoding)
        return _Decoded(box_means(pixels, sizes), look)

    def result(entry: Entry) -> _Decoded | DamagedImage:
        try:
            return retrying(first.source, entry.name, decoded)
        except DamagedImage as error:
            return error

    at_once = max(1, min(_CHUNK_IMAGES, _CHUNK_BYTES // (first.channels * first.decoded_at**2)))
    with Progress(len(first.entries), what, say) as progress, ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, len(first.entries), at_once):
            chunk = first.entries[start : start + at_once]
            for pair in zip(chunk, pool.map(result, chunk), strict=True):
                yield pair
                progress.advance()


def _check_some_left(request: Request, checked: Checked) -> None:
    skipped = checked.skipped
    if len(skipped) == len(request.entries):
        raise DataError(
            f"None of the {counted(len(skipped))} in {request.source.path} can be decoded; the first is "
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
