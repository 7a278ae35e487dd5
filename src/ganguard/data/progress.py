"""How far a long count is: a bar where a person watches, a line now and then elsewhere.

Showing it never fails the work: a terminal that was closed, or that can't show a character, only ends the showing.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from ganguard.printable import one_line

_LINE_EVERY_S = 5.0
_BAR_EVERY_S = 0.1
_DISPLAY_FAILURES = (Exception, SystemExit)  # rich exits the process where a pipe is closed


class Progress:
    """Count to ``total``; use with ``with`` and ``advance``."""

    def __init__(self, total: int, what: str, say: Callable[[str], None]) -> None:
        self._total, self._what, self._say = total, what, say
        self._done = 0
        self._began = self._shown = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> Progress:
        with contextlib.suppress(*_DISPLAY_FAILURES):
            if sys.stdout.isatty():
                self._bar = _rich_bar(self._what, self._total)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._draw()
            with contextlib.suppress(*_DISPLAY_FAILURES):
                self._bar.stop()

    def advance(self, count: int = 1) -> None:
        self._done += count
        now = time.monotonic()
        if now - self._shown < (_LINE_EVERY_S if self._bar is None else _BAR_EVERY_S):
            return
        self._shown = now
        if self._bar is None:
            left = (now - self._began) * (self._total - self._done) / self._done
            self._say(f"{self._what}: {self._done:,} of {self._total:,}, about {left:,.0f} s left")
        else:
            self._draw()

    def _draw(self) -> None:
        with contextlib.suppress(*_DISPLAY_FAILURES):
            self._bar.update(self._bar.task_ids[0], completed=self._done, refresh=True)


def _rich_bar(what: str, total: int) -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Without auto_refresh all drawing happens in ``advance``, where a closed terminal is caught.
    bar = Bar(*columns, auto_refresh=False)
    bar.add_task(one_line(what), total=total)
    bar.start()
    return bar
