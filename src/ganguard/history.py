"""What a run has logged: steps go to the journal, epoch means and scores into the checkpoint."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from ganguard.errors import UsageError
from ganguard.reports.journal import OWN_NAMES, Journal
from ganguard.store.summary import score_kind

_FLUSH_EVERY = 64  # steps between two moments at which the device is waited for


class History:
    """Values are detached and kept on their device until a flush: logging does not synchronise."""

    def __init__(self, journal: Journal | None = None) -> None:
        self.journal = journal
        self.epochs: list[dict[str, Any]] = []  # one row a finished epoch
        self.best: dict[str, Any] | None = None
        self.last_score: dict[str, Any] | None = None
        self._pending: list[tuple[dict[str, int], dict[str, Any]]] = []
        self._sums: dict[str, list[float]] = {}  # name → [sum, count] of the epoch under way
        self._scores: dict[str, float] = {}
        self._about: dict[str, str | int] = {}  # what those scores were made with

    def log(self, place: dict[str, int], values: dict[str, Any]) -> None:
        """Remember the values of the step that is under way. ``place`` leads its journal line.

        Raises:
            UsageError: a value is no single number, or called like what the journal's lines say of themselves.
        """
        _require_free(values)
        for name, value in values.items():
            if isinstance(value, torch.Tensor) and value.numel() != 1:
                raise UsageError(f"log({name}=…) takes one number, not a tensor of shape {tuple(value.shape)}.")
        # Cloned: a running sum that goes on in place would be logged as it is at the flush.
        detached = {n: v.detach().clone() if isinstance(v, torch.Tensor) else float(v) for n, v in values.items()}
        self._pending.append((place, detached))
        if len(self._pending) >= _FLUSH_EVERY:
            self.flush()

    def cut_back(self, *, step: int, epoch: int) -> Path | None:
        """Take the journal back to a position; returns where the later lines are now."""
        return self.journal.cut_back(step, epoch) if self.journal else None

    def flush(self) -> None:
        """Bring pending values to the host, in order, so that sums do not depend on when."""
        rows = []
        for place, values in self._pending:
            numbers = {name: float(value) for name, value in values.items()}
            for name, number in numbers.items():
                total = self._sums.setdefault(name, [0.0, 0])
                total[0] += number
                total[1] += 1
            rows.append({**place, **_as_json(numbers)})
        self._pending = []
        if self.journal:
            self.journal.write(rows)

    def sync(self) -> None:
        """Return once the journal is on the medium, as far as it was written."""
        self.flush()
        if self.journal:
            self.journal.sync()

    def means(self) -> dict[str, float]:
        """Means of the epoch under way."""
        self.flush()
        return {name: total / count for name, (total, count) in self._sums.items()}

    def score(
        self, name: str, value: float, place: dict[str, int], about: Mapping[str, str | int] | None = None
    ) -> bool:
        """Take a score of the state as it is (lower is better); returns whether it is the best of its kind so far.

        Scores of another name, or made with something else (``about``), are not compared: the best begins anew.

        Raises:
            UsageError: as ``log``.
        """
        _require_free([name])
        self._scores[name] = value
        self._about = dict(about or {})
        self.last_score = {"name": name, "value": value, **place, "about": dict(about or {})}
        compared = self.best is not None and score_kind(self.best) == score_kind(self.last_score)
        better = self.best is None or not compared or value < self.best["value"]
        if not better or not math.isfinite(value):
            return False
        self.best = dict(self.last_score)
        return True

    def end_epoch(self, place: dict[str, int]) -> dict[str, float]:
        """Close the epoch's row; returns its means."""
        means = self.means()
        row: dict[str, Any] = {**place, **means, **self._scores}
        if self._about:
            row["about"] = self._about
        self.epochs.append(row)
        if self.journal:
            self.journal.write([{"epoch_end": place["epoch"], **place, **_as_json(means), **_as_json(self._scores)}])
        self._sums, self._scores, self._about = {}, {}, {}
        return means

    def note(self, row: dict[str, Any]) -> None:
        """Write a line of its own into the journal, after what was logged before it."""
        self.flush()
        if self.journal:
            self.journal.write([row])

    def begin_epoch(self) -> None:
        """What is scored from now on is of the epoch that begins."""
        self.last_score = None

    def restart_epoch(self) -> None:
        """Forget what was logged in the epoch under way: it begins again with other data."""
        self._pending, self._sums, self._scores, self._about = [], {}, {}, {}

    def state(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        self.flush()
        return {
            "epochs": [dict(row) for row in self.epochs],
            "sums": {name: list(total) for name, total in self._sums.items()},
            "scores": dict(self._scores),
            "about": dict(self._about),
        }

    def load(self, state: dict[str, Any], best: dict[str, Any] | None) -> None:
        """The inverse of ``state``; ``best`` has a key of its own in the checkpoint."""
        self.epochs = [dict(row) for row in state["epochs"]]
        self._sums = {name: list(total) for name, total in state["sums"].items()}
        self._scores = dict(state.get("scores", {}))
        self._about = dict(state.get("about", {}))
        self.best = {"about": {}, **best} if best else None


def _require_free(names: Iterable[str]) -> None:
    """Raises UsageError where a value's name is the journal's own."""
    for name in OWN_NAMES.intersection(names):
        raise UsageError(
            f"A value cannot be called {name!r}: the journal's lines have that name for what they tell themselves. "
            f"Give it another, such as my_{name}."
        )


def _as_json(numbers: dict[str, float]) -> dict[str, float | str]:
    """JSON knows no NaN and no infinity."""
    return {name: value if math.isfinite(value) else str(value) for name, value in numbers.items()}
