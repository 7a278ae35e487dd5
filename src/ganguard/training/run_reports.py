"""What every trainer shows of a run: curves, TensorBoard, a chart at the end. None of it fails the training."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ganguard.clock import Stopwatch
from ganguard.guard import Guard
from ganguard.reports import health
from ganguard.reports.board import Board
from ganguard.reports.curves import save_curves

_BOARD_EVERY = 50  # steps; a value there waits for the device
_DRAWING_SHARE = 50  # the curves take at most one part in so many of the time


class RunReports:
    """Use within the guard, whose run and position it takes over; ``close`` it.

    Args:
        logs: the folder of ``curves.png`` and ``tensorboard/``; a branch goes on in its run's.
        say: prints a line.
        encoding: of what the lines are shown on; None: standard output's when it is closed.
    """

    def __init__(self, guard: Guard, logs: Path, *, say: Callable[[str], None], encoding: str | None = None) -> None:
        self._guard, self._logs, self._say, self._encoding = guard, logs, say, encoding
        self._board = Board(logs / "tensorboard", step=guard.step, say=say)
        self._board.epochs(guard.history)
        self._not_drawn: list[dict[str, Any]] = []
        self._draw_again_at = 0.0

    def step(self, step: int, losses: Mapping[str, Tensor]) -> None:
        """Once a batch; ``step`` counts it."""
        if step % _BOARD_EVERY == 0:
            self._board.scalars(step, {f"step/{name}": float(value) for name, value in losses.items()})

    def row(self, epoch: int) -> dict[str, Any]:
        """The epoch under way, as its row in the history will be."""
        return {"epoch": epoch, "step": self._guard.step, "images": self._guard.images, **self._guard.means}

    def epoch_ended(self, row: Mapping[str, Any], *, draw: bool) -> None:
        """In an epoch's tail, with its row; ``draw`` the curves even if that was done a moment ago."""
        self._board.epochs([row])
        self._not_drawn = [*self._guard.history, dict(row)]
        if draw or time.monotonic() >= self._draw_again_at:
            self._draw()

    def samples(self, picture: Path) -> None:
        """Show a grid that was written."""
        self._board.image(self._guard.step, "samples", picture)

    def close(self) -> None:
        """Draw what was not drawn yet, and the chart."""
        self._board.close()
        if self._not_drawn:
            self._draw()
        for text in health.chart(self._guard.history, encoding=self._encoding):
            self._say(text)

    def _draw(self) -> None:
        watch = Stopwatch()
        try:
            save_curves(self._not_drawn, self._logs / "curves.png")
        except (OSError, ImportError) as error:
            self._say(f"The curves were not drawn: {error}. Training goes on.")
        self._not_drawn = []
        self._draw_again_at = time.monotonic() + _DRAWING_SHARE * watch.seconds


def own_run(run: str) -> str:
    """The run that a branch came from, whose journal and curves it goes on in."""
    return run.partition("_branch_")[0]


def where_newest(guard: Guard) -> str:
    """The end of a sentence: a start that had nothing left to do may have begun from a file elsewhere."""
    newest = guard.newest
    if newest is not None and guard.folder.absolute() not in newest.absolute().parents:
        return f"the newest checkpoint is {newest}."
    return f"the newest checkpoint is in {guard.folder}."
