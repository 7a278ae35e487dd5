"""When a run is saved, and how it is left."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from ganguard import state
from ganguard.course import Course
from ganguard.errors import NotSaved, Stopped
from ganguard.protection.signals import StopRequests
from ganguard.reports import console
from ganguard.saving import Saver
from ganguard.snapshot import Snapshot
from ganguard.store.summary import Kind

_DEFAULT_EPOCHS = 1
_DEFAULT_BATCHES = 500
_LAST_CHANCE_PAUSE_S = 8.0


@dataclass(frozen=True, kw_only=True)
class Intervals:
    """How often. None stands for the default, which is thinned out while saving takes too much of the run."""

    epochs: int | None
    batches: int | None  # 0: only at epochs' ends
    minutes: float | None  # within an epoch, besides; None: not by the clock
    milestones: int  # every so many epochs is never skipped; 0: none is
    budget: float  # share of the run that saving may take

    @property
    def every_epochs(self) -> int:
        return _DEFAULT_EPOCHS if self.epochs is None else self.epochs

    @property
    def every_batches(self) -> int:
        return _DEFAULT_BATCHES if self.batches is None else self.batches

    def milestone(self, epoch: int) -> bool:
        return bool(self.milestones) and epoch % self.milestones == 0


class Keeper:
    """Saves ``snapshot`` when that is due, and leaves by ``Stopped`` where a stop was asked for.

    Args:
        patience_s: how long the last save is tried again while the disk takes none.
    """

    def __init__(
        self,
        *,
        saver: Saver,
        snapshot: Snapshot,
        stop: StopRequests,
        course: Course,
        intervals: Intervals,
        patience_s: float,
        say: Callable[[str], None],
    ) -> None:
        self.saver = saver
        self.snapshot = snapshot
        self.asked_for = False  # guard.save(), or a score that is the best
        self.milestone = False  # what is asked for is to be kept for good
        self.saved: tuple[int, int, int] | None = None  # where the newest save is
        self._leaving = False  # a stop is being honoured
        self._stop = stop
        self._course = course
        self._intervals = intervals
        self._patience_s = patience_s
        self._say = say
        self._autosave = False
        self._thinned = False  # saves are left out, which was told
        self._tried_at = time.monotonic()

    def after_step(self, *, boundary: bool) -> None:
        """A step is finished. At a boundary of accumulated steps stop if asked to, and save if that is due."""
        self.saver.tell_news()
        every = self._intervals.every_batches
        self._autosave |= bool(every) and self._course.position.step % every == 0
        if not boundary:
            return
        self.honour_stop()
        self._hear_of_saving()
        due = self._autosave and self._affordable(typed=self._intervals.batches is not None)
        self._autosave = False
        if due or self._minutes_are_over or self.asked_for or self.saver.due_again:
            self.save(self.kind_here())

    def _hear_of_saving(self) -> None:
        """A signal may ask for a save without a stop."""
        if self._stop.save_requested:
            self._stop.save_requested = False
            self.asked_for = True

    @property
    def _minutes_are_over(self) -> bool:
        minutes = self._intervals.minutes
        return minutes is not None and time.monotonic() - self._tried_at >= 60 * minutes

    def after_epoch(self, *, last: bool) -> None:
        """An epoch is finished, its tail too: save if that is due, stop if asked to."""
        self.saver.tell_news()
        self._hear_of_saving()
        if self._epoch_due(last=last):
            self.save(Kind.EPOCH)
        self.honour_stop()

    def _epoch_due(self, *, last: bool) -> bool:
        epoch = self._course.position.epoch
        if last or self.asked_for or self.saver.due_again or self._intervals.milestone(epoch):
            return True
        every = self._intervals.every_epochs
        due = bool(every) and epoch % every == 0
        return due and self._affordable(typed=self._intervals.epochs is not None)

    def _affordable(self, *, typed: bool) -> bool:
        share, budget = self.saver.savings.share, self._intervals.budget
        if typed or share <= budget:
            return True
        if not self._thinned:
            self._thinned = True
            self._say(
                f"Saving takes {share:.0%} of the time, more than {budget:.0%}: some saves are left out from here."
            )
        return False

    def kind_here(self) -> Kind:
        """What a regular save at this position is."""
        if not self._course.position.batch:
            return Kind.EPOCH
        return Kind.AUTOSAVE if self._course.in_epoch else Kind.STEP

    def save(self, kind: Kind, *, after_failure: str = "") -> bool:
        """Save now; returns whether that worked. What failed is told, and what follows from it."""
        self.asked_for = False
        self._tried_at = time.monotonic()
        finite = state.all_finite(self.snapshot.parts)
        if not finite and kind is not Kind.EMERGENCY:
            self._say("NOT SAVED: parameters are not finite (NaN or infinite). The newest good checkpoint stays.")
            return False
        newest = self.saver.newest
        entry = self.saver.save(
            lambda: self.snapshot.take(
                kind, parent=newest.digest if newest else "", finite=finite, milestone=self.milestone
            ),
            after_failure=after_failure,
        )
        if entry is not None:
            self.saved = self._course.position.here
            self.milestone = False
        return entry is not None

    @property
    def stopping(self) -> bool:
        """Whether a stop was asked for."""
        return self._stop.requested is not None

    @property
    def unsaved(self) -> bool:
        """Whether the state at this position is not on disk."""
        return self._course.position.here not in ((0, 0, 0), self.saved)

    def honour_stop(self) -> None:
        """Save and leave, if that was asked for.

        Raises:
            Stopped, NotSaved
        """
        number = self._stop.requested
        if number is None:
            return
        newest = self.saver.newest
        if self.unsaved:
            self._save_at_last(Kind.EMERGENCY)
        elif newest is not None:  # what closes after this may take a while
            self._say(f"Nothing is left to save: all of it is in {newest.path}.")
        self._settle()
        self._tell_savings()
        newest = self.saver.newest
        if newest and newest.summary and not newest.summary.finite:
            self._say(f"{newest.path.name} holds parameters that are not finite: it is not resumed unasked.")
        self._leaving = True
        if self.unsaved:
            raise NotSaved
        raise Stopped(number)

    def rescue(self) -> None:
        """An error ended the loop between two steps: what was trained is saved.

        Raises:
            NotSaved
        """
        if self.unsaved:
            self._save_at_last(Kind.EMERGENCY)
        self._tell_savings()
        if self.unsaved:
            raise NotSaved

    def say_goodbye(self) -> None:
        """Let what follows a save end, if it has not; then the last line of a run that was stopped: how to go on."""
        self._settle()
        if self._leaving:
            self._say(f"{self.on_disk()} {console.how_to_go_on()}")

    def finish(self) -> None:
        """The loop ended, or was left by break or return: nothing stays unsaved.

        Raises:
            Stopped: a stop was asked for.
            NotSaved: the newest state is not on disk.
        """
        if self._stop.requested is None and (self.unsaved or self.asked_for):
            self._save_at_last(self.kind_here())
        self.honour_stop()
        self._settle()
        self._tell_savings()
        if self.unsaved:
            self._say(f"The newest state is NOT on disk. {self.on_disk()}")
            raise NotSaved

    def _settle(self) -> None:
        """Let what follows a save end: 5 s at most, and one more request to stop ends the wait."""
        heard = self._stop.heard
        self.saver.settle(hurry=self.stopping, enough=lambda: self._stop.heard > heard)

    def _tell_savings(self) -> None:
        savings = self.saver.savings
        if text := savings.text():
            self._say(text)
            p = self._course.position
            self.snapshot.history.note({"step": p.step, "epoch": p.epoch, "savings": savings.as_dict()})

    def _save_at_last(self, kind: Kind) -> None:
        """Save; where the disk takes none, say what is needed and try again for a while."""
        deadline = time.monotonic() + self._patience_s
        advice = f"Make room on the disk of {self.saver.shelf.folder}, or mend what is wrong there."
        while not self.save(kind, after_failure=advice) and self.saver.failing and time.monotonic() < deadline:
            left = max(0.0, deadline - time.monotonic())
            self._say(f"Trying again for {left:.0f} s.")
            time.sleep(min(_LAST_CHANCE_PAUSE_S, left))

    def on_disk(self) -> str:
        newest = self.saver.newest
        if newest is None:
            return "Nothing was saved yet."
        position = newest.summary
        return f"The newest checkpoint is {newest.path}" + (f" (step {position.step})." if position else ".")

    def at_risk(self) -> str:
        """What leaving now would lose, in words; empty where nothing. The batch under way does not count."""
        saved = self.saved[2] if self.saved else 0
        lost = self._course.position.step - saved
        if lost > 0:
            return console.counted(lost, "iteration")
        return f"epoch {self._course.position.epoch}" if self.unsaved else ""
