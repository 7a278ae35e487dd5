"""Verified copies of checkpoints, of fixed names too, which may move on while they are copied.

A copy gets its name as a new checkpoint does, see ``commit``: all are whole first, and the head is named last.
"""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ganguard.errors import DamagedCheckpoint, SaveFailed, UsageError
from ganguard.store import catalog, commit, durable, envelope, names
from ganguard.store.catalog import Catalog, Entry
from ganguard.store.durable import why
from ganguard.store.envelope import State
from ganguard.store.lock import BACKUP, Lock
from ganguard.store.reading import open_regular

_WAIT_S = 600.0
_LOOKS = 20
_LOOK_PAUSE_S = 0.05


@dataclass(frozen=True, kw_only=True)
class _Source:
    """An open file, which stays what it is whatever becomes of its name."""

    entry: Entry
    file: BinaryIO


def back_up(file: Path, target: Path, *, word: str = "backup") -> list[Path]:
    """Copy a checkpoint, with its companions, into ``target`` and verify the copy; never over another file.

    Args:
        file: one of its files, or a fixed name of it; of a pair the copies are called after the files themselves.
        word: stands in the copies' names, before the time.

    Returns:
        The copies, the head last.

    Raises:
        UsageError: there is no such checkpoint.
        DamagedCheckpoint: the checkpoint itself is damaged; nothing was copied.
        SaveFailed: the copy could not be written, or did not come back as written.
        FolderInUse: another backup takes longer than ten minutes.
    """
    with contextlib.ExitStack() as opened:
        sources = _open(file, opened)
        needed = sum(source.entry.size for source in sources)
        try:
            for source in sources:
                if source.entry.state is not State.OLDER:
                    envelope.verify_open(source.file, source.entry.path)
            return _copy_together(sources, target, word, needed)
        except OSError as error:
            raise SaveFailed(f"The backup failed: {why(error)}", needed=needed) from error


def _open(file: Path, opened: contextlib.ExitStack) -> list[_Source]:
    """The files of a checkpoint, open, its head the last. What a training lets go meanwhile is looked for anew.

    Raises:
        UsageError: there is no such checkpoint.
        SaveFailed: it cannot be read.
    """
    for look in range(_LOOKS):
        try:
            return _opened_once(file, opened)
        except FileNotFoundError:
            time.sleep(_LOOK_PAUSE_S if look else 0)
        except OSError as error:
            raise SaveFailed(f"{file} cannot be read: {why(error)}") from error
    raise UsageError(f"There is no file {file}. List the checkpoints with --list.")


def _opened_once(file: Path, opened: contextlib.ExitStack) -> list[_Source]:
    typed = _source(file, opened)
    if typed.entry.is_head and typed.entry.summary and not typed.entry.summary.companions:
        return [typed]
    there = Catalog.beside(file)
    head = there.by_its_own_name(there.head_of(typed.entry))
    if there.is_in_between(head):
        raise UsageError(f"{file.name} is of a checkpoint that is being written or removed. Wait a moment.")
    if head.state is State.WHOLE and not head.is_head:
        raise UsageError(f"{file.name} is a second file whose first is not there: no checkpoint to back up.")
    if lacking := there.lacking(head):
        _same(_source(file, opened), typed.entry)
        raise UsageError(f"{head.path.name} lacks its second file {lacking[0]}. Put the two side by side first.")
    if head.summary is None:
        return [typed]
    return [_same(_source(entry.path, opened), entry) for entry in (*there.companions(head), head)]


def _source(path: Path, opened: contextlib.ExitStack) -> _Source:
    file = opened.enter_context(open_regular(path))
    return _Source(entry=catalog.read_open(file, path), file=file)


def _same(source: _Source, wanted: Entry) -> _Source:
    """Raises FileNotFoundError where the name has become another file's since ``wanted`` was read."""
    if source.entry.digest != wanted.digest:
        raise FileNotFoundError(source.entry.path)
    return source


def _copy_together(sources: Sequence[_Source], target: Path, word: str, needed: int) -> list[Path]:
    now = datetime.datetime.now()
    durable.make_folder(target)
    with Lock(target, BACKUP, wait_s=_WAIT_S):
        _clear_what_was_interrupted(target)
        if (free := durable.free_bytes(target)) < needed:
            raise SaveFailed(
                f"{needed / 1e6:.1f} MB are needed in {target} and {free / 1e6:.1f} MB are free",
                needed=needed,
            )
        named = [names.backup(source.entry.path, now, word) for source in sources]
        return _copy_all(sources, names.free_together(target, named))


def _clear_what_was_interrupted(target: Path) -> None:
    """What a backup left that ended between its names or before them; to be called by who holds the lock."""
    if left := durable.temporaries(target, names.BACKUP_TAG):
        there = Catalog.all_in(target)
        commit.drop([e.path for e in there.orphans if catalog.waits_for_its_first(e, names.BACKUP_TAG)] + left)


def _copy_all(sources: Sequence[_Source], paths: list[Path]) -> list[Path]:
    """All of them or, on errors, none: half a pair is no backup."""
    waiting = [durable.temporary_name(path, names.BACKUP_TAG) for path in paths]
    try:
        for source, temporary in zip(sources, waiting, strict=True):
            _copy(source, temporary)
        commit.give_names(waiting, paths)
        durable.sync_folder(paths[-1].parent)
    except BaseException:
        with contextlib.suppress(OSError):  # as it came: a second file is never seen without its first
            durable.replace(paths[-1], waiting[-1])
        commit.drop([*paths, *waiting])
        raise
    return paths


def _copy(source: _Source, temporary: Path) -> None:
    durable.copy_open(source.file, temporary)
    if not _came_back(temporary, source):
        raise SaveFailed(
            f"The copy of {source.entry.path.name} did not come back as written; check the disk of {temporary.parent}"
        )
    durable.protect(temporary)


def _came_back(copy: Path, source: _Source) -> bool:
    """Whether a copy holds the same bytes: by its own digest, where it has one."""
    if source.entry.state is State.OLDER:
        return envelope.file_digest(copy) == envelope.open_file_digest(source.file)
    try:
        return bool(envelope.verify(copy)["digest"] == source.entry.digest)
    except DamagedCheckpoint:
        return False
