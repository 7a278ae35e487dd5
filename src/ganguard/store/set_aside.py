"""Moving files out of the way without destroying them: ``set_aside/<date>_<time>_<reason>/``."""

from __future__ import annotations

import datetime
import os
from collections.abc import Sequence
from pathlib import Path

from ganguard.store import durable, names


def new_folder(folder: Path, reason: str) -> str:
    """A name below ``folder`` for what is set aside now; made only when something is moved."""
    stamp = names.stamp(datetime.datetime.now())
    return str(names.free(folder / names.SET_ASIDE, f"{stamp}_{reason}").relative_to(folder).as_posix())


def move(folder: Path, files: Sequence[str], into: str) -> dict[str, Path]:
    """Move the named files of ``folder`` to ``folder/into``; those that are gone already are skipped.

    Returns where each of them lies now. Safe to repeat after a crash halfway.
    """
    there = [name for name in files if os.path.lexists(folder / name)]
    if not there:
        return {}
    target = folder / into
    durable.make_folder(target)
    moved = {}
    for name in there:
        path = names.free(target, Path(name).name)
        durable.replace(folder / name, path)
        moved[name] = path
    for place in {target, *((folder / name).parent for name in there)}:
        durable.sync_folder(place)
    return moved
