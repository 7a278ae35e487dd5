"""One entering of a guard: what is locked, read and put in place, and undone in reverse."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ganguard import options, pairing, restoring, state
from ganguard.course import Course, Position
from ganguard.drawing import Drawing
from ganguard.errors import UsageError
from ganguard.feeding import Feeds
from ganguard.history import History
from ganguard.housekeeping import Housekeeping
from ganguard.keeper import Intervals, Keeper
from ganguard.machine import Machine
from ganguard.protection.signals import StopRequests
from ganguard.protection.workers import USR1
from ganguard.reports.journal import Journal
from ganguard.saving import Saver
from ganguard.savings import Savings
from ganguard.snapshot import Snapshot
from ganguard.store import durable, lock
from ganguard.store.resume import Request
from ganguard.store.retention import Policy
from ganguard.store.scheduled import BackupPlan
from ganguard.store.shelf import Shelf

ON_USR1 = {"stop": frozenset[int](), "save": frozenset({USR1} if USR1 is not None else set[int]())}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the options of ``Guard`` come to."""

    shelf: Shelf
    config: dict[str, Any]
    may_change: frozenset[str]
    seed: int | None
    intervals: Intervals
    policy: Policy
    request: Request
    journal: str  # "{run}" in it is the run's id
    threads: int | None
    deterministic: bool | None
    patience_s: float
    backups: BackupPlan | None
    saving_signals: frozenset[int]
    say: Callable[[str], None]


class Session:
    """Where a run is, and what watches it. Before ``enter`` it is a run that has not begun."""

    def __init__(self, settings: Settings, parts: Mapping[str, Any]) -> None:
        self._settings = settings
        self._parts = parts
        self._keeper: Keeper | None = None
        self._drawing: Drawing | None = None
        self.course = Course(Position())
        self.history = History()
        self.resumed_from: Path | None = None

    @property
    def keeper(self) -> Keeper:
        """Raises UsageError outside the with block."""
        if self._keeper is None:
            raise UsageError("Use the guard within its with block: with Guard(…) as guard: …")
        return self._keeper

    @property
    def drawing(self) -> Drawing:
        """Raises UsageError outside the with block."""
        if self._drawing is None:
            raise UsageError("Use the guard within its with block: with Guard(…) as guard: …")
        return self._drawing

    @property
    def entered(self) -> bool:
        return self._keeper is not None

    @property
    def newest(self) -> Path | None:
        newest = self._keeper.saver.newest if self._keeper else None
        return newest.path if newest else None

    def check(self) -> None:
        """Look at the parts before anything is touched. Raises UsageError."""
        state.check_parts(self._parts)
        if self._settings.shelf.pair is not None:
            pairing.check(self._settings.shelf.pair, self._parts)

    def enter(self, undo: contextlib.ExitStack) -> None:
        """Lock, listen, read the run back. What was done so far is in ``undo`` where a later step fails.

        Raises:
            CheckpointError, FolderInUse, SaveFailed, OSError: see ``ganguard.errors``.
        """
        settings, shelf = self._settings, self._settings.shelf
        durable.make_folder(shelf.folder)
        name = shelf.lock_name(lock.TRAINING)
        held = undo.enter_context(lock.Lock(shelf.folder, name, of=str(shelf), wait_s=lock.LOOK_S, warn=settings.say))
        stop = StopRequests(settings.say, self._at_risk, settings.saving_signals)
        undo.callback(stop.close)
        for missing in stop.listen():
            settings.say(f"Not protected from {missing}.")
        machine = Machine(self._parts, deterministic=settings.deterministic, threads=settings.threads)
        undo.callback(machine.undo)
        for place in shelf.places:
            durable.clear_temporaries(place, shelf.tag)
        feeds = self._resume(held, stop)
        undo.callback(feeds.close)
        undo.callback(self.drawing.close)
        self.keeper.saver.tell_space(state.expected_bytes(self._parts))

    def _at_risk(self) -> str:
        return self._keeper.at_risk() if self._keeper else ""

    def _resume(self, held: lock.Lock, stop: StopRequests) -> Feeds:
        settings, say = self._settings, self._settings.say
        began = restoring.begin(settings.shelf, settings.request, self._parts)
        restoring.require_same(began, settings.config, settings.may_change, settings.seed, self._parts, say=say)
        path, told = restoring.settle(began)
        for line in told:
            say(line)
        seed = began.seed if began.seed is not None else settings.seed
        seed = torch.initial_seed() if seed is None else seed
        self.course = Course(Position(**began.position))
        journal = Path(settings.journal.replace("{run}", began.run.run))
        self.history = History(Journal(journal, say, settings.shelf.tag))
        feeds = Feeds(seed, began.fingerprint, say)
        self._keeper = self._make_keeper(began, held, stop, feeds, seed)
        self._drawing = Drawing(
            feeds=feeds,
            course=self.course,
            history=self.history,
            keeper=self._keeper,
            stop=stop,
            random=began.random,
            say=say,
        )
        self._restore(began, path)
        return feeds

    def _make_keeper(
        self, began: restoring.Beginning, held: lock.Lock, stop: StopRequests, feeds: Feeds, seed: int
    ) -> Keeper:
        settings, savings = self._settings, Savings()
        return Keeper(
            saver=Saver(
                shelf=settings.shelf,
                run=began.run,
                lock=held,
                stop=stop,
                say=settings.say,
                housekeeping=Housekeeping(settings.shelf, began.run.run, settings.policy, settings.backups, savings),
                savings=savings,
            ),
            snapshot=Snapshot(
                parts=self._parts,
                shelf=settings.shelf,
                run=began.run,
                origin=began.origin,
                config=settings.config,
                constructed=options.constructed(self._parts),
                seed=seed,
                position=self.course.position,
                history=self.history,
                feeds=feeds,
            ),
            stop=stop,
            course=self.course,
            intervals=settings.intervals,
            patience_s=settings.patience_s,
            say=settings.say,
        )

    def _restore(self, began: restoring.Beginning, path: Path | None) -> None:
        keeper, position, say = self.keeper, self.course.position, self._settings.say
        self.resumed_from = path
        lost = []
        if path is not None:
            lost = restoring.restore(began, self._parts, keeper.snapshot.constructed, threads=self._settings.threads)
            self.history.load(began.history, began.best)
            keeper.saver.newest, keeper.saved = began.entry_at(path), position.here
            if keeper.saver.newest and keeper.saver.newest.summary:
                keeper.saver.saved_at = time.monotonic() - (keeper.saver.newest.summary.age_s or 0.0)
        if cut := self.history.cut_back(step=position.step, epoch=position.epoch):
            say(f"Journal lines after step {position.step} were moved to {cut.name}.")
        if path is not None:
            restoring.tell(path, position, self.history.best, lost, say=say)
