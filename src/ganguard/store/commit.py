"""A new checkpoint: whole and durable under its name, or not there at all.

Temporary name in the same folder, write, fsync, rename, fsync the folder. Of a checkpoint of two files both are written
before either gets its name. The companion gets it first and the head, which holds the companion's digest, last: the
checkpoint exists with its head, and what follows can no longer fail it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from ganguard.errors import SaveFailed
from ganguard.store import catalog, durable, envelope, names
from ganguard.store.catalog import Entry
from ganguard.store.durable import why
from ganguard.store.envelope import State
from ganguard.store.shelf import Shelf, at
from ganguard.store.summary import Companion, Summary

Dump = Callable[[envelope.HashingFile], None]
_MARGIN = 1 << 20  # directory blocks, the summary, rounding


@dataclass(frozen=True, kw_only=True)
class Part:
    """One file to be written: its summary, whose ``name`` is the name wanted, and what writes its bytes."""

    summary: Summary
    dump: Dump
    expected_bytes: int


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint that was written. Its sizes are known from that: nothing has to be looked at again."""

    files: tuple[Entry, ...]  # the head last
    unsynced: str = ""  # why its name is not on the medium yet, where that is so; its bytes are

    @property
    def head(self) -> Entry:
        return self.files[-1]

    @property
    def paths(self) -> list[Path]:
        return [entry.path for entry in self.files]

    @property
    def bytes(self) -> int:
        return sum(entry.size for entry in self.files)


class Writer(Protocol):
    """Who writes: this process now; a helper process may take its place."""

    def __call__(self, where: Path | Shelf, parts: Sequence[Part]) -> Checkpoint:
        """Write ``parts``, the head last; returns them as they are on disk. Raises SaveFailed."""


def commit(where: Path | Shelf, parts: Sequence[Part]) -> Checkpoint:
    """Write a checkpoint of one file, or of companions and their head (the last).

    Raises:
        SaveFailed: nothing was changed; the message says why and how many bytes are needed. Once the head has its name
            nothing is raised any more.
    """
    shelf = at(where)
    folder = shelf.home(parts[-1].summary.kind)
    needed = sum(part.expected_bytes for part in parts) + _MARGIN
    waiting: list[Path] = []
    try:
        durable.make_folder(folder)
        free = durable.free_bytes(folder)
        if free < needed:
            raise SaveFailed(f"{needed / 1e6:.1f} MB are needed and {free / 1e6:.1f} MB are free", needed=needed)
        paths = names.free_together(folder, [part.summary.name for part in parts])
        waiting = [durable.temporary_name(path, shelf.tag) for path in paths]
        files = _write_all(parts, paths, waiting)
        give_names(waiting, paths)
    except BaseException as error:
        drop(waiting)
        if isinstance(error, OSError):
            raise SaveFailed(why(error), needed=needed) from error
        raise
    return Checkpoint(files=files, unsynced=synced(folder))


def synced(folder: Path) -> str:
    """Flush a folder's names; returns why that failed, empty where it did not."""
    try:
        durable.sync_folder(folder)
    except OSError as error:
        return why(error)
    return ""


def _write_all(parts: Sequence[Part], paths: Sequence[Path], waiting: Sequence[Path]) -> tuple[Entry, ...]:
    """Write and flush every file under its temporary name: whoever finds a companion finds its head there, or named."""
    written: list[Entry] = []
    for part, path, temporary in zip(parts, paths, waiting, strict=True):
        companions = tuple(Companion(name=entry.path.name, digest=entry.digest) for entry in written)
        summary = replace(part.summary, name=path.name, companions=companions)
        written.append(replace(_write(temporary, summary, part.dump), path=path))
    return tuple(written)


def _write(temporary: Path, summary: Summary, dump: Dump) -> Entry:
    with temporary.open("xb", buffering=0) as file:
        hashed = envelope.HashingFile(file)
        _fill(hashed, dump)
        envelope.seal(file, hashed, summary.to_json())
        durable.sync_file(file.fileno())
    entry = catalog.read(temporary)
    if entry.state is not State.WHOLE:
        raise SaveFailed(f"what was written of {summary.name} did not come back as a whole checkpoint")
    durable.protect(temporary)
    return entry


def _fill(hashed: envelope.HashingFile, dump: Dump) -> None:
    try:
        dump(hashed)
    except Exception as error:
        if hashed.error is not None:
            raise hashed.error from error
        raise
    if hashed.error is not None:  # the writer went on as if nothing had been
        raise hashed.error


def give_names(waiting: Sequence[Path], paths: Sequence[Path]) -> None:
    """Rename files that are on the medium, the head last. Raises OSError: the head has no name, nor have the others."""
    *companions, head = paths
    try:
        for temporary, path in zip(waiting, companions, strict=False):
            durable.replace(temporary, path)
        if companions:
            durable.sync_folder(head.parent)
        _rename(waiting[-1], head)
    except BaseException:
        if not _may_stand(head):  # companions without their head are only bytes that the next try would miss
            drop(companions)
        raise


def drop(paths: Sequence[Path]) -> None:
    """Remove what is given up; what cannot be removed stays."""
    for path in paths:
        with contextlib.suppress(OSError):
            durable.remove(path)


def _rename(temporary: Path, path: Path) -> None:
    """Over a network the answer may be an error although it is done."""
    try:
        durable.replace(temporary, path)
    except OSError:
        if temporary.exists() or not path.exists():
            raise


def _may_stand(path: Path) -> bool:
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return True
