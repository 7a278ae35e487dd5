"""Backups by the clock: a verified copy every so often, of which the newest few are kept."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ganguard.errors import GanguardError, UsageError
from ganguard.store import catalog, durable
from ganguard.store.backup import back_up
from ganguard.store.catalog import Catalog, Entry
from ganguard.store.durable import why
from ganguard.store.removal import backups

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
    """The backups of one run. A backup that fails is told and tried again later; it never fails the training."""

    def __init__(self, plan: BackupPlan, run: str, say: Callable[[str], None]) -> None:
        self.plan = plan
        self._run = run
        self._say = say
        self._not_before = 0.0  # monotonic
        self._newest: float | None = None  # seconds since the epoch

    def saved(self, entry: Entry) -> list[Path]:
        """A checkpoint was saved: copy it if a backup is due. Returns the copies."""
        copies: list[Path] = []
        if time.monotonic() < self._not_before:
            return copies
        try:
            if self._due():
                copies = back_up(entry.path, self.plan.folder, word=WORD)
                self._newest = time.time()
                self._say(f"Backed up and verified: {copies[-1]}")
                self._let_go()
        except (OSError, GanguardError) as error:
            reason = why(error) if isinstance(error, OSError) else f"{error}".rstrip(".")
            self._say(f"No backup in {self.plan.folder}: {reason}. Training goes on, and it tries again in 10 min.")
            self._not_before = time.monotonic() + _RETRY_S
        return copies

    def _due(self) -> bool:
        if self._newest is None:
            made = self._made()
            self._newest = made[-1].modified if made else 0.0
        age = time.time() - self._newest
        return age >= self.plan.every_s or age < 0  # the clock was put back

    def _made(self) -> list[Entry]:
        """The heads of this run's scheduled backups, oldest first."""
        heads = (entry for entry in catalog.scan(self.plan.folder) if entry.is_head and f"_{WORD}_" in entry.path.name)
        return sorted((e for e in heads if e.summary and e.summary.run == self._run), key=lambda e: e.modified)

    def _let_go(self) -> None:
        """The newest one was verified a moment ago."""
        going, there = self._made()[: -self.plan.keep], Catalog.all_in(self.plan.folder)
        staying = {c.digest for e in there.entries if e not in going and e.summary for c in e.summary.companions}
        for entry in going:
            for file in [entry, *(c for c in there.companions(entry) if c.digest not in staying)]:
                durable.remove(file.path)
