"""A new checkpoint: whole and durable under its name, or not there at all.

Temporary name in the same folder, write, fsync, rename, fsync the folder. Of a checkpoint of two files the
companion goes first and the head, which holds the companion's digest, last: the checkpoint exists with its head.
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


class Writer(Protocol):
    """Who writes: this process now; a helper process may take its place."""

    def __call__(self, where: Path | Shelf, parts: Sequence[Part]) -> Entry:
        """Write ``parts``, the head last; returns the head as it is on disk. Raises SaveFailed."""


def commit(where: Path | Shelf, parts: Sequence[Part]) -> Entry:
    """Write a checkpoint of one file, or of companions and their head (the last).

    Raises:
        SaveFailed: nothing was changed; the message says why and how many bytes are needed.
    """
    shelf = at(where)
    folder = shelf.home(parts[-1].summary.kind)
    needed = sum(part.expected_bytes for part in parts) + _MARGIN
    written: list[Entry] = []
    try:
        durable.make_folder(folder)
        free = durable.free_bytes(folder)
        if free < needed:
            raise SaveFailed(f"{needed / 1e6:.1f} MB are needed and {free / 1e6:.1f} MB are free", needed=needed)
        paths = names.free_together(folder, [part.summary.name for part in parts])
        for part, path in zip(parts, paths, strict=True):
            companions = tuple(Companion(name=entry.path.name, digest=entry.digest) for entry in written)
            summary = replace(part.summary, name=path.name, companions=companions)
            written.append(_write(path, summary, part.dump, shelf.tag))
    except BaseException as error:
        # Companions without their head are no checkpoint, only bytes that the next try would miss.
        for entry in written:
            with contextlib.suppress(OSError):
                durable.remove(entry.path)
        if isinstance(error, OSError):
            raise SaveFailed(why(error), needed=needed) from error
        raise
    return written[-1]


def files_of(head: Entry) -> list[Path]:
    """The files of a checkpoint as it was committed, its head the last."""
    companions = head.summary.companions if head.summary else ()
    return [*(head.path.with_name(companion.name) for companion in companions), head.path]


def _write(path: Path, summary: Summary, dump: Dump, tag: str) -> Entry:
    temporary = durable.temporary_name(path, tag)
    try:
        with temporary.open("xb", buffering=0) as file:
            hashed = envelope.HashingFile(file)
            _fill(hashed, dump)
            envelope.seal(file, hashed, summary.to_json())
            durable.sync_file(file.fileno())
        entry = catalog.read(temporary)
        if entry.state is not State.WHOLE:
            raise SaveFailed(f"what was written of {path.name} did not come back as a whole checkpoint")
        durable.protect(temporary)
        durable.replace(temporary, path)
        durable.sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            durable.remove(temporary)
        raise
    return replace(entry, path=path)


def _fill(hashed: envelope.HashingFile, dump: Dump) -> None:
    try:
        dump(hashed)
    except Exception as error:
        if hashed.error is not None:
            raise hashed.error from error
        raise
    if hashed.error is not None:  # the writer went on as if nothing had been
        raise hashed.error
