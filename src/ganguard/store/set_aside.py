"""Moving files out of the way without destroying them: ``set_aside/<date>_<time>_<reason>/``."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

from ganguard.store import durable, names


def new_folder(folder: Path, reason: str) -> str:
    """A name below ``folder`` for what is set aside now; made only when something is moved."""
    stamp = names.stamp(datetime.datetime.now())
    return str(names.free(folder / names.SET_ASIDE, f"{stamp}_{reason}").relative_to(folder).as_posix())


def move(folder: Path, files: Sequence[str], into: str) -> list[str]:
    """Move the named files of ``folder`` to ``folder/into``; those that are gone already are skipped.

    Returns the names that were moved. Safe to repeat after a crash halfway.
    """
    there = [name for name in files if (folder / name).exists()]
    if not there:
        return []
    target = folder / into
    target.mkdir(parents=True, exist_ok=True)
    for name in there:
        durable.replace(folder / name, names.free(target, name))
    durable.sync_folder(target)
    durable.sync_folder(target.parent)
    durable.sync_folder(folder)
    return there
