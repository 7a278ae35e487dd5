"""Verified copies of checkpoints."""

from __future__ import annotations

import datetime
from pathlib import Path

from ganguard.errors import DamagedCheckpoint, SaveFailed, UsageError
from ganguard.store import catalog, durable, envelope, names
from ganguard.store.catalog import Catalog, Entry
from ganguard.store.durable import why
from ganguard.store.envelope import State
from ganguard.store.lock import BACKUP, Lock

_WAIT_S = 600.0


def back_up(file: Path, target: Path, *, word: str = "backup") -> list[Path]:
    """Copy a checkpoint, with its companions, into ``target`` and verify the copy; never over another file.

    Args:
        word: stands in the copies' names, before the time.

    Returns:
        The copies, the head last.

    Raises:
        UsageError: there is no such checkpoint.
        DamagedCheckpoint: the checkpoint itself is damaged; nothing was copied.
        SaveFailed: the copy could not be written, or did not come back as written.
        FolderInUse: another backup takes longer than ten minutes.
    """
    if not file.exists():
        raise UsageError(f"There is no file {file}. List the checkpoints with --list.")
    entry = _whole_of(catalog.read(file))
    if entry.state is not State.OLDER:
        envelope.verify(entry.path)
    companions = _companions_of(entry)
    now = datetime.datetime.now()
    needed = entry.size + sum(c.size for c in companions)
    try:
        durable.make_folder(target)
        with Lock(target, BACKUP, wait_s=_WAIT_S):
            durable.clear_temporaries(target)  # of a backup that was interrupted
            if (free := durable.free_bytes(target)) < needed:
                raise SaveFailed(
                    f"{needed / 1e6:.1f} MB are needed in {target} and {free / 1e6:.1f} MB are free",
                    needed=needed,
                )
            named = [names.backup(part.path, now, word) for part in [*companions, entry]]
            return _copy_all([*companions, entry], names.free_together(target, named))
    except OSError as error:
        raise SaveFailed(f"The backup failed: {why(error)}", needed=needed) from error


def _whole_of(entry: Entry) -> Entry:
    """The head of the checkpoint that a file belongs to."""
    head = Catalog.beside(entry.path).head_of(entry)
    if head.state is State.WHOLE and not head.is_head:
        raise UsageError(f"{entry.path.name} is a second file whose first is not there: no checkpoint to back up.")
    return head


def _copy_all(entries: list[Entry], paths: list[Path]) -> list[Path]:
    copies: list[Path] = []
    try:
        for entry, path in zip(entries, paths, strict=True):
            copies.append(_copy(entry, path))
    except BaseException:
        for path in copies:  # half a pair is no backup
            durable.remove(path)
        raise
    return copies


def _companions_of(entry: Entry) -> list[Entry]:
    if entry.summary is None or not entry.summary.companions:
        return []
    there = Catalog.beside(entry.path)
    if lacking := there.lacking(entry):
        raise UsageError(f"{entry.path.name} lacks its second file {lacking[0]}. Put the two side by side first.")
    companions = there.companions(entry)
    for companion in companions:
        envelope.verify(companion.path)
    return companions


def _copy(entry: Entry, path: Path) -> Path:
    temporary = durable.temporary_name(path)
    try:
        durable.copy(entry.path, temporary)
        with temporary.open("rb+") as file:
            durable.sync_file(file.fileno())
        if not _came_back(temporary, entry):
            raise SaveFailed(
                f"The copy of {entry.path.name} did not come back as written; check the disk of {path.parent}"
            )
        durable.protect(temporary)
        durable.replace(temporary, path)
        durable.sync_folder(path.parent)
    finally:
        if temporary.exists():
            durable.remove(temporary)
    return path


def _came_back(copy: Path, entry: Entry) -> bool:
    """Whether a copy is good by its own digest: an alias may have moved on since ``entry`` was read."""
    if entry.state is State.OLDER:
        return envelope.file_digest(copy) == envelope.file_digest(entry.path)
    try:
        envelope.verify(copy)
    except DamagedCheckpoint:
        return False
    return True
