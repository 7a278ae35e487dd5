"""What follows a save: fixed names, retention, scheduled backups, in a thread of their own that delays nothing.

The thread lives while something is due. It works on files only: no tensor and no random stream is touched. What it has
to say is kept for the main thread, so that lines come in order and nobody's ``say`` is called from elsewhere.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from ganguard import commands
from ganguard.savings import Savings
from ganguard.store import aliases, commit, interruption, removal
from ganguard.store.commit import Checkpoint
from ganguard.store.durable import reason, why
from ganguard.store.retention import Policy
from ganguard.store.scheduled import BackupPlan, ScheduledBackups
from ganguard.store.shelf import Shelf

_ROOM_S = 10.0  # that a save which lacks space waits for a cleanup
_LEAVING_S = 5.0  # that leaving waits for what is due
_ENDING_S = 1.0  # and for a copy that is given up to be removed
_LOOK_S = 0.02


class _GivenUpError(BaseException):
    """Ends the work of the thread. Not an Exception: no fallback may catch it."""


class Housekeeping:
    """Follows the saves of one run. Only the newest counts: what a later save makes needless is never begun."""

    def __init__(self, shelf: Shelf, run: str, policy: Policy, plan: BackupPlan | None, savings: Savings) -> None:
        self.policy = policy
        self._shelf = shelf
        self._backups = None if plan is None else ScheduledBackups(plan, shelf, run, self._tell)
        self._savings = savings
        self._told: deque[str] = deque()
        self._lock = threading.Lock()  # of what follows
        self._thread: threading.Thread | None = None
        self._newest: Checkpoint | None = None
        self._pointed_to: Checkpoint | None = None  # the newest with finite parameters
        self._due = False
        self._cleaning = False
        self._copying: Checkpoint | None = None
        self._spared = False  # a cleanup left what was being copied
        self._given_up = False  # a backup was, in the middle or before it began
        self._hurry = False  # no backup is begun or gone on with any more
        self._over = False  # nothing is
        self._stuck: set[Path] = set()  # what could not be removed, and was told

    def saved(self, checkpoint: Checkpoint) -> None:
        """A checkpoint was saved: begin what follows, and return at once."""
        finite = checkpoint.head.summary is None or checkpoint.head.summary.finite
        with self._lock:
            self._newest = checkpoint
            self._pointed_to = checkpoint if finite else self._pointed_to
            self._begin()

    def _begin(self) -> None:
        """Needs the lock."""
        self._due = True
        if self._thread is not None:
            return
        self._thread = threading.Thread(target=self._work, daemon=True, name="ganguard-housekeeping")
        try:
            self._thread.start()
        except RuntimeError as error:
            self._thread = None
            self._tell(f"What follows a save is left to the next one: {error}.")

    def news(self) -> Iterator[str]:
        """What there is to tell since the last time; to be asked for in the main thread."""
        while self._told:
            yield self._told.popleft()

    def made_room(self) -> bool:
        """Wait shortly for a cleanup, if one is under way; returns whether one came to its end."""
        if not self._is_cleaning:
            return False
        deadline = time.monotonic() + _ROOM_S
        while self._is_cleaning and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
        return not self._is_cleaning

    @property
    def _is_cleaning(self) -> bool:
        return self._thread is not None and (self._due or self._cleaning)

    def finish(self, *, hurry: bool, enough: Callable[[], bool]) -> None:
        """Before leaving: wait a few seconds for what is due, and give up the rest, which is told.

        Args:
            hurry: give up a backup at once.
            enough: asked again and again, whether the wait is to end.
        """
        self._hurry = hurry
        with self._lock:
            if self._newest is not None and self._newest.unsynced:
                self._begin()
        self._wait(_LEAVING_S, enough)
        self._over = True
        self._wait(_ENDING_S, lambda: False)
        if self._given_up or self._copying:  # the second: its disk does not even answer
            self._tell_given_up()
        if self._thread is None:
            self._hurry = self._over = self._given_up = False

    def _wait(self, seconds: float, enough: Callable[[], bool]) -> None:
        deadline = time.monotonic() + seconds
        while (thread := self._thread) is not None and time.monotonic() < deadline and not enough():
            thread.join(_LOOK_S)

    # In the thread.

    def _work(self) -> None:
        with interruption.asking(self._asked):
            while self._take(last=True):
                try:
                    self._clean_up()
                    self._back_up_what_is_due()
                except _GivenUpError:
                    self._given_up |= bool(self._backups and self._backups.due and self._pointed_to)

    def _take(self, *, last: bool = False) -> bool:
        """Whether something is due, which is now being done. Where it is the ``last`` look, the thread ends without."""
        with self._lock:
            self._cleaning, self._due = self._due, False
            if last and not self._cleaning:
                self._thread = None
            return self._cleaning

    def _asked(self) -> None:
        """In between long work: give up, or let a cleanup go before a backup."""
        if self._over or (self._hurry and not self._cleaning):
            raise _GivenUpError
        if not self._cleaning and self._take():
            self._clean_up()

    def _clean_up(self) -> None:
        self._cleaning = True
        try:
            for step in (self._point, self._prune):
                try:
                    step()
                except Exception as error:
                    self._tell(f"Old checkpoints were not cleaned up: {reason(error)}.")
        except _GivenUpError:
            self._tell("Fixed names and old checkpoints are left as they are until the next start.")
            raise
        finally:
            self._cleaning = False

    def _point(self) -> None:
        if self._pointed_to is not None:
            for warning in aliases.point_all(self._shelf, self._pointed_to.paths):
                self._tell(warning)

    def _prune(self) -> None:
        """Nothing old goes before the new is durable, nor what is being copied."""
        if not self._is_durable():
            return
        copying = {self._copying.head.digest} if self._copying else set()
        self._spared = bool(copying)
        policy = replace(self.policy, named=self.policy.named | copying)
        gone = removal.prune(self._shelf, policy, stays=self._tell_stuck)
        if gone.warning:
            self._tell(gone.warning)

    def _is_durable(self) -> bool:
        newest = self._newest
        if newest is None or not newest.unsynced:
            return True
        name, folder = newest.head.path.name, newest.head.path.parent
        if failure := commit.synced(folder):
            self._tell(f"{folder} can still not be flushed ({failure}): a power cut may undo {name}; older ones stay.")
            return False
        with self._lock:
            if self._newest is newest:
                self._newest = replace(newest, unsynced="")
        self._tell(f"{folder} is flushed now: {name} survives a power cut too.")
        return True

    def _back_up_what_is_due(self) -> None:
        """Also what falls due while another is copied."""
        done = None
        while self._backups and self._backups.due and (checkpoint := self._pointed_to) not in (None, done):
            assert checkpoint is not None
            self._back_up(self._backups, checkpoint)
            done = checkpoint
        if self._spared:
            self._clean_up()

    def _back_up(self, backups: ScheduledBackups, checkpoint: Checkpoint) -> None:
        self._copying = checkpoint
        began = time.monotonic()
        try:
            self._asked()
            if backups.make(checkpoint.head):
                self._savings.backed_up(checkpoint.bytes, time.monotonic() - began)
        except Exception as error:
            self._tell(f"No backup of {checkpoint.head.path}: {reason(error)}.")
        finally:
            self._copying = None

    def _tell_given_up(self) -> None:
        assert self._pointed_to is not None  # there was one to copy
        command = commands.manager("--checkpoint-dir", self._shelf.folder, "--backup", self._pointed_to.head.path)
        self._tell(f"A backup was given up. To make one now: {command}")

    def _tell_stuck(self, path: Path, error: OSError) -> None:
        if path not in self._stuck:
            self._stuck.add(path)
            self._tell(f"{path} could not be removed ({why(error)}); it is tried again after each save.")

    def _tell(self, text: str) -> None:
        if text not in self._told:
            self._told.append(text)
