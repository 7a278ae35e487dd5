"""The guard: a training loop that saves itself, survives what stops it, and goes on bit for bit where it stopped.

It introduces the rooms to each other: ``course`` is where the training is, ``keeper`` saves and leaves, ``feeding``
gives the data, ``restoring`` brings a run back. What a checkpoint holds is in ``state`` and ``snapshot``.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from ganguard import options, restoring, state, streams
from ganguard.course import Course, Data, Position
from ganguard.errors import NotSaved, SaveFailed, Stopped, UsageError
from ganguard.feeding import Feed, Feeds
from ganguard.history import History
from ganguard.keeper import Intervals, Keeper
from ganguard.machine import Machine
from ganguard.protection.signals import Interrupted, StopRequests
from ganguard.reports import console
from ganguard.reports.journal import Journal
from ganguard.saving import Saver
from ganguard.snapshot import Snapshot
from ganguard.store import durable, lock
from ganguard.store.durable import why
from ganguard.store.resume import Request
from ganguard.store.retention import Policy
from ganguard.store.summary import score_kind


class Guard:
    """Saves ``parts`` below ``folder`` and brings them back; see docs/guard.md for the contract of the loop.

    Args:
        folder: where the checkpoints go.
        parts: name → anything with ``state_dict`` and ``load_state_dict``; the name is its key in the file.
        config: what must be the same at resume; whatever JSON can carry.
        may_change: keys of ``config`` that may differ at resume: what differs is printed.
        seed: of the order of data; default what ``torch.manual_seed`` was last given.
        save_every_epochs: default 1, thinned out while saving takes more than ``save_budget`` of the run.
        save_every_batches: default 500, likewise; 0 saves only at epochs' ends.
        keep: how many of the newest epochs stay; keep_every: each so many-th epoch stays for good.
        save_budget: share of the run that saving may take; an interval given here is never thinned out.
        resume: what to go on from; by default the newest valid checkpoint, if there is one.
        journal: a file for one JSON line a step, ``{run}`` in it is the run's id; by default in ``folder``.
        threads: of this process on the CPU; default those that the run began with.
        deterministic: default on where no part is on an accelerator.
        patience_s: how long the last save is tried again while the disk takes none.
        say: prints a line.

    Raises:
        UsageError, CheckpointError, FolderInUse, SaveFailed: see ``ganguard.errors``; on entering.
        Stopped: from the loop, once a stop that was asked for is saved.
        NotSaved: on leaving, where the newest state is not on disk.
    """

    def __init__(
        self,
        folder: str | Path,
        parts: Mapping[str, Any],
        *,
        config: Mapping[str, Any] | None = None,
        may_change: Iterable[str] = (),
        seed: int | None = None,
        save_every_epochs: int | None = None,
        save_every_batches: int | None = None,
        keep: int = 5,
        keep_every: int = 10,
        save_budget: float = 0.05,
        resume: Request | None = None,
        journal: Path | None = None,
        threads: int | None = None,
        deterministic: bool | None = None,
        patience_s: float = 30.0,
        say: Callable[[str], None] = console.say,
    ) -> None:
        self.folder = Path(folder)
        self.resumed_from: Path | None = None
        self._parts = dict(parts)
        self._config = restoring.as_json(config or {})
        self._may_change = frozenset(may_change)
        self._seed = seed
        self._intervals = Intervals(
            epochs=save_every_epochs, batches=save_every_batches, milestones=keep_every, budget=save_budget
        )
        self._policy = Policy(keep_latest=keep, keep_every=keep_every)
        self._request = resume or Request()
        self._journal = str(journal or self.folder / "journal.jsonl")
        self._threads = threads
        self._deterministic = deterministic
        self._patience_s = patience_s
        self._say = say
        self._course = Course(Position())
        self._history = History()
        self._keeper: Keeper | None = None
        self._entered = contextlib.ExitStack()
        self._streams_to_restore: dict[str, Any] | None = None
        self._accumulate = 1
        self._told_accumulation = False

    # Where the training is.

    @property
    def epoch(self) -> int:
        """The epoch under way, from 1."""
        return self._course.position.epoch + 1

    @property
    def batch(self) -> int:
        """Batches done in the epoch under way."""
        return self._course.position.batch

    @property
    def step(self) -> int:
        """Iterations done over the whole run, resumed parts included."""
        return self._course.position.step

    @property
    def images(self) -> int:
        """Samples seen over the whole run: what schedules and averages are functions of."""
        return self._course.position.images

    @property
    def run(self) -> str:
        """A name of the run and its branch, for folders that no other may write over. Known after entering."""
        if self._keeper is None:
            return ""
        run = self._keeper.snapshot.run
        return f"{run.run}_branch_{run.branch}" if run.branch else run.run

    @property
    def seconds_since_save(self) -> float | None:
        """How much is at risk: seconds since the newest save; None where nothing is on disk yet."""
        at = self._keeper.saver.saved_at if self._keeper else None
        return None if at is None else time.monotonic() - at

    @property
    def history(self) -> list[dict[str, Any]]:
        """One row a finished epoch: epoch, step, means of what was logged, scores."""
        return [dict(row) for row in self._history.epochs]

    @property
    def means(self) -> dict[str, float]:
        """Means of what was logged in the epoch under way. Waits for the device: ask in the tail, not at each batch."""
        return self._history.means()

    @property
    def best(self) -> dict[str, Any] | None:
        """The best score so far: name, value, epoch, step, about; None before the first."""
        return dict(self._history.best) if self._history.best else None

    # Entering and leaving.

    def __enter__(self) -> Self:
        state.check_parts(self._parts)
        with contextlib.ExitStack() as undo:  # what was done is undone where a later step fails
            try:
                self._prepare(undo)
            except OSError as error:
                raise SaveFailed(
                    f"{error.filename or self.folder}: {why(error)}. Nothing was lost; mend that first."
                ) from error
            self._entered = undo.pop_all()
        try:
            self._running.honour_stop()  # one may have been asked for since
        except BaseException:
            self._entered.close()
            raise
        return self

    def _prepare(self, undo: contextlib.ExitStack) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        held = undo.enter_context(lock.Lock(self.folder, warn=self._say))
        self._stop = StopRequests(self._say, lambda: self._keeper.at_risk() if self._keeper else "")
        undo.callback(self._stop.close)
        for missing in self._stop.listen():
            self._say(f"Not protected from {missing}.")
        machine = Machine(self._parts, deterministic=self._deterministic, threads=self._threads)
        undo.callback(machine.undo)
        durable.clear_temporaries(self.folder)
        self._resume(held)
        undo.callback(self._feeds.close)
        self._running.saver.tell_space(state.expected_bytes(self._parts))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._entered:
            if kind is None:
                self._finish()
            elif not issubclass(kind, Stopped | NotSaved):
                with contextlib.suppress(RuntimeError):  # the device may be what failed
                    self._history.flush()
                self._say(f"Left by {kind.__name__}; what came after the last save is lost. {self._running.on_disk()}")

    @property
    def _running(self) -> Keeper:
        if self._keeper is None:
            raise UsageError("Use the guard within its with block: with Guard(…) as guard: …")
        return self._keeper

    def _resume(self, held: lock.Lock) -> None:
        began = restoring.begin(self.folder, self._request, self._parts)
        restoring.require_same(began, self._config, self._may_change, self._seed, self._parts, say=self._say)
        path, told = restoring.settle(began)
        for line in told:
            self._say(line)
        seed = began.seed if began.seed is not None else self._seed
        seed = torch.initial_seed() if seed is None else seed
        self._course = Course(Position(**began.position))
        self._history = History(Journal(Path(self._journal.replace("{run}", began.run.run)), self._say))
        self._feeds = Feeds(seed, began.fingerprint, self._say)
        self._keeper = Keeper(
            saver=Saver(
                folder=self.folder, run=began.run, lock=held, policy=self._policy, stop=self._stop, say=self._say
            ),
            snapshot=Snapshot(
                parts=self._parts,
                run=began.run,
                origin=began.origin,
                config=self._config,
                constructed=options.constructed(self._parts),
                seed=seed,
                position=self._course.position,
                history=self._history,
                feeds=self._feeds,
            ),
            stop=self._stop,
            course=self._course,
            intervals=self._intervals,
            patience_s=self._patience_s,
            say=self._say,
        )
        self._restore(began, path)

    def _restore(self, began: restoring.Beginning, path: Path | None) -> None:
        keeper, position = self._running, self._course.position
        self.resumed_from, self._streams_to_restore = path, began.random
        lost = []
        if path is not None:
            lost = restoring.restore(began, self._parts, keeper.snapshot.constructed, threads=self._threads)
            self._history.load(began.history, began.best)
            keeper.saver.newest, keeper.saved = began.entry_at(path), position.here
            if keeper.saver.newest:
                keeper.saver.saved_at = time.monotonic() - max(0.0, time.time() - keeper.saver.newest.modified)
        if cut := self._history.cut_back(step=position.step, epoch=position.epoch):
            self._say(f"Journal lines after step {position.step} were moved to {cut.name}.")
        if path is not None:
            restoring.tell(path, position, self._history.best, lost, say=self._say)

    def _finish(self) -> None:
        """The loop ended, or was left by break or return."""
        course = self._course
        course.leave_body()
        epochs_only = course.position.step == 0 and course.position.epoch > 0
        if course.in_epoch and (course.data is Data.ENDED or epochs_only):
            self._close_epoch()  # left in its tail
        elif course.in_epoch and not course.position.batch:
            self._say(f"Left within epoch {self.epoch}, of which nothing is saved.")
        self._tell_accumulation()
        self._running.finish()

    def _tell_accumulation(self) -> None:
        if not self._at_boundary and not self._told_accumulation:
            self._told_accumulation = True
            self._say(
                "Not exact: an accumulation is not complete here, and gradients not yet stepped on are not saved. "
                "Step on the last batch of an epoch too, or use drop_last."
            )

    # The loops.

    def epochs(self, total: int) -> Iterator[int]:
        """The epochs still to come, from 1 to ``total``; each is saved after its tail, at the next turn."""
        course = self._course
        if course.position.epoch >= total:
            self._say(f"All {total} epochs are done; ask for more to go on.")
        while course.position.epoch < total:
            course.begin_epoch()
            self._history.begin_epoch()
            self._accumulate = 1
            if course.position.batch == 0:
                self._restore_streams()
            self._running.honour_stop()
            yield self.epoch
            self._close_epoch()
            self._running.after_epoch(last=course.position.epoch >= total)
        course.ended = True

    def _close_epoch(self) -> None:
        self._streams_to_restore = None
        self._course.end_epoch()
        p = self._course.position
        self._history.end_epoch({"epoch": p.epoch, "step": p.step})

    def batches(self, loader: Iterable[Any], *, accumulate: int = 1) -> Iterator[Any]:
        """What is left of ``loader`` in this epoch; saves and stops only at multiples of ``accumulate``.

        Asking for the next batch is what tells that one is finished.

        Raises:
            UsageError: it is called a second time within one epoch.
        """
        if accumulate < 1:
            raise UsageError(f"accumulate={accumulate}: it is the number of batches a step, so at least 1.")
        course = self._course
        token = course.begin_data()
        self._accumulate = accumulate
        feed = self._open(loader)
        try:
            while (got := self._next(feed)) is not None:
                batch, course.body = got
                yield batch
                self._body_ends()
        finally:
            course.leave_loop(token)
        course.data = Data.ENDED
        self._tell_accumulation()
        self._accumulate = 1

    def steps(self, total: int) -> Iterator[int]:
        """The iterations still to come, from 1 to ``total``, for loops that are not counted in epochs."""
        course = self._course
        self._restore_streams()
        token = course.begin_loop()
        try:
            while course.position.step < total:
                course.body = 1
                yield course.position.step + 1
                self._body_ends()
        finally:
            course.leave_loop(token)
        course.ended = True

    def _body_ends(self) -> None:
        samples, self._course.body = self._course.body, None
        self.tick(samples or 0)

    def tick(self, samples: int = 1) -> None:
        """One iteration is finished: count it, save if that is due, stop if that was asked for.

        Raises:
            UsageError: within ``batches`` or ``steps``, which count by themselves.
        """
        if self._course.body is not None:
            raise UsageError("guard.batches and guard.steps count by themselves: leave guard.tick() out.")
        self._streams_to_restore = None  # a loop of bare ticks began with those that entering restored
        self._course.count(samples)
        self._running.after_step(boundary=self._at_boundary)

    @property
    def _at_boundary(self) -> bool:
        return self._course.position.batch % self._accumulate == 0

    def log(self, **values: Any) -> None:
        """Log numbers of the iteration under way; tensors are detached, and the device is not waited for."""
        course = self._course
        p, tail = course.position, course.in_tail
        place = {"step": course.step_under_way, "epoch": p.epoch + 1, "batch": p.batch + (not tail)}
        self._history.log({**place, "tail": True} if tail else place, values)

    def score(self, *, about: Mapping[str, str | int] | None = None, **values: float) -> bool:
        """Score the state as it is, in an epoch's tail: one name, lower is better; the best is kept.

        Args:
            about: what the score was made with (extractor, number of samples, …): only scores of one name and the
                same ``about`` are compared. With another one the best begins anew, which is said.

        Returns:
            Whether it is the best so far. One that is not finite never is.
        """
        if len(values) != 1:
            raise UsageError("score takes one name and its value: guard.score(fid=…).")
        ((name, value),) = values.items()
        place = {"epoch": self.epoch, "step": self._course.step_scored}
        before = self._history.best
        if not self._history.score(name, float(value), place, about):
            return False
        self._running.asked_for = True
        if before and score_kind(before) != score_kind({"name": name, "about": about}):
            self._say(
                f"{name} is of another kind than the best so far ({before['name']} {before['value']:.4g}), so the two "
                "are not compared: the best begins anew."
            )
        return True

    def save(self) -> None:
        """Save at the next batch boundary, or at the epoch's end when called in its tail."""
        self._running.asked_for = True

    # Data.

    def _open(self, loader: Iterable[Any]) -> Feed:
        p = self._course.position
        if self._feeds.changed(loader):
            begins = "begins again with it" if p.batch else "begins with it"
            self._say(f"The data set is another one now; epoch {p.epoch + 1} {begins}.")
            if p.batch:
                p.batch = p.samples = 0
                self._history.restart_epoch()
        return self._feeds.open(loader, p.epoch + 1, samples_done=p.samples, batches_done=p.batch)

    def _next(self, feed: Feed) -> tuple[Any, int] | None:
        """The next batch; a stop that comes while waiting for it is honoured at once, as if it had not been drawn."""
        self._restore_streams()
        own = streams.own() if feed.draws else None
        got = self._wait(feed) if self._at_boundary else feed.next()
        stopping = self._at_boundary and self._stop.requested is not None
        if own is not None and (feed.private or stopping):
            streams.put_back(own)
        if stopping:
            self._running.honour_stop()
        return got

    def _wait(self, feed: Feed) -> tuple[Any, int] | None:
        try:
            with self._stop.waiting():
                return feed.next()
        except Interrupted:
            return None

    def _restore_streams(self) -> None:
        """Code between entering and the loop may have drawn; from here on the stream is the run's."""
        if self._streams_to_restore is not None:
            streams.restore(self._streams_to_restore)
            self._streams_to_restore = None
