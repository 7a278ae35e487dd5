"""What a run has logged: steps go to the journal, epoch means and scores into the checkpoint."""

from __future__ import annotations

import math
from typing import Any

import torch

from ganguard.errors import UsageError
from ganguard.reports.journal import Journal

_FLUSH_EVERY = 64  # steps between two moments at which the device is waited for


class History:
    """Values are detached and kept on their device until a flush: logging does not synchronise."""

    def __init__(self, journal: Journal | None) -> None:
        self.journal = journal
        self.epochs: list[dict[str, Any]] = []  # one row a finished epoch
        self.best: dict[str, Any] | None = None
        self.last_score: dict[str, Any] | None = None
        self._pending: list[tuple[dict[str, int], dict[str, Any]]] = []
        self._sums: dict[str, list[float]] = {}  # name → [sum, count] of the epoch under way
        self._scores: dict[str, float] = {}

    def log(self, place: dict[str, int], values: dict[str, Any]) -> None:
        """Remember the values of the step that is under way."""
        for name, value in values.items():
            if isinstance(value, torch.Tensor) and value.numel() != 1:
                raise UsageError(f"log({name}=…) takes one number, not a tensor of shape {tuple(value.shape)}.")
        detached = {n: v.detach() if isinstance(v, torch.Tensor) else float(v) for n, v in values.items()}
        self._pending.append((place, detached))
        if len(self._pending) >= _FLUSH_EVERY:
            self.flush()

    def drop_after(self, step: int) -> None:
        """Forget what was logged for a step that did not end."""
        self._pending = [(place, values) for place, values in self._pending if place["step"] <= step]

    def flush(self) -> None:
        """Bring pending values to the host, in order, so that sums do not depend on when."""
        rows = []
        for place, values in self._pending:
            numbers = {name: float(value) for name, value in values.items()}
            for name, number in numbers.items():
                total = self._sums.setdefault(name, [0.0, 0])
                total[0] += number
                total[1] += 1
            rows.append({**place, **{n: v if math.isfinite(v) else str(v) for n, v in numbers.items()}})
        self._pending = []
        if self.journal:
            self.journal.write(rows)

    def means(self) -> dict[str, float]:
        """Means of the epoch under way."""
        self.flush()
        return {name: total / count for name, (total, count) in self._sums.items()}

    def score(self, name: str, value: float, place: dict[str, int]) -> bool:
        """Take a score of the state as it is (lower is better); returns whether it is the best of its name."""
        self._scores[name] = value
        self.last_score = {"name": name, "value": value, **place}
        better = self.best is None or self.best["name"] != name or value < self.best["value"]
        if better and math.isfinite(value):
            self.best = dict(self.last_score)
        return better

    def end_epoch(self, place: dict[str, int]) -> dict[str, float]:
        """Close the epoch's row; returns its means."""
        means = self.means()
        row = {**place, **means, **self._scores}
        self.epochs.append(row)
        if self.journal:
            self.journal.write([{"epoch_end": place["epoch"], **row}])
        self._sums = {}
        self._scores = {}
        return means

    def begin_epoch(self) -> None:
        self.last_score = None

    def state(self) -> dict[str, Any]:
        self.flush()
        return {
            "epochs": [dict(row) for row in self.epochs],
            "sums": {name: list(total) for name, total in self._sums.items()},
        }

    def load(self, state: dict[str, Any], best: dict[str, Any] | None) -> None:
        self.epochs = [dict(row) for row in state["epochs"]]
        self._sums = {name: list(total) for name, total in state["sums"].items()}
        self.best = dict(best) if best else None
