"""Requests to stop while no guard listens yet: libraries are loading, images are being decoded, the run is read back.

Nothing is lost then, so nothing is saved: the process says so and ends with 128 + signal. Needs no torch.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from ganguard.errors import EXIT_SIGNAL_BASE
from ganguard.reports import console

USR1: int | None = getattr(signal, "SIGUSR1", None)  # what a cluster warns with; Windows has none
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK", "SIGUSR1")
STOPPING = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))
_PATIENCE_S = 3.0
_Handler = Callable[[int, FrameType | None], None]


class LeftEarly(KeyboardInterrupt):
    """Asked to stop before the training began, by the signal ``number``."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class _Early:
    """What this process was asked before a guard listened."""

    def __init__(self) -> None:
        self.warned = False  # SIGUSR1 came before it was known what it should do
        self._told = False
        self._saving: frozenset[int] = frozenset()
        self._guarded = False
        self._number: int | None = None
        self._asked, self._over = threading.Event(), threading.Event()

    def tell(self) -> None:
        """Say once that nothing began."""
        if not self._told:
            self._told = True
            console.say("Stopped before anything began; nothing was changed.", stream=sys.stderr)

    def leave_at_once(self, number: int, _frame: FrameType | None) -> None:
        if number == USR1:
            self.warned = True
            return
        self._exit(number)

    def _exit(self, number: int) -> None:
        self.tell()
        os._exit(EXIT_SIGNAL_BASE + number)

    def begin(self, saving: frozenset[int]) -> None:
        self._saving, self._guarded, self._number, self._told = saving, False, None, False
        self._asked, self._over = threading.Event(), threading.Event()
        threading.Thread(
            target=self._lose_patience, args=(self._asked, self._over), daemon=True, name="ganguard-early"
        ).start()
        if self.warned and USR1 is not None:
            self.warned = False
            self.leave(USR1, None)

    def guarded(self) -> None:
        self._guarded = True

    def end(self) -> None:
        self._over.set()
        self._asked.set()

    def leave(self, number: int, _frame: FrameType | None) -> None:
        """Break off what is being done; asked again, leave on the spot."""
        if self._guarded or number in self._saving:
            return
        if self._number is not None:
            self._exit(number)
        self._number = number
        self._asked.set()
        raise LeftEarly(number)

    def _lose_patience(self, asked: threading.Event, over: threading.Event) -> None:
        """What reads images from a drive that is gone would keep the process for ever."""
        asked.wait()
        if not over.wait(_PATIENCE_S):
            self._exit(self._number or signal.SIGINT)


_early = _Early()
tell = _early.tell


def is_free(number: int) -> bool:
    """Whether a signal may be listened to: not one that nohup or a script's background job ignores on purpose, nor a
    SIGUSR1 that somebody else handles."""
    now = signal.getsignal(number)
    ours = getattr(now, "__self__", None) is _early
    return ours or (now is signal.SIG_DFL if number == USR1 else now is not signal.SIG_IGN)


@contextlib.contextmanager
def _heard_by(handler: _Handler) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, handler) for number in STOPPING if is_free(number)}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, signal.SIG_DFL if before is None else before)  # None: it was not Python's


def loading() -> contextlib.AbstractContextManager[None]:
    """Within, while libraries are loaded, a stop ends the process on the spot.

    An exception in the middle of loading torch may abort the process or leave half-made modules. What SIGUSR1 is to do
    is not known here: ``preparing`` acts on it.
    """
    return _heard_by(_early.leave_at_once)


def _ignore() -> None:
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def preparing(saving: frozenset[int]) -> Iterator[Callable[[], None]]:
    """Within, a stop raises ``LeftEarly``; gives what is to be called once a guard listens.

    After that call a signal that the guard did not hear comes too late to mean anything, and is ignored; so are those
    that come while the interpreter shuts down, which would change the exit code of what is done.

    Args:
        saving: signals that ask for a save only; there is nothing to save.
    """
    with _heard_by(_early.leave):
        try:
            _early.begin(saving)
            atexit.unregister(_ignore)  # to be the first at exit it is the last to register
            atexit.register(_ignore)
            yield _early.guarded
        finally:
            _early.end()
