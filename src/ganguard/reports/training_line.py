"""How a training is going: a bar on a terminal, plain lines elsewhere. Showing it never fails the training."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from ganguard.clock import Stopwatch
from ganguard.printable import one_line
from ganguard.reports import console

_BAR_EVERY_S = 0.5
_LINE_EVERY_S = 30.0
_DISPLAY_FAILURES = (Exception, SystemExit)  # rich exits the process where a pipe is closed


class TrainingLine:
    """Use with ``with``; lines printed through ``say`` stand above the bar."""

    def __init__(self, images_an_epoch: int, epochs: int) -> None:
        self._images_an_epoch = images_an_epoch
        self._epochs = epochs
        self._watch = Stopwatch()
        self._shown = 0.0  # seconds of the watch
        self._seen = 0  # images since the start of this process
        self._bar: Any = None
        self.encoding = getattr(sys.stdout, "encoding", None)
        """What the terminal shows. The bar puts something in standard output's place that does not tell."""

    def __enter__(self) -> Self:
        with contextlib.suppress(*_DISPLAY_FAILURES):
            if sys.stdout.isatty():
                self._bar = _bar(self._images_an_epoch)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            with contextlib.suppress(*_DISPLAY_FAILURES):
                self._bar.update(self._bar.task_ids[0], visible=False, refresh=True)  # it would show what was
                self._bar.stop()
            self._bar = None

    def say(self, text: str) -> None:
        """Print a line of its own."""
        if self._bar is None:
            console.say(text)
            return
        with contextlib.suppress(*_DISPLAY_FAILURES):
            self._bar.console.print(one_line(text), markup=False, highlight=False, soft_wrap=True)

    def advance(self, images: int) -> bool:
        """Count images; returns whether it is time for ``show``, whose numbers may have to wait for the device."""
        self._seen += images
        every = _LINE_EVERY_S if self._bar is None else _BAR_EVERY_S
        return self._watch.seconds - self._shown >= every

    def show(self, *, epoch: int, done: int, losses: Mapping[str, Any], saved_s_ago: float | None) -> None:
        """Draw: ``done`` images of epoch ``epoch`` (from 1), the latest losses, when it was last saved."""
        self._shown = self._watch.seconds
        rate = self.images_per_second
        left = (self._epochs - epoch) * self._images_an_epoch + self._images_an_epoch - done
        text = "  ".join(
            [
                f"epoch {epoch}/{self._epochs}",
                *(f"{name} {float(value):.3f}" for name, value in losses.items()),
                f"{rate:.0f} images/s",
                f"{console.duration(left / rate) if rate else '?'} left",
                "not saved yet" if saved_s_ago is None else f"saved {console.duration(saved_s_ago)} ago",
            ]
        )
        if self._bar is None:
            console.say(f"{text}  ({done:,} of {self._images_an_epoch:,})")
            return
        with contextlib.suppress(*_DISPLAY_FAILURES):
            self._bar.update(self._bar.task_ids[0], completed=done, description=text, refresh=True)

    @property
    def images_per_second(self) -> float:
        return self._seen / self._watch.seconds


def _bar(total: int) -> Any:
    from rich.progress import BarColumn, Progress, TextColumn

    # Without auto_refresh all drawing happens in the training's own thread, where a closed terminal is caught.
    bar = Progress(TextColumn("{task.description}", markup=False), BarColumn(bar_width=20), auto_refresh=False)
    bar.add_task("", total=total)
    bar.start()
    return bar
