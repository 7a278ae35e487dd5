"""What files are called. Names are for people: nothing is decided by them where a file carries a summary."""

from __future__ import annotations

import datetime
import re
from pathlib import Path

SUFFIX = ".pth"
LATEST = "latest_checkpoint.pth"
SET_ASIDE = "set_aside"
BACKUPS = "checkpoint_backups"
_OURS = re.compile(r"(checkpoint_(epoch_\d+(_batch_\d+)?|step_\d+)|EMERGENCY_.+)(_\d+)?\.pth")


def epoch_end(epoch: int) -> str:
    """``epoch`` counts from 1."""
    return f"checkpoint_epoch_{epoch:03d}{SUFFIX}"


def within_epoch(epoch: int, batch: int) -> str:
    return f"checkpoint_epoch_{epoch:03d}_batch_{batch:05d}{SUFFIX}"


def at_step(step: int) -> str:
    return f"checkpoint_step_{step:08d}{SUFFIX}"


def emergency(now: datetime.datetime) -> str:
    return f"EMERGENCY_checkpoint_{stamp(now)}{SUFFIX}"


def backup(path: Path, now: datetime.datetime) -> str:
    return f"{path.stem}_backup_{stamp(now)}{SUFFIX}"


def stamp(now: datetime.datetime) -> str:
    return now.strftime("%Y%m%d_%H%M%S")


def is_versioned(name: str) -> bool:
    """Whether ganguard gives such names: used for files that have lost their summary."""
    return bool(_OURS.fullmatch(name))


def is_plain(name: str) -> bool:
    """Whether this is a bare file name: what a checkpoint says of itself must not lead out of its folder."""
    return name.endswith(SUFFIX) and not name.startswith(".") and not set(name) & set("/\\:\0")


def free(folder: Path, name: str) -> Path:
    """``name`` in ``folder``, with a suffix where that exists: nothing is ever written over."""
    path = folder / name
    count = 2
    while path.exists() or path.is_symlink():
        path = folder / f"{Path(name).stem}_{count}{Path(name).suffix}"
        count += 1
    return path
