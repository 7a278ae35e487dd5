"""What follows a save: fixed names, retention, scheduled backups, in threads of their own that delay nothing.

One thread is for names and retention, one for backups; each lives while something is due. They work on files only: no
tensor and no random stream is touched. What they have to say is kept for the main thread, so that lines come in order
and nobody's ``say`` is called from elsewhere.
"""

from __future__ import annotations

import contextlib
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
_LEAVING_S = 4.0  # that leaving waits for what is due
_ENDING_S = 1.0  # and for a copy that is given up to be removed
_LOOK_S = 0.02


class _GivenUpError(BaseException):
    """Ends the work of a thread. Not an Exception: no fallback may catch it."""


class _Follower:
    """Does some work after each save; once for all saves that came meanwhile.

    Args:
        asked: called in between long work; may raise ``_GivenUpError``.
    """

    def __init__(self, work: Callable[[], None], asked: Callable[[], None], tell: Callable[[str], None]) -> None:
        self.left = False  # what was begun is not done: it is under way, or was given up
        self._work = work
        self._asked = asked
        self._tell = tell
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._due = False

    def begin(self) -> None:
        """Have the work done, or done once more, and return at once."""
        with self._lock:
            self._due = self.left = True
            if self._thread is not None:
                return
            self._thread = threading.Thread(target=self._follow, daemon=True, name="ganguard-housekeeping")
            try:
                self._thread.start()
            except RuntimeError as error:
                self._thread = None
                self._tell(f"What follows a save is left to the next one: {error}.")

    @property
    def is_busy(self) -> bool:
        return self._thread is not None

    def _follow(self) -> None:
        with interruption.asking(self._asked):
            while self._take():
                with contextlib.suppress(_GivenUpError):
                    self._work()
                    self._done()

    def _take(self) -> bool:
        """Whether the work is due, which is now being done; the thread ends where it is not."""
        with self._lock:
            due, self._due = self._due, False
            if not due:
                self._thread = None
            return due

    def _done(self) -> None:
        with self._lock:
            self.left = self._due


class Housekeeping:
    """Follows the saves of one run. Only the newest counts: what a later save makes needless is never begun."""

    def __init__(self, shelf: Shelf, run: str, policy: Policy, plan: BackupPlan | None, savings: Savings) -> None:
        self.policy = policy
        self._shelf = shelf
        self._backups = None if plan is None else ScheduledBackups(plan, shelf, run, self._tell)
        self._savings = savings
        self._told: deque[str] = deque()
        self._cleaning = _Follower(self._clean_up, self._ask_to_clean, self._tell)
        self._copying = _Follower(self._back_up_what_is_due, self._ask_to_copy, self._tell)
        self._lock = threading.Lock()  # of the two below
        self._newest: Checkpoint | None = None
        self._pointed_to: Checkpoint | None = None  # the newest with finite parameters
        self._choosing = threading.Lock()  # what is removed, and what is copied, are not chosen at once
        self._copied: Checkpoint | None = None  # just now
        self._left_it = False  # a cleanup left what was being copied
        self._hurry = False  # no backup is begun or gone on with any more
        self._over = False  # nothing is
        self._stuck: set[Path] = set()  # what could not be removed, and was told

    def saved(self, checkpoint: Checkpoint) -> None:
        """A checkpoint was saved: begin what follows, and return at once."""
        finite = checkpoint.head.summary is None or checkpoint.head.summary.finite
        with self._lock:
            self._newest = checkpoint
            self._pointed_to = checkpoint if finite else self._pointed_to
        self._hurry = self._over = False
        self._cleaning.begin()
        if self._backups is not None:
            self._copying.begin()

    def news(self) -> Iterator[str]:
        """What there is to tell since the last time; to be asked for in the main thread."""
        while self._told:
            yield self._told.popleft()

    def made_room(self) -> bool:
        """Wait shortly for a cleanup, if one is under way; returns whether one came to its end."""
        if not self._cleaning.is_busy:
            return False
        deadline = time.monotonic() + _ROOM_S
        while self._cleaning.is_busy and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
        return not self._cleaning.is_busy

    def finish(self, *, hurry: bool, enough: Callable[[], bool]) -> None:
        """Before leaving: wait a few seconds for what is due, and give up the rest, which is told. Works once.

        Args:
            hurry: give up a backup at once.
            enough: asked again and again, whether the wait is to end.
        """
        if self._over:
            return
        self._hurry = hurry
        if self._newest is not None and self._newest.unsynced:
            self._cleaning.begin()
        self._wait(_LEAVING_S, enough)
        self._over = True
        self._wait(_ENDING_S, lambda: False)
        self._tell_what_is_left()

    def _wait(self, seconds: float, enough: Callable[[], bool]) -> None:
        deadline = time.monotonic() + seconds
        while (self._cleaning.is_busy or self._copying.is_busy) and time.monotonic() < deadline and not enough():
            time.sleep(_LOOK_S)

    def _tell_what_is_left(self) -> None:
        if self._cleaning.left:
            self._tell("Fixed names and old checkpoints are left as they are until the next start.")
        if self._copying.left and self._pointed_to is not None:
            head = self._pointed_to.head.path
            command = commands.manager("--checkpoint-dir", self._shelf.folder, "--backup", head)
            self._tell(f"A backup was given up. To make one now: {command}")

    # In the threads.

    def _ask_to_clean(self) -> None:
        if self._over:
            raise _GivenUpError

    def _ask_to_copy(self) -> None:
        if self._over or self._hurry:
            raise _GivenUpError

    def _clean_up(self) -> None:
        for step, failed in (
            (self._point, "Fixed names were not moved on"),
            (self._prune, "Old checkpoints were not cleaned up"),
        ):
            try:
                step()
            except Exception as error:
                self._tell(f"{failed}: {reason(error)}.")

    def _point(self) -> None:
        if self._pointed_to is not None:
            for warning in aliases.point_all(self._shelf, self._pointed_to.paths):
                self._tell(warning)

    def _prune(self) -> None:
        """Nothing old goes before the new is durable, nor what is being copied."""
        if not self._is_durable():
            return
        with self._choosing:
            copied = {self._copied.head.digest} if self._copied else set()
            self._left_it = bool(copied)
            policy = replace(self.policy, named=self.policy.named | copied)
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
        checkpoint = self._pointed_to
        if self._backups is None or checkpoint is None:
            return
        try:
            if self._backups.due:
                self._back_up(self._backups)
        except Exception as error:
            self._tell(f"No backup of {checkpoint.head.path}: {reason(error)}.")

    def _back_up(self, backups: ScheduledBackups) -> None:
        """Copy the newest; a cleanup then takes what an earlier one left for its sake."""
        with self._choosing:
            checkpoint = self._copied = self._pointed_to
        assert checkpoint is not None  # there was one to ask for
        began = time.monotonic()
        try:
            self._ask_to_copy()
            if backups.make(checkpoint.head):
                self._savings.backed_up(checkpoint.bytes, time.monotonic() - began)
        finally:
            self._copied = None
            if self._left_it and not self._over:
                self._cleaning.begin()

    def _tell_stuck(self, path: Path, error: OSError) -> None:
        if path not in self._stuck:
            self._stuck.add(path)
            self._tell(f"{path} could not be removed ({why(error)}); it is tried again after each save.")

    def _tell(self, text: str) -> None:
        if text not in self._told:
            self._told.append(text)
