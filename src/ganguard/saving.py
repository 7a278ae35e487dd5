"""Writing a run's checkpoints: a failing save never ends a healthy run, and is never hidden."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ganguard import state
from ganguard.errors import SaveFailed
from ganguard.protection.signals import StopRequests
from ganguard.reports.console import duration, size
from ganguard.store import aliases, commit, names, removal, runfile
from ganguard.store.catalog import Entry
from ganguard.store.durable import free_bytes, why
from ganguard.store.envelope import HashingFile
from ganguard.store.lock import Lock
from ganguard.store.retention import Policy
from ganguard.store.runfile import Run
from ganguard.store.summary import Summary

_RETRY_S = 30.0
_OVERHEAD = 64 * 1024  # of the zip format, random states, history


@dataclass
class Saver:
    """Writes, keeps the alias on the newest, removes what retention lets go, and remembers how it went."""

    folder: Path
    run: Run
    lock: Lock
    policy: Policy
    stop: StopRequests
    say: Callable[[str], None]
    writer: commit.Writer = commit.commit
    newest: Entry | None = None
    failing: SaveFailed | None = None
    seconds: float = 0.0  # that saving took
    saved_at: float | None = None  # monotonic; None: nothing of this run is on disk
    _retry_at: float = 0.0

    def save(self, make: Callable[[], tuple[Summary, dict[str, Any]]], *, after_failure: str = "") -> Entry | None:
        """Write the checkpoint that ``make`` gives and tell of it; None where that failed, which is told too.

        Args:
            after_failure: what to say after the reason; by default that training goes on.
        """
        began = time.monotonic()
        progress = _Progress()
        try:
            with self.stop.writing(progress):
                self._mend_folder()
                summary, payload = make()
                entry = self._write(summary, payload, progress)
                self._succeeded(entry, time.monotonic() - began)
                self._tidy(entry)
        except Exception as error:  # whatever it is (a part's own state_dict, say): the training is healthy
            self._failed(_as_failure(error, progress.expected), after_failure)
            return None
        finally:
            self.seconds += time.monotonic() - began
        return entry

    def _write(self, summary: Summary, payload: dict[str, Any], progress: _Progress) -> Entry:
        progress.name, progress.expected = summary.name, state.tensor_bytes(payload) + _OVERHEAD

        def dump(file: HashingFile) -> None:
            progress.file = file
            torch.save(payload, file)  # type: ignore[arg-type]  # anything with write() serves

        return self.writer(self.folder, [commit.Part(summary=summary, dump=dump, expected_bytes=progress.expected)])

    def tell_space(self, one: int) -> None:
        """Say what checkpoints of ``one`` bytes each will take, and what is free."""
        every, most = self.policy.keep_every, one * (self.policy.keep_latest + 3)
        self.say(
            f"Checkpoints in {self.folder}: about {size(one)} each, keeps up to {size(most)}"
            f"{f' and one more every {every} epochs' if every else ''}; {size(free_bytes(self.folder))} free."
        )

    @property
    def due_again(self) -> bool:
        """Whether a save that failed should be tried once more now."""
        return self.failing is not None and time.monotonic() >= self._retry_at

    def _mend_folder(self) -> None:
        gone = not (self.folder / runfile.NAME).exists()
        if gone:
            self.say(f"What was in {self.folder} has vanished, the older checkpoints too; saving there all the same.")
            self.folder.mkdir(parents=True, exist_ok=True)
        self.lock.reassert()
        if gone:
            runfile.write(self.folder, self.run)

    def _succeeded(self, entry: Entry, seconds: float) -> None:
        again = "Saving works again: " if self.failing else ""
        self.failing = None
        self.newest = entry
        self.saved_at = time.monotonic()
        self.say(f"{again}saved {entry.path} ({size(entry.size)} in {seconds:.2f} s)")

    def _tidy(self, entry: Entry) -> None:
        """What follows a save that stands: none of it can make the save fail."""
        try:
            if entry.summary is not None and entry.summary.finite:
                warning = aliases.point(self.folder / names.LATEST, entry.path)
                if warning:
                    self.say(warning)
            removal.prune(self.folder, self.policy)
        except Exception as error:  # the checkpoint itself is safe
            reason = why(error) if isinstance(error, OSError) else error
            self.say(f"Old checkpoints were not cleaned up: {reason}")

    def _failed(self, error: SaveFailed, after: str) -> None:
        on_disk = (
            f"The newest on disk is {self.newest.path.name}, saved {duration(time.monotonic() - self.saved_at)} ago."
            if self.newest and self.saved_at is not None
            else "Nothing is on disk yet."
        )
        after = after or f"Training goes on, and it tries again in {_RETRY_S:.0f} s."
        self.say(f"NOT SAVED in {self.folder}: {error}. {on_disk} {after}")
        self.failing = error
        self._retry_at = time.monotonic() + _RETRY_S


def _as_failure(error: Exception, expected: int) -> SaveFailed:
    if isinstance(error, SaveFailed):
        return error
    if isinstance(error, OSError):
        return SaveFailed(why(error), needed=expected)
    return SaveFailed(f"{error}".rstrip(".") or type(error).__name__, needed=expected)


class _Progress:
    """How far a write is, in words; read by another thread."""

    def __init__(self) -> None:
        self.name = ""
        self.expected = 0
        self.file: HashingFile | None = None

    def __call__(self) -> str:
        if not self.expected or self.file is None:
            return "the checkpoint is being put together"
        return f"{self.name}, {min(99, 100 * self.file.size // self.expected)} % of {size(self.expected)}"
