"""Drawing batches within a loop: the random streams stay the run's own, and a stop breaks off the wait for data."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

from ganguard import streams
from ganguard.course import Course, Data, once_an_epoch
from ganguard.feeding import Feed, Feeds
from ganguard.history import History
from ganguard.keeper import Keeper
from ganguard.protection import children
from ganguard.protection.signals import Interrupted, StopRequests


class Drawing:
    """What ``Guard.batches`` does between two batches.

    Args:
        random: the streams of the checkpoint that the run goes on from; None where it begins.
    """

    def __init__(
        self,
        *,
        feeds: Feeds,
        course: Course,
        history: History,
        keeper: Keeper,
        stop: StopRequests,
        random: dict[str, Any] | None,
        say: Callable[[str], None],
    ) -> None:
        self._feeds = feeds
        self._course = course
        self._history = history
        self._keeper = keeper
        self._stop = stop
        self._to_restore = random
        self._say = say
        self._told_accumulation = False
        self._in_body = contextlib.ExitStack()

    def close(self) -> None:
        """The loop is over, wherever it was left."""
        self._in_body.close()

    def open(self, loader: Iterable[Any], *, again: bool) -> Feed:
        """What is left of the epoch under way.

        Args:
            again: the epoch's data was drawn from before, and broken off: it goes on with the same data only.

        Raises:
            UsageError: it was another data set.
        """
        self._in_body.close()
        p = self._course.position
        if self._feeds.changed(loader):
            if again:
                raise once_an_epoch()
            begins = "begins again with it" if p.batch else "begins with it"
            self._say(f"The data set is another one now; epoch {p.epoch + 1} {begins}.")
            if p.batch:
                p.batch = p.samples = 0
                self._history.restart_epoch()
        return self._feeds.open(loader, p.epoch + 1, samples_done=p.samples, batches_done=p.batch)

    def next(self, feed: Feed) -> tuple[Any, int] | None:
        """The next batch; a stop that comes while waiting for it is honoured at once, as if it had not been drawn.

        A data worker that dies is heard of here, and not in the midst of what is done with a batch.
        """
        self._in_body.close()
        self.restore_streams()
        own = streams.own() if feed.draws else None
        boundary = self._course.at_boundary
        try:
            got = self._wait(feed) if boundary else feed.next()
        except BaseException:
            self._in_body.enter_context(children.unheard())  # nothing breaks off what is saved now
            if own is not None:
                streams.put_back(own)
            raise
        stopping = boundary and self._stop.requested is not None
        if own is not None and (feed.private or stopping):
            streams.put_back(own)
        if stopping:
            self._keeper.honour_stop()
        if got is not None:
            self._in_body.enter_context(children.unheard())
        return got

    def _wait(self, feed: Feed) -> tuple[Any, int] | None:
        try:
            with self._stop.waiting():
                return feed.next()
        except Interrupted:
            return None
        except Exception:  # whatever a stop broke may fail
            if self._stop.requested is None:
                raise
            return None

    def restore_streams(self) -> None:
        """Code between entering and the loop may have drawn; from here on the stream is the run's."""
        if self._to_restore is not None:
            streams.restore(self._to_restore)
            self._to_restore = None

    def leave_streams(self) -> None:
        """What entering restored is in use: a loop of bare ticks began with it."""
        self._to_restore = None

    def tell_accumulation(self) -> None:
        """Say once where gradients are cut that no step was made with."""
        if not self._course.at_boundary and not self._told_accumulation:
            self._told_accumulation = True
            self._say(
                "Not exact: an accumulation is not complete here, and gradients not yet stepped on are not saved. "
                "Step on the last batch of an epoch too, or use drop_last."
            )

    def tell_nothing_counted(self, epoch: int) -> None:
        """Say that nothing within an epoch is guarded."""
        if self._course.position.step == 0 and self._course.data is Data.UNASKED:
            self._say(
                f"No batch was counted in epoch {epoch}: nothing is saved within an epoch, and a stop waits for its "
                "end. Draw the batches with guard.batches(loader), or call guard.tick() after each."
            )
