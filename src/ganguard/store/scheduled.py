"""Backups by the clock: a verified copy every so often, of which the newest few are kept, by their positions."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ganguard.errors import GanguardError, UsageError
from ganguard.store import names, removal
from ganguard.store.backup import back_up
from ganguard.store.catalog import Catalog, Entry, newest_first
from ganguard.store.durable import reason
from ganguard.store.removal import backups
from ganguard.store.shelf import Shelf

WORD = "scheduled"  # in the files' names: backups made by hand are never removed
_RETRY_S = 600.0
_UNITS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}


@dataclass(frozen=True, kw_only=True)
class BackupPlan:
    """When and where backups are made.

    Attributes:
        every_s: seconds between two.
        keep: how many of the newest stay.
        folder: another disk, best of all.
    """

    every_s: float
    keep: int
    folder: Path


def interval(text: str) -> float:
    """Seconds of ``30m``, ``12h``, ``1d`` or ``2w``.

    Raises:
        UsageError: it is none of these.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([mhdw])", text.strip().lower())
    if not found or not float(found[1]):
        raise UsageError(f"{text!r} is no interval. Give a number and m, h, d or w: 30m, 12h, 1d.")
    return float(found[1]) * _UNITS[found[2]]


def plan_of(every: str | None, keep: int, folder: str | None, checkpoints: Path) -> BackupPlan | None:
    """The plan that settings ask for: None where ``every`` is; beside the ``checkpoints`` where no folder is named.

    Raises:
        UsageError: ``every`` is no interval.
    """
    if every is None:
        return None
    return BackupPlan(every_s=interval(every), keep=keep, folder=Path(folder) if folder else backups(checkpoints))


class ScheduledBackups:
    """The backups of one run. One that fails is told and tried again later; it never fails the training."""

    def __init__(self, plan: BackupPlan, shelf: Shelf, run: str, say: Callable[[str], None]) -> None:
        self.plan = plan
        self._shelf = shelf
        self._run = run
        self._say = say
        self._due_at: float | None = None  # monotonic; None: not looked for yet

    @property
    def due(self) -> bool:
        """Whether one is to be made of the next checkpoint."""
        if self._due_at is None:
            try:
                self._due_at = time.monotonic() + self._left_s()
            except (OSError, GanguardError):  # making one will tell what is wrong there
                self._due_at = time.monotonic()
        return time.monotonic() >= self._due_at

    def make(self, entry: Entry) -> bool:
        """Copy a checkpoint, and remove what is too many; returns whether there is one more."""
        try:
            copy = back_up(entry.path, self.plan.folder, word=WORD)[-1]
        except (OSError, GanguardError) as error:
            self._say(f"No backup in {self.plan.folder}: {reason(error)}. It is tried again in 10 min.")
            self._due_at = time.monotonic() + _RETRY_S
            return False
        self._due_at = time.monotonic() + self.plan.every_s
        self._say(f"Backed up and verified: {copy}")
        try:
            self._let_go(copy)
        except (OSError, GanguardError) as error:
            self._say(f"Older backups in {self.plan.folder} were not removed: {reason(error)}.")
        return True

    def _left_s(self) -> float:
        """Seconds until the next is due; 0 where nothing tells the age of the newest, or the clock was put back."""
        made = self._made(Catalog.all_in(self.plan.folder))
        age = made[0].summary.age_s if made and made[0].summary else None
        return 0.0 if age is None else self.plan.every_s - age

    def _made(self, there: Catalog) -> list[Entry]:
        """The heads of this run's scheduled backups, by position, the newest first."""
        heads = (e for e in there.heads if f"_{WORD}_" in e.path.name and e.summary and e.summary.run == self._run)
        return newest_first(heads)

    def _let_go(self, made: Path) -> None:
        """``made`` was verified a moment ago; it stays wherever its position is among the others."""
        with removal.removing_backups(self._shelf, self.plan.folder):
            there = Catalog.all_in(self.plan.folder)
            going = [e for e in self._made(there)[self.plan.keep :] if e.path != made]
            staying = [e for e in there.heads if e not in going]
            stuck: dict[Path, OSError] = {}  # held open by another program, say: the others go
            removal.remove_all(there, going[::-1], staying, stays=stuck.__setitem__, tag=names.BACKUP_TAG)
        for error in stuck.values():
            raise error
