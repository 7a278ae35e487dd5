"""Writing a run's checkpoints: a failing save never ends a healthy run, and is never hidden."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from ganguard import state
from ganguard.errors import SaveFailed, UnreadableCheckpoint
from ganguard.housekeeping import Housekeeping
from ganguard.protection.signals import StopRequests
from ganguard.reports.console import counted, duration, size
from ganguard.savings import Savings
from ganguard.snapshot import File
from ganguard.store import commit, envelope, runfile
from ganguard.store.catalog import Catalog, Entry
from ganguard.store.commit import Checkpoint
from ganguard.store.durable import free_bytes, make_folder, reason
from ganguard.store.envelope import HashingFile
from ganguard.store.lock import Lock
from ganguard.store.runfile import Run
from ganguard.store.shelf import Shelf
from ganguard.store.summary import Kind

_RETRY_S = 30.0
_OVERHEAD = 64 * 1024  # of the zip format, random states, history


@dataclass
class Saver:
    """Writes, remembers how it went, and has done what follows a save."""

    shelf: Shelf
    run: Run
    lock: Lock
    stop: StopRequests
    say: Callable[[str], None]
    housekeeping: Housekeeping
    savings: Savings
    writer: commit.Writer = commit.commit
    newest: Entry | None = None
    failing: SaveFailed | None = None
    saved_at: float | None = None  # monotonic; None: nothing of this run is on disk
    _retry_at: float = 0.0
    _progress: _Progress = field(default_factory=lambda: _Progress())

    def save(self, make: Callable[[], list[File]], *, after_failure: str = "") -> Entry | None:
        """Write the checkpoint that ``make`` gives and tell of it; None where that failed, which is told too.

        Args:
            after_failure: what to say after the reason; by default that training goes on.
        """
        self.tell_news()
        began = time.monotonic()
        try:
            saved, remark = self._write_somehow(make)
        except Exception as error:  # whatever it is (a part's own state_dict, say): the training is healthy
            self._failed(_as_failure(error, self._progress.expected), after_failure)
            self.savings.did_not(time.monotonic() - began)
            return None
        self._succeeded(saved, remark, time.monotonic() - began)
        return saved.head

    def _write_somehow(self, make: Callable[[], list[File]]) -> tuple[Checkpoint, str]:
        """Where old checkpoints are being removed, there may be room in a moment."""
        try:
            return self._write(make)
        except SaveFailed:
            if not self.housekeeping.made_room():
                raise
        return self._write(make)

    def _write(self, make: Callable[[], list[File]]) -> tuple[Checkpoint, str]:
        """Returns what is on disk, and a remark for the line that tells of it."""
        self._progress = _Progress()
        with self.stop.writing(self._progress):
            self._mend_folder()
            contents = make()
            saved = self.writer(self.shelf, self._parts(contents))
            verified = contents[-1][0].kind is Kind.EMERGENCY  # there may be no other chance
            return saved, _verify(saved) if verified else ""

    def _parts(self, contents: list[File]) -> list[commit.Part]:
        sizes = [state.tensor_bytes(payload) + _OVERHEAD for _, payload in contents]
        self._progress.name, self._progress.expected = contents[-1][0].name, sum(sizes)
        return [
            commit.Part(summary=summary, dump=self._progress.dumping(payload), expected_bytes=size)
            for (summary, payload), size in zip(contents, sizes, strict=True)
        ]

    def tell_news(self) -> None:
        """Tell what came of earlier saves since."""
        for line in self.housekeeping.news():
            self.say(line)

    def settle(self, *, hurry: bool, enough: Callable[[], bool]) -> None:
        """Before leaving: what is due is done, or given up after a few seconds. See ``Housekeeping.finish``."""
        self.housekeeping.finish(hurry=hurry, enough=enough)
        self.tell_news()

    def tell_space(self, one: int) -> None:
        """Say what checkpoints of ``one`` bytes each will take, and what is free.

        Pairs grow, and a training that asks for milestones may keep many: there it tells how many stay beside those.
        """
        every, most = self.housekeeping.policy.keep_every, self.housekeeping.policy.keep_latest + 3
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
            self._tell_what_vanished()
            make_folder(folder)
        self.lock.reassert()
        if gone:
            runfile.write(self.shelf, self.run)

    def _tell_what_vanished(self) -> None:
        shelf = self.shelf
        if Catalog.of(shelf).entries:
            self.say(f"{shelf.run_file} has vanished; it is written anew.")
        else:
            self.say(f"What was in {shelf.folder} has vanished, the older checkpoints too; saving there all the same.")

    def _succeeded(self, saved: Checkpoint, remark: str, seconds: float) -> None:
        head, again = saved.head, "Saving works again: " if self.failing else ""
        assert head.summary is not None  # it was written with one
        self.failing = None
        self.newest = head
        self.saved_at = time.monotonic()
        self.savings.saved(head.summary.kind, saved.bytes, seconds)
        others = "".join(f" and {path.name}" for path in saved.paths[:-1])
        self.say(f"{again}saved {head.path}{others} ({size(saved.bytes)} in {seconds:.2f} s{remark})")
        if saved.unsynced:
            self.say(
                f"{head.path.parent} cannot be flushed ({saved.unsynced}): until it is, a power cut may undo "
                f"{head.path.name}. It is tried again, and older checkpoints stay."
            )
        self.housekeeping.saved(saved)

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


def _verify(saved: Checkpoint) -> str:
    """Read a checkpoint back; returns what is to be said of that. Raises DamagedCheckpoint: it is none."""
    try:
        for path in saved.paths:
            envelope.verify(path)
    except UnreadableCheckpoint as error:
        return f"; not verified: {error}"
    return ", verified"


def _as_failure(error: Exception, expected: int) -> SaveFailed:
    if isinstance(error, SaveFailed):
        return error
    return SaveFailed(reason(error), needed=expected)


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
