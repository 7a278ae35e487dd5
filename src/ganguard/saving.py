"""Writing a run's checkpoints: a failing save never ends a healthy run, and is never hidden."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ganguard import state
from ganguard.errors import SaveFailed
from ganguard.protection.signals import StopRequests
from ganguard.reports.console import counted, duration, size
from ganguard.savings import Savings
from ganguard.snapshot import File
from ganguard.store import aliases, commit, envelope, removal, runfile
from ganguard.store.catalog import Entry
from ganguard.store.durable import free_bytes, why
from ganguard.store.envelope import HashingFile
from ganguard.store.lock import Lock
from ganguard.store.retention import Policy
from ganguard.store.runfile import Run
from ganguard.store.scheduled import ScheduledBackups
from ganguard.store.shelf import Shelf
from ganguard.store.summary import Kind

_RETRY_S = 30.0
_OVERHEAD = 64 * 1024  # of the zip format, random states, history


@dataclass
class Saver:
    """Writes, keeps the alias on the newest, removes what retention lets go, and remembers how it went."""

    shelf: Shelf
    run: Run
    lock: Lock
    policy: Policy
    stop: StopRequests
    say: Callable[[str], None]
    writer: commit.Writer = commit.commit
    backups: ScheduledBackups | None = None
    newest: Entry | None = None
    failing: SaveFailed | None = None
    savings: Savings = field(default_factory=Savings)
    saved_at: float | None = None  # monotonic; None: nothing of this run is on disk
    _retry_at: float = 0.0

    def save(self, make: Callable[[], list[File]], *, after_failure: str = "") -> Entry | None:
        """Write the checkpoint that ``make`` gives and tell of it; None where that failed, which is told too.

        Args:
            after_failure: what to say after the reason; by default that training goes on.
        """
        began = time.monotonic()
        progress = _Progress()
        try:
            with self.stop.writing(progress):
                self._mend_folder()
                entry = self._write(make(), progress)
                files = commit.files_of(entry)
                self._succeeded(entry, files, time.monotonic() - began)
                self._tidy(entry, files)
        except Exception as error:  # whatever it is (a part's own state_dict, say): the training is healthy
            self._failed(_as_failure(error, progress.expected), after_failure)
            self.savings.did_not(time.monotonic() - began)
            return None
        assert entry.summary is not None  # it was written with one
        taken = sum(file.stat().st_size for file in files if file.exists())
        self.savings.saved(entry.summary.kind, taken, time.monotonic() - began)
        return entry

    def _write(self, contents: list[File], progress: _Progress) -> Entry:
        sizes = [state.tensor_bytes(payload) + _OVERHEAD for _, payload in contents]
        progress.name, progress.expected = contents[-1][0].name, sum(sizes)
        parts = [
            commit.Part(summary=summary, dump=progress.dumping(payload), expected_bytes=size)
            for (summary, payload), size in zip(contents, sizes, strict=True)
        ]
        entry = self.writer(self.shelf, parts)
        if contents[-1][0].kind is Kind.EMERGENCY:  # there may be no other chance
            for file in commit.files_of(entry):
                envelope.verify(file)
        return entry

    def tell_space(self, one: int) -> None:
        """Say what checkpoints of ``one`` bytes each will take, and what is free.

        Pairs grow, and a training that asks for milestones may keep many: there it tells how many stay beside those.
        """
        every, most = self.policy.keep_every, self.policy.keep_latest + 3
        of = f"of {self.shelf.pair.name} " if self.shelf.pair else ""
        more = f" and one more every {counted(every, 'epoch')}" if every else ""
        kept = f"{most} beside milestones" if self.shelf.pair else size(most * one)
        self.say(
            f"Checkpoints {of}in {self.shelf.folder}: about {size(one)} each, keeps up to {kept}{more}; "
            f"{size(free_bytes(self.shelf.folder))} free."
        )

    @property
    def due_again(self) -> bool:
        """Whether a save that failed should be tried once more now."""
        return self.failing is not None and time.monotonic() >= self._retry_at

    def _mend_folder(self) -> None:
        folder = self.shelf.folder
        gone = not self.shelf.run_file.exists()
        if gone:
            self.say(f"What was in {folder} has vanished, the older checkpoints too; saving there all the same.")
            folder.mkdir(parents=True, exist_ok=True)
        self.lock.reassert()
        if gone:
            runfile.write(self.shelf, self.run)

    def _succeeded(self, entry: Entry, files: list[Path], seconds: float) -> None:
        again = "Saving works again: " if self.failing else ""
        self.failing = None
        self.newest = entry
        self.saved_at = time.monotonic()
        taken = size(sum(file.stat().st_size for file in files))
        verified = ", verified" if entry.summary and entry.summary.kind is Kind.EMERGENCY else ""
        others = "".join(f" and {file.name}" for file in files[:-1])
        self.say(f"{again}saved {entry.path}{others} ({taken} in {seconds:.2f} s{verified})")

    def _tidy(self, entry: Entry, files: list[Path]) -> None:
        """What follows a save that stands: none of it can make the save fail."""
        try:
            if entry.summary is not None and entry.summary.finite:
                for warning in aliases.point_all(self.shelf, files):
                    self.say(warning)
            removal.prune(self.shelf, self.policy)
        except Exception as error:  # the checkpoint itself is safe
            reason = why(error) if isinstance(error, OSError) else error
            self.say(f"Old checkpoints were not cleaned up: {reason}")
        if self.backups and entry.summary and entry.summary.finite:
            began = time.monotonic()
            if copies := self.backups.saved(entry):
                self.savings.backed_up(sum(c.stat().st_size for c in copies if c.exists()), time.monotonic() - began)

    def _failed(self, error: SaveFailed, after: str) -> None:
        on_disk = (
            f"The newest on disk is {self.newest.path.name}, saved {duration(time.monotonic() - self.saved_at)} ago."
            if self.newest and self.saved_at is not None
            else "Nothing is on disk yet."
        )
        after = after or f"Training goes on, and it tries again in {_RETRY_S:.0f} s."
        self.say(f"NOT SAVED in {self.shelf.folder}: {error}. {on_disk} {after}")
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
        self._files: list[HashingFile] = []

    def dumping(self, payload: dict[str, Any]) -> commit.Dump:
        """What writes ``payload`` into a file that counts here."""

        def dump(file: HashingFile) -> None:
            self._files.append(file)
            torch.save(payload, file)  # type: ignore[arg-type]  # anything with write() serves

        return dump

    def __call__(self) -> str:
        if not self.expected or not self._files:
            return "the checkpoint is being put together"
        done = sum(file.size for file in self._files)
        return f"{self.name}, {min(99, 100 * done // self.expected)} % of {size(self.expected)}"
