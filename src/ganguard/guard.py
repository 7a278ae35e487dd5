"""The guard: a training loop that saves itself, survives what stops it, and goes on bit for bit where it stopped.

It ties three things together: the position of the training, when to save, and when to stop. What a checkpoint holds
is in ``state``, how it gets onto the disk in ``store``, in which order data comes in ``order``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from ganguard import options, restoring, state, streams
from ganguard.errors import NotSaved, Stopped, UsageError
from ganguard.feeding import Feed, Feeds
from ganguard.history import History
from ganguard.machine import Machine
from ganguard.protection.signals import Interrupted, StopRequests
from ganguard.reports import console
from ganguard.reports.journal import Journal
from ganguard.saving import Saver
from ganguard.snapshot import Position, Snapshot
from ganguard.store import durable, lock
from ganguard.store.resume import Request
from ganguard.store.retention import Policy
from ganguard.store.summary import Kind

_DEFAULT_EPOCHS = 1
_DEFAULT_BATCHES = 500
_LAST_CHANCE_PAUSE_S = 2.0


class Guard:
    """Saves ``parts`` below ``folder`` and brings them back; see docs/guard.md for the contract of the loop.

    Args:
        folder: where the checkpoints go.
        parts: name → anything with ``state_dict`` and ``load_state_dict``; the name is its key in the file.
        config: what must be the same at resume; plain values.
        may_change: keys of ``config`` that may differ at resume: what differs is printed.
        seed: of the order of data; default what ``torch.manual_seed`` was last given.
        save_every_epochs: default 1, thinned out while saving takes more than ``save_budget`` of the run.
        save_every_batches: default 500, likewise; 0 saves only at epochs' ends.
        keep: how many of the newest epochs stay; keep_every: each so many-th epoch stays for good.
        save_budget: share of the run that saving may take; an interval given here is never thinned out.
        resume: what to go on from; by default the newest valid checkpoint, if there is one.
        journal: a file for one JSON line a step; default ``journal.jsonl`` in ``folder``.
        threads: of this process on the CPU; default those that the run began with.
        deterministic: default on where no part is on an accelerator.
        patience_s: how long the last save is tried again while the disk takes none.
        say: prints a line.

    Raises:
        UsageError, CheckpointError, FolderInUse: see ``ganguard.errors``; on entering.
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
        self._config = state.to_plain(dict(config or {}), "config")
        self._may_change = frozenset(may_change)
        self._seed = seed
        self._every_epochs = save_every_epochs
        self._every_batches = save_every_batches
        self._policy = Policy(keep_latest=keep, keep_every=keep_every)
        self._budget = save_budget
        self._request = resume or Request()
        self._threads = threads
        self._deterministic = deterministic
        self._patience_s = patience_s
        self._say = say
        self._position = Position()
        self._history = History(Journal(journal or self.folder / "journal.jsonl", say))
        self._stop = StopRequests(say, self._at_risk)
        self._snapshot: Snapshot | None = None
        self._feeds: Feeds | None = None
        self._machine: Machine | None = None
        self._streams_to_restore: dict[str, Any] | None = None
        self._accumulate = 1
        self._due = False
        self._left_epochs = self._left_batches = self._batches_ran = False
        self._saved: tuple[int, int, int] | None = None  # where the newest save is
        self._counts_steps = False

    # Where the training is.

    @property
    def epoch(self) -> int:
        """The epoch under way, from 1."""
        return self._position.epoch + 1

    @property
    def batch(self) -> int:
        """Batches done in the epoch under way."""
        return self._position.batch

    @property
    def step(self) -> int:
        """Iterations done over the whole run, resumed parts included."""
        return self._position.step

    @property
    def history(self) -> list[dict[str, Any]]:
        """One row a finished epoch: epoch, step, means of what was logged, scores."""
        return [dict(row) for row in self._history.epochs]

    # Entering and leaving.

    def __enter__(self) -> Self:
        state.check_parts(self._parts)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = lock.Lock(self.folder, warn=self._say).__enter__()
        try:
            for missing in self._stop.listen():
                self._say(f"Not protected from {missing}.")
            self._saver = Saver(
                folder=self.folder, lock=self._lock, policy=self._policy, stop=self._stop, say=self._say
            )
            self._machine = Machine(self._parts, deterministic=self._deterministic, threads=self._threads)
            durable.clear_temporaries(self.folder)
            self._resume()
            self._began = time.monotonic()
            self._tell_space()
            self._honour_stop()
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
            elif not issubclass(kind, SystemExit):
                self._say(f"Stopped by an error. {self._on_disk()}")
        finally:
            self._release()

    def _release(self) -> None:
        if self._feeds:
            self._feeds.close()
        self._stop.close()
        self._lock.__exit__(None, None, None)
        if self._machine:
            self._machine.undo()

    def _resume(self) -> None:
        began = restoring.begin(self.folder, self._request, self._parts)
        restoring.require_same(began, self._config, self._may_change, self._seed, self._parts, say=self._say)
        path, told = restoring.settle(began)
        for line in told:
            self._say(line)
        constructed = options.constructed(self._parts)
        self._seed = began.seed if began.seed is not None else self._seed
        if self._seed is None:
            self._seed = torch.initial_seed()
        self._feeds = Feeds(self._seed, began.fingerprint, self._say)
        self._position = Position(**began.position)
        self._snapshot = Snapshot(
            parts=self._parts,
            run=began.run,
            origin=began.origin,
            config=self._config,
            constructed=constructed,
            seed=self._seed,
            position=self._position,
            history=self._history,
        )
        if path is None:
            return
        lost = restoring.restore(began, self._parts, constructed, threads=self._threads)
        self._history.load(began.history, began.best)
        self._streams_to_restore = began.random
        self._saver.newest = began.newest
        self._saved = self._here()
        self.resumed_from = path
        if cut := self._history.journal and self._history.journal.cut_back(self._position.step):
            self._say(f"Journal lines after step {self._position.step} were moved to {cut.name}.")
        self._tell_resumed(path, lost)

    def _tell_resumed(self, path: Path, lost: list[str]) -> None:
        p = self._position
        where = f"epoch {p.epoch} finished" if not p.batch else f"epoch {p.epoch + 1}, batch {p.batch}"
        best = self._history.best
        score = f", best {best['name']} {best['value']:.4g} (epoch {best['epoch']})" if best else ""
        self._say(f"Resumed from {path}: {where}, {p.images} images seen{score}; resumed from step {p.step}.")
        for line in lost:
            self._say(f"Not restored exactly: {line}.")

    def _tell_space(self) -> None:
        one = state.tensor_bytes(state.capture(self._parts))
        most = one * (self._policy.keep_latest + 3)
        self._say(
            f"Checkpoints in {self.folder}: about {console.size(one)} each, keeps up to {console.size(most)}"
            f"{' and one more every ' + str(self._policy.keep_every) + ' epochs' if self._policy.keep_every else ''}; "
            f"{console.size(durable.free_bytes(self.folder))} free."
        )

    # The loops.

    def epochs(self, total: int) -> Iterator[int]:
        """The epochs still to come, from 1 to ``total``; each is saved after its tail, at the next turn."""
        if self._position.epoch >= total:
            self._say(f"All {total} epochs are done; ask for more to go on.")
        try:
            while self._position.epoch < total:
                self._begin_epoch()
                yield self.epoch
                self._end_epoch(last=self._position.epoch + 1 >= total)
        except GeneratorExit:
            self._left_epochs = True
            raise

    def batches(self, loader: Iterable[Any], *, accumulate: int = 1) -> Iterator[Any]:
        """What is left of ``loader`` in this epoch; saves and stops only at multiples of ``accumulate``.

        Raises:
            UsageError: it is called a second time within one epoch.
        """
        if self._batches_ran:
            raise UsageError("guard.batches may run once an epoch. Use a plain loop for the second loader.")
        self._batches_ran = True
        self._accumulate = accumulate
        feed = self._feed(loader)
        in_body = False
        try:
            while (got := self._next(feed)) is not None:
                batch, count = got
                in_body = True
                yield batch
                in_body = False
                self.tick(count)
        except GeneratorExit:
            self._left_batches = True
            if in_body:
                self._count(count)
            raise
        finally:
            self._accumulate = 1
        if self._position.batch % accumulate:
            self._say(
                f"The epoch ends within an accumulation of {accumulate}: gradients not yet stepped on are not saved, "
                "so a resume from here is not exact. Step on the last batch too, or use drop_last."
            )

    def steps(self, total: int) -> Iterator[int]:
        """The iterations still to come, from 1 to ``total``, for loops that are not counted in epochs."""
        self._counts_steps = True
        self._restore_streams()
        try:
            while self._position.step < total:
                yield self._position.step + 1
                self.tick()
        except GeneratorExit:
            self._left_epochs = self._left_batches = True
            raise

    def tick(self, samples: int = 1) -> None:
        """One iteration is finished: count it, save if that is due, stop if that was asked for."""
        self._count(samples)
        if self._position.batch % self._accumulate:
            return
        self._honour_stop()
        every = _DEFAULT_BATCHES if self._every_batches is None else self._every_batches
        due = every and self._position.step % every == 0
        if self._due or self._saver.due_again or (due and self._affordable(typed=self._every_batches is not None)):
            self._save(self._kind_here())

    def log(self, **values: Any) -> None:
        """Log numbers of the iteration under way; tensors are detached, and the device is not waited for."""
        p = self._position
        self._history.log({"step": p.step + 1, "epoch": p.epoch + 1, "batch": p.batch + 1}, values)

    def score(self, **values: float) -> None:
        """Score the state as it is, in an epoch's tail: one name, lower is better; the best is kept."""
        if len(values) != 1:
            raise UsageError("score takes one name and its value: guard.score(fid=…).")
        ((name, value),) = values.items()
        if self._history.score(name, float(value), {"epoch": self.epoch, "step": self._position.step}):
            self._due = True

    def save(self) -> None:
        """Save at the next batch boundary, or at the epoch's end when called in its tail."""
        self._due = True

    # One epoch.

    def _begin_epoch(self) -> None:
        self._left_batches = self._batches_ran = False
        self._history.begin_epoch()
        if self._position.batch == 0:
            self._restore_streams()
        self._honour_stop()

    def _end_epoch(self, *, last: bool) -> None:
        p = self._position
        p.epoch, p.batch, p.samples = p.epoch + 1, 0, 0
        self._history.end_epoch({"epoch": p.epoch, "step": p.step})
        self._batches_ran = False
        if self._epoch_save_due(last=last):
            self._save(Kind.EPOCH)
        if not last:
            self._honour_stop()

    def _epoch_save_due(self, *, last: bool) -> bool:
        every = _DEFAULT_EPOCHS if self._every_epochs is None else self._every_epochs
        milestone = self._policy.keep_every and self._position.epoch % self._policy.keep_every == 0
        if last or milestone or self._due or self._saver.due_again:
            return True
        due = bool(every) and self._position.epoch % every == 0
        return due and self._affordable(typed=self._every_epochs is not None)

    def _affordable(self, *, typed: bool) -> bool:
        return typed or self._saver.seconds <= self._budget * (time.monotonic() - self._began)

    def _count(self, samples: int) -> None:
        p = self._position
        p.batch, p.samples = p.batch + 1, p.samples + samples
        p.step, p.images = p.step + 1, p.images + samples

    # Data.

    def _feed(self, loader: Iterable[Any]) -> Feed:
        p = self._position
        assert self._feeds is not None  # set on entering
        if self._feeds.changed(loader):
            self._say(f"The data set has changed; epoch {p.epoch + 1} begins again with it.")
            p.batch = p.samples = 0
        return self._feeds.open(loader, p.epoch + 1, samples_done=p.samples, batches_done=p.batch)

    def _next(self, feed: Feed) -> tuple[Any, int] | None:
        """The next batch; a stop that comes while waiting for it is honoured at once, as if it had not been drawn."""
        may_stop = self._position.batch % self._accumulate == 0
        own = streams.capture_host()
        try:
            if may_stop:
                with self._stop.waiting():
                    got = feed()
            else:
                got = feed()
        except Interrupted:
            got = None
        if may_stop and self._stop.requested is not None:
            streams.restore_host(own)
            self._restore_streams()
            self._honour_stop()
        self._restore_streams()
        return got

    def _restore_streams(self) -> None:
        """Code between entering and the loop may have drawn; from here on the stream is the run's."""
        if self._streams_to_restore is not None:
            streams.restore(self._streams_to_restore)
            self._streams_to_restore = None

    # Saving and stopping.

    def _save(self, kind: Kind) -> bool:
        self._due = False
        assert self._snapshot is not None  # set on entering, like the feeds
        assert self._feeds is not None
        finite = state.all_finite(self._parts)
        if not finite and kind is not Kind.EMERGENCY:
            self._say("NOT SAVED: parameters are not finite (NaN or infinite). The newest good checkpoint stays.")
            return False
        payload = self._snapshot.payload(fingerprint=self._feeds.fingerprint, random=self._streams_to_restore)
        newest = self._saver.newest
        summary = self._snapshot.summary(kind, parent=newest.digest if newest else "", finite=finite)
        entry = self._saver.save(summary, payload)
        if entry is not None:
            self._saved = self._here()
        return entry is not None

    def _here(self) -> tuple[int, int, int]:
        return self._position.epoch, self._position.batch, self._position.step

    @property
    def _unsaved(self) -> bool:
        return self._position.step > 0 and self._saved != self._here()

    def _honour_stop(self) -> None:
        """Save and leave, if that was asked for."""
        number = self._stop.requested
        if number is None:
            return
        if self._unsaved:
            self._save_at_last(Kind.EMERGENCY)
        self._say(f"{self._on_disk()} To go on: {console.command_to_go_on()}")
        if self._unsaved:
            raise NotSaved
        raise Stopped(number)

    def _finish(self) -> None:
        """The loop ended, or was left by break or return."""
        if self._left_epochs and not self._left_batches and self._batches_ran:
            self._end_epoch(last=True)
        if self._stop.requested is None and self._unsaved:
            self._save_at_last(self._kind_here())
        self._honour_stop()
        if self._unsaved:
            self._say(f"The newest state is NOT on disk. {self._on_disk()}")
            raise NotSaved

    def _kind_here(self) -> Kind:
        if self._counts_steps:
            return Kind.STEP
        return Kind.AUTOSAVE if self._position.batch else Kind.EPOCH

    def _save_at_last(self, kind: Kind) -> None:
        """Save; where the disk takes none, say what is needed and try again for a while."""
        deadline = time.monotonic() + self._patience_s
        while not self._save(kind) and self._saver.failing and time.monotonic() < deadline:
            needed = console.size(self._saver.failing.needed)
            self._say(
                f"Make {needed} of room on the disk of {self.folder}; trying again until {self._patience_s:.0f} s are over."
            )
            time.sleep(_LAST_CHANCE_PAUSE_S)

    def _on_disk(self) -> str:
        newest = self._saver.newest
        if newest is None:
            return "Nothing was saved yet."
        position = newest.summary
        assert position is not None  # the saver only writes heads
        return f"The newest checkpoint is {newest.path} (step {position.step})."

    def _at_risk(self) -> str:
        saved = self._saved[2] if self._saved else 0
        lost = self._position.step - saved
        return f"{lost} iterations" if lost > 0 else ""
