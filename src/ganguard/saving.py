"""Writing a run's checkpoints: a failing save never ends a healthy run, and is never hidden."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ganguard import state
from ganguard.errors import GanguardError, SaveFailed
from ganguard.protection.signals import StopRequests
from ganguard.reports.console import duration, size
from ganguard.store import aliases, commit, names, removal
from ganguard.store.catalog import Entry
from ganguard.store.envelope import HashingFile
from ganguard.store.lock import Lock
from ganguard.store.retention import Policy
from ganguard.store.summary import Summary

_RETRY_S = 30.0
_OVERHEAD = 64 * 1024  # of the zip format, random states, history


@dataclass
class Saver:
    """Writes, keeps the alias on the newest, removes what retention lets go, and remembers how it went."""

    folder: Path
    lock: Lock
    policy: Policy
    stop: StopRequests
    say: Callable[[str], None]
    writer: commit.Writer = commit.commit
    newest: Entry | None = None
    failing: SaveFailed | None = None
    count: int = 0
    seconds: float = 0.0
    bytes: int = 0
    saved_at: float = field(default_factory=time.monotonic)
    _retry_at: float = 0.0

    def save(self, summary: Summary, payload: dict[str, Any]) -> Entry | None:
        """Write one checkpoint and tell of it; None where that failed, which is told too."""
        began = time.monotonic()
        expected = state.tensor_bytes(payload) + _OVERHEAD
        progress = _Progress(summary.name, expected)

        def dump(file: HashingFile) -> None:
            progress.file = file
            torch.save(payload, file)  # type: ignore[arg-type]  # anything with write() serves

        part = commit.Part(summary=summary, dump=dump, expected_bytes=expected)
        try:
            with self.stop.writing(progress):
                self._ready()
                self.newest = self.writer(self.folder, [part])
                self._succeeded(self.newest, time.monotonic() - began)
                self._tidy(self.newest)
        except SaveFailed as error:
            self._failed(error)
            return None
        except (GanguardError, OSError, RuntimeError, MemoryError, ValueError) as error:
            self._failed(SaveFailed(str(error), needed=expected))
            return None
        finally:
            self.seconds += time.monotonic() - began
        return self.newest

    @property
    def due_again(self) -> bool:
        """Whether a save that failed should be tried once more now."""
        return self.failing is not None and time.monotonic() >= self._retry_at

    def _ready(self) -> None:
        if not self.folder.is_dir():
            self.say(f"{self.folder} has vanished, with the checkpoints in it; it is made anew.")
            self.folder.mkdir(parents=True)
        self.lock.reassert()

    def _succeeded(self, entry: Entry, seconds: float) -> None:
        again = "Saving works again: " if self.failing else ""
        self.failing = None
        self.count += 1
        self.bytes += entry.size
        self.saved_at = time.monotonic()
        self.say(f"{again}saved {entry.path} ({size(entry.size)} in {duration_fine(seconds)})")

    def _tidy(self, entry: Entry) -> None:
        """What follows a save that stands: none of it can make the save fail."""
        if warning := aliases.point(self.folder / names.LATEST, entry.path):
            self.say(warning)
        try:
            removal.prune(self.folder, self.policy)
        except (GanguardError, OSError) as error:
            self.say(f"Old checkpoints were not cleaned up: {error}")

    def _failed(self, error: SaveFailed) -> None:
        newest = f"the newest on disk is {self.newest.path.name}" if self.newest else "nothing is on disk yet"
        self.say(
            f"NOT SAVED in {self.folder}: {error}. Training goes on; {newest}, saved "
            f"{duration(time.monotonic() - self.saved_at)} ago. It tries again in {_RETRY_S:.0f} s."
        )
        self.failing = error
        self._retry_at = time.monotonic() + _RETRY_S


def duration_fine(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else duration(seconds)


class _Progress:
    """How far a write is, in words; read by another thread."""

    def __init__(self, name: str, expected: int) -> None:
        self._name = name
        self._expected = expected
        self.file: HashingFile | None = None

    def __call__(self) -> str:
        written = self.file.size if self.file else 0
        return f"{self._name}, {min(99, 100 * written // self._expected)} % of {size(self._expected)}"
