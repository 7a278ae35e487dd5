"""What files are called. Names are for people: nothing is decided by them where a file carries a summary."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from pathlib import Path

SUFFIX = ".pth"
TITLE = "checkpoint"
LATEST = "latest_checkpoint.pth"
SET_ASIDE = "set_aside"
BACKUPS = "checkpoint_backups"
BACKUP_TAG = "backup"  # of temporary files in a folder of backups, which may be that of a training too
_OURS = re.compile(r"(checkpoint_(epoch_\d+(_batch_\d+)?|step_\d+)|EMERGENCY_.+)(_\d+)?\.pth")


def epoch_end(epoch: int, title: str = TITLE) -> str:
    """``epoch`` counts from 1; ``title`` is what the name begins with."""
    return f"{title}_epoch_{epoch:03d}{SUFFIX}"


def within_epoch(epoch: int, batch: int, title: str = TITLE) -> str:
    return f"{title}_epoch_{epoch:03d}_batch_{batch:05d}{SUFFIX}"


def at_step(step: int, title: str = TITLE) -> str:
    return f"{title}_step_{step:08d}{SUFFIX}"


def emergency(now: datetime.datetime, title: str = TITLE, *, of: str = "") -> str:
    """``of`` tells whose it is, where several runs share a folder."""
    return f"EMERGENCY_{title}_{stamp(now)}{f'_{of}' if of else ''}{SUFFIX}"


def backup(path: Path, now: datetime.datetime, word: str = "backup") -> str:
    return f"{path.stem}_{word}_{stamp(now)}{SUFFIX}"


def stamp(now: datetime.datetime) -> str:
    return now.strftime("%Y%m%d_%H%M%S")


def is_versioned(name: str) -> bool:
    """Whether ganguard gives such names: used for files that have lost their summary."""
    return bool(_OURS.fullmatch(name))


def is_plain(name: str) -> bool:
    """Whether this is a bare file name: what a checkpoint says of itself must not lead out of its folder."""
    return name.endswith(SUFFIX) and stays_inside(name)


def stays_inside(name: str) -> bool:
    """Whether a folder or file that is called so lies where it is put: a run's id becomes part of such names."""
    return not name.startswith(".") and not set(name) & set("/\\:\0")


def free(folder: Path, name: str) -> Path:
    """``name`` in ``folder``, with a suffix where that exists: nothing is ever written over."""
    return free_together(folder, [name])[0]


def free_together(folder: Path, names: Sequence[str]) -> list[Path]:
    """``names`` in ``folder``, all with the same suffix where one of them exists."""
    paths = [folder / name for name in names]
    count = 2
    while any(path.exists() or path.is_symlink() for path in paths):
        paths = [folder / f"{Path(name).stem}_{count}{Path(name).suffix}" for name in names]
        count += 1
    return paths
