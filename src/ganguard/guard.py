"""The guard: a training loop that saves itself, survives what stops it, and goes on bit for bit where it stopped.

It is the surface; the rooms behind it: ``session`` enters and brings a run back, ``course`` is where the training is,
``drawing`` gives the data, ``keeper`` saves and leaves. What a checkpoint holds is in ``state`` and ``snapshot``.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from ganguard import restoring
from ganguard.course import Course, Data
from ganguard.errors import NotSaved, SaveFailed, Stopped, UsageError
from ganguard.keeper import Intervals
from ganguard.protection import children
from ganguard.reports import console
from ganguard.session import ON_USR1, Session, Settings
from ganguard.store import retention
from ganguard.store.durable import reason, why
from ganguard.store.pair import Pair
from ganguard.store.resume import Request
from ganguard.store.retention import Policy
from ganguard.store.scheduled import BackupPlan
from ganguard.store.shelf import Shelf
from ganguard.store.summary import score_kind


class Guard:
    """Saves ``parts`` below ``folder`` and brings them back; see docs/guard.md for the contract of the loop.

    Args:
        folder: where the checkpoints go.
        parts: name → anything with ``state_dict`` and ``load_state_dict``; the name is its key in the file.
        layout: what the two files of a checkpoint are called and which parts lie in which; default a single file.
        config: what must be the same at resume; whatever JSON can carry. What begins with an underscore is only kept.
        may_change: keys of ``config`` that may differ at resume, and parts that may come or go: it is printed.
        seed: of the order of data; default what ``torch.manual_seed`` was last given.
        save_every_epochs: default 1, thinned out while saving takes more than ``save_budget`` of the run.
        save_every_batches: default 500, likewise; 0 saves only at epochs' ends.
        save_every_minutes: within an epoch, besides; default not by the clock.
        keep: how many of the newest epochs stay; default 5, of pairs 2.
        keep_every: each so many-th epoch stays for good; default 10, of pairs 0, which keeps none of them.
        save_budget: share of the run that saving may take; an interval given here is never thinned out.
        resume: what to go on from; by default the newest valid checkpoint, if there is one.
        journal: a file for one JSON line a step, ``{run}`` in it is the run's id; by default in ``folder``.
        threads: of this process on the CPU; default those that the run began with.
        deterministic: default on where no part is on an accelerator.
        patience_s: how long the last save is tried again while the disk takes none.
        backups: verified copies by the clock; default none.
        on_usr1: what SIGUSR1, a cluster's warning, does: save and leave, or save and go on.
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
        layout: Pair | None = None,
        config: Mapping[str, Any] | None = None,
        may_change: Iterable[str] = (),
        seed: int | None = None,
        save_every_epochs: int | None = None,
        save_every_batches: int | None = None,
        save_every_minutes: float | None = None,
        keep: int | None = None,
        keep_every: int | None = None,
        save_budget: float = 0.05,
        resume: Request | None = None,
        journal: Path | None = None,
        threads: int | None = None,
        deterministic: bool | None = None,
        patience_s: float = 30.0,
        backups: BackupPlan | None = None,
        on_usr1: Literal["stop", "save"] = "stop",
        say: Callable[[str], None] = console.say,
    ) -> None:
        self.folder = Path(folder)
        if on_usr1 not in ON_USR1:
            raise UsageError(f"on_usr1={on_usr1!r}: it is 'stop' or 'save'.")
        shelf = Shelf(self.folder, layout)
        usual = retention.usual(shelf)
        policy = Policy(
            keep_latest=usual.keep_latest if keep is None else keep,
            keep_every=usual.keep_every if keep_every is None else keep_every,
        )
        self._settings = Settings(
            shelf=shelf,
            config=restoring.as_json(config or {}),
            may_change=frozenset(may_change),
            seed=seed,
            intervals=Intervals(
                epochs=save_every_epochs,
                batches=save_every_batches,
                minutes=save_every_minutes,
                milestones=policy.keep_every,
                budget=save_budget,
            ),
            policy=policy,
            request=resume or Request(),
            journal=str(journal or shelf.journal),
            threads=threads,
            deterministic=deterministic,
            patience_s=patience_s,
            backups=backups,
            saving_signals=ON_USR1[on_usr1],
            say=say,
        )
        self._parts = dict(parts)
        self._say = say
        self._session = Session(self._settings, self._parts)
        self._entered = contextlib.ExitStack()

    @property
    def _course(self) -> Course:
        return self._session.course

    # Where the training is.

    @property
    def epoch(self) -> int:
        """The epoch under way, from 1."""
        return self._course.position.epoch + 1

    @property
    def newest(self) -> Path | None:
        """The newest checkpoint; until the run has saved one, the file that it goes on from."""
        return self._session.newest

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
        if not self._session.entered:
            return ""
        run = self._session.keeper.snapshot.run
        return f"{run.run}_branch_{run.branch}" if run.branch else run.run

    @property
    def resumed_from(self) -> Path | None:
        """The checkpoint that the run goes on from; None where it begins."""
        return self._session.resumed_from

    @property
    def seconds_since_save(self) -> float | None:
        """How much is at risk: seconds since the newest save; None where nothing is on disk yet."""
        at = self._session.keeper.saver.saved_at if self._session.entered else None
        return None if at is None else time.monotonic() - at

    @property
    def savings(self) -> dict[str, Any]:
        """What saving took in this start: count, bytes and seconds of each kind, seconds in all, share of the time."""
        return self._session.keeper.saver.savings.as_dict() if self._session.entered else {}

    @property
    def history(self) -> list[dict[str, Any]]:
        """One row a finished epoch: epoch, step, means of what was logged, scores."""
        return [dict(row) for row in self._session.history.epochs]

    @property
    def means(self) -> dict[str, float]:
        """Means of what was logged in the epoch under way. Waits for the device: ask in the tail, not at each batch."""
        return self._session.history.means()

    @property
    def best(self) -> dict[str, Any] | None:
        """The best score so far: name, value, epoch, step, about; None before the first."""
        return dict(self._session.history.best) if self._session.history.best else None

    # Entering and leaving.

    def __enter__(self) -> Self:
        self._session = Session(self._settings, self._parts)
        self._session.check()
        with contextlib.ExitStack() as undo:  # what was done is undone where a later step fails
            try:
                self._session.enter(undo)
            except OSError as error:
                where = error.filename or self.folder
                raise SaveFailed(f"{where}: {why(error)}. Nothing was lost; mend that first.") from error
            self._entered = undo.pop_all()
        try:
            self._session.keeper.honour_stop()  # one may have been asked for since
        except BaseException:
            self._session.keeper.say_goodbye()
            self._entered.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with children.unheard(), self._entered, contextlib.ExitStack() as last:
            last.callback(self._session.keeper.say_goodbye)
            if kind is None:
                self._finish()
            elif not issubclass(kind, Stopped | NotSaved):
                self._left_by(kind, error)

    def _left_by(self, kind: type[BaseException], error: BaseException | None) -> None:
        """An exception ended the loop."""
        with contextlib.suppress(RuntimeError):  # the device may be what failed
            self._session.history.flush()
        keeper = self._session.keeper
        if not (self._course.between_steps and issubclass(kind, Exception)):
            lost = "what came after the last save is lost" if keeper.unsaved else "the batch under way is lost"
            self._say(f"Left by {kind.__name__}; {lost}. {keeper.on_disk()}")
            return
        try:
            keeper.rescue()
        except NotSaved:
            if isinstance(error, Exception):
                self._say(f"{kind.__name__}: {reason(error)}")  # nobody else will say it
            raise
        self._say(f"Left by {kind.__name__}. {keeper.on_disk()} {console.how_to_go_on()}")

    def _finish(self) -> None:
        """The loop ended, or was left by break or return."""
        course = self._course
        course.leave_body()
        epochs_only = course.position.step == 0 and course.position.epoch > 0
        if course.in_epoch and (course.data is Data.ENDED or epochs_only):
            self._close_epoch()  # left in its tail
        elif course.in_epoch and not course.position.batch:
            self._say(f"Left within epoch {self.epoch}, of which nothing is saved.")
        self._session.drawing.tell_accumulation()
        self._session.keeper.finish()

    # The loops.

    def epochs(self, total: int) -> Iterator[int]:
        """The epochs still to come, from 1 to ``total``; each is saved after its tail, at the next turn."""
        session, course = self._session, self._course
        keeper, drawing = session.keeper, session.drawing
        if course.position.epoch >= total:
            self._say(
                f"{'The only epoch is' if total == 1 else f'All {total} epochs are'} done; ask for more to go on."
            )
        first = course.position.epoch
        while course.position.epoch < total:
            course.begin_epoch()
            session.history.begin_epoch()
            if course.position.batch == 0:
                drawing.restore_streams()
            keeper.honour_stop()
            yield self.epoch
            if course.position.epoch == first:
                drawing.tell_nothing_counted(self.epoch)
            self._close_epoch()
            keeper.after_epoch(last=course.position.epoch >= total)
        course.ended = True

    def _close_epoch(self) -> None:
        self._session.drawing.leave_streams()
        self._course.end_epoch()
        p = self._course.position
        self._session.history.end_epoch({"epoch": p.epoch, "step": p.step})

    def batches(self, loader: Iterable[Any], *, accumulate: int = 1) -> Iterator[Any]:
        """What is left of ``loader`` in this epoch; saves and stops only at multiples of ``accumulate``.

        Asking for the next batch is what tells that one is finished. After a ``break`` the epoch goes on with another
        loader over the same data, of another batch size, say.

        Raises:
            UsageError: it is called a second time within one epoch.
        """
        if accumulate < 1:
            raise UsageError(f"accumulate={accumulate}: it is the number of batches a step, so at least 1.")
        course, drawing = self._course, self._session.drawing
        again = course.data is Data.LEFT
        token = course.begin_data()
        course.accumulate = accumulate
        feed = drawing.open(loader, again=again)
        try:
            while (got := drawing.next(feed)) is not None:
                batch, course.body = got
                yield batch
                self._body_ends()
        finally:
            course.leave_loop(token)
        course.data = Data.ENDED
        drawing.tell_accumulation()
        course.accumulate = 1

    def steps(self, total: int) -> Iterator[int]:
        """The iterations still to come, from 1 to ``total``, for loops that are not counted in epochs."""
        course = self._course
        self._session.drawing.restore_streams()
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
        self._session.drawing.leave_streams()
        self._course.count(samples)
        self._session.keeper.after_step(boundary=self._course.at_boundary)

    def log(self, **values: Any) -> None:
        """Log numbers of the iteration under way; tensors are detached, and the device is not waited for.

        Raises:
            UsageError: a value is no single number, or its name is the journal's own: step, epoch, batch, tail, …
        """
        course = self._course
        p, tail = course.position, course.in_tail
        place = {"step": course.step_under_way, "epoch": p.epoch + 1, "batch": p.batch + (not tail)}
        self._session.history.log({**place, "tail": True} if tail else place, values)

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
        before = self._session.history.best
        if not self._session.history.score(name, float(value), place, about):
            return False
        self._session.keeper.asked_for = True
        if before and score_kind(before) != score_kind({"name": name, "about": about}):
            self._say(
                f"{name} is of another kind than the best so far ({before['name']} {before['value']:.4g}), so the two "
                "are not compared: the best begins anew."
            )
        return True

    @property
    def stopping(self) -> bool:
        """Whether a stop was asked for: something long in an epoch's tail may be broken off then, for ``leave``."""
        return self._session.keeper.stopping

    def leave(self) -> None:
        """Save and leave at once where a stop was asked for, in an epoch's tail, all of which runs again at resume.

        Raises:
            Stopped, NotSaved: see ``ganguard.errors``.
            UsageError: outside the tail.
        """
        if not self._course.in_tail:
            raise UsageError("guard.leave() is for an epoch's tail; elsewhere the guard leaves by itself.")
        self._session.keeper.honour_stop()

    def save(self, *, milestone: bool = False) -> None:
        """Save at the next batch boundary, or at the epoch's end when called in its tail.

        Args:
            milestone: that checkpoint stays for good, whatever ``keep`` says.
        """
        keeper = self._session.keeper
        keeper.asked_for = True
        keeper.milestone |= milestone
