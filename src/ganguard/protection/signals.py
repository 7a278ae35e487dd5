"""Requests to stop: Ctrl+C, SIGTERM, SIGHUP, Ctrl+Break, and a cluster's SIGUSR1, which may ask for a save only.

A request only sets a flag, which the guard honours at the next batch boundary; while it waits for data, the wait is
broken off at once. A thread that reads Python's wakeup descriptor sees every press even while the main thread is
deep inside a long call: it tells what is going on, and lets a person leave who presses three times.
"""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from ganguard.errors import EXIT_NOT_SAVED, EXIT_SIGNAL_BASE
from ganguard.protection import children, early, windows
from ganguard.reports import console

_PRESSED = (signal.SIGINT, getattr(signal, "SIGBREAK", signal.SIGINT))  # keys; Windows' Ctrl+Break is one too
_PRESSES_TO_LEAVE = 3
_WITHIN_S = 2.0
_REMINDER_S = 30.0
_TICK_S = 1.0
_LATE_S = 0.25  # within which a press during a write may be heard only after it
_AGAIN_S = 1.0  # a wait that goes on this long after it was broken off has swallowed that


class Interrupted(BaseException):
    """Breaks off a wait for data. Not an Exception, so that a data set's fallback for broken images lets it pass."""


class StopRequests:
    """Listens from ``listen`` to ``close``.

    Args:
        say: prints a line.
        at_risk: tells in words what leaving now would lose; empty where nothing.
        saving: signals that ask for a save, after which training goes on.
    """

    def __init__(
        self, say: Callable[[str], None], at_risk: Callable[[], str], saving: frozenset[int] = frozenset()
    ) -> None:
        self._say = say
        self._at_risk = at_risk
        self._saving = saving
        self.requested: int | None = None
        self.heard = 0  # how often a stop was asked for
        self.save_requested = False
        self._requested_at = 0.0
        self._waiting = False
        self._broken_off_at = -_AGAIN_S
        self._writing: Callable[[], str] | None = None
        self._wrote_at = -_WITHIN_S
        self._decision = threading.Lock()  # a write begins, or the process is left: never both
        self._presses: list[float] = []
        self._previous: dict[int, Any] = {}
        self._previous_wakeup = -1
        self._entered = contextlib.ExitStack()
        self._on_the_way_out = contextlib.ExitStack()

    def listen(self) -> list[str]:
        """Start listening; returns what cannot be caught, in words.

        Raises:
            OSError: there is no descriptor or thread for it. Nothing is changed then.
        """
        if threading.current_thread() is not threading.main_thread():
            return ["Ctrl+C and signals: they can only be caught in the main thread"]
        with contextlib.ExitStack() as undo:
            ours, theirs = socket.socketpair()
            undo.callback(theirs.close)  # the watcher sees the end of the stream
            ours.settimeout(_TICK_S)
            theirs.setblocking(False)
            watcher = threading.Thread(target=self._watch, args=(ours,), daemon=True, name="ganguard-signals")
            try:
                watcher.start()
            except RuntimeError as error:  # there are too many
                ours.close()
                raise OSError(errno.EAGAIN, f"{error}") from error
            self._previous_wakeup = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
            undo.callback(signal.set_wakeup_fd, self._previous_wakeup)
            undo.callback(self._on_the_way_out.close)
            for number in filter(early.is_free, early.STOPPING):
                self._previous[number] = signal.signal(number, self._on_signal)
                undo.callback(_put_back, number, self._previous[number])
            windows.closed_window_stops()
            undo.callback(windows.closed_window_ends)
            _listening.add(self)
            undo.callback(_listening.discard, self)
            self._entered = undo.pop_all()
        return []

    def close(self) -> None:
        """Put handlers back, so that a notebook's cell can be run again."""
        self._entered.close()
        self._previous = {}

    def request(self, number: int) -> None:
        """Ask for a stop as if the signal had come."""
        self.heard += 1
        if self.requested is None:
            self._requested_at = time.monotonic()
            self.requested = number

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Within, a request raises ``Interrupted`` at once."""
        self._waiting = True
        try:
            if self.requested is not None:
                raise Interrupted
            yield
        finally:
            self._waiting = False

    @contextlib.contextmanager
    def writing(self, progress: Callable[[], str]) -> Iterator[None]:
        """Within, three presses do not leave: they only tell ``progress``."""
        with self._decision:
            self._writing = progress
        try:
            with children.unheard():
                yield
        finally:
            with self._decision:
                self._writing = None
                self._wrote_at = time.monotonic()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number in self._saving:
            self.save_requested = True
            return
        if self.requested is None:  # from here on dying workers are nobody's concern
            self._on_the_way_out.enter_context(children.unheard())
        self.request(number)
        if number == getattr(signal, "SIGHUP", None):
            console.mute_what_is_closed()  # a print in the loop would fail before anything is saved
        now = time.monotonic()
        if self._waiting and now - self._broken_off_at >= _AGAIN_S:  # twice at once could land anywhere
            self._broken_off_at = now
            raise Interrupted

    def fall_silent_in_child(self) -> None:
        """A forked child must not count as a press, nor act on Ctrl+C by itself."""
        signal.set_wakeup_fd(-1)
        for number, previous in self._previous.items():
            _put_back(number, signal.SIG_IGN if number == signal.SIGINT else previous)

    def _watch(self, ours: socket.socket) -> None:
        reminded = time.monotonic()
        with ours:
            while True:
                try:
                    numbers = ours.recv(64)
                except TimeoutError:
                    if (
                        self.requested is not None
                        and time.monotonic() - max(reminded, self._requested_at) > _REMINDER_S
                    ):
                        reminded = time.monotonic()
                        self._say(self._reminder())
                    continue
                if not numbers:
                    return
                self._forward(numbers)
                for number in numbers:
                    if number in self._previous:
                        self._react(number)

    def _forward(self, numbers: bytes) -> None:
        """An event loop (a notebook's) may have been listening before us."""
        if self._previous_wakeup >= 0:
            with contextlib.suppress(OSError):
                windows.write_wakeup(self._previous_wakeup, numbers)

    def _react(self, number: int) -> None:
        now = time.monotonic()
        with self._decision:
            writing = self._writing
            just_written = now - self._wrote_at < _LATE_S
            if writing is not None or just_written:
                self._presses = []
            elif number in _PRESSED:
                self._presses = [t for t in self._presses if now - t < _WITHIN_S] + [now]
            if len(self._presses) >= _PRESSES_TO_LEAVE:
                self._leave(number)
        if writing is not None and number not in self._saving:
            self._say(f"Saving: {writing()}. It goes on; the process ends right after it.")
        elif len(self._presses) <= 1 and not just_written:
            name = "Ctrl+C" if number == signal.SIGINT else signal.Signals(number).name
            then = ", and training goes on" if number in self._saving else ""
            self._say(f"{name}: the current batch ends, then everything is saved{then}.")

    def _reminder(self) -> str:
        with self._decision:
            writing = self._writing
        if writing is not None:
            return f"Saving: {writing()}."
        return (
            f"No batch has ended for {time.monotonic() - self._requested_at:.0f} s. Leaving now would lose "
            f"{self._at_risk() or 'nothing'}. To leave all the same, press Ctrl+C three times within two seconds."
        )

    def _leave(self, number: int) -> None:
        code = EXIT_NOT_SAVED if self._at_risk() else EXIT_SIGNAL_BASE + number
        for child in multiprocessing.active_children():
            child.kill()
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stdout.flush()
        os._exit(code)


def _put_back(number: int, previous: Any) -> None:
    signal.signal(number, signal.SIG_DFL if previous is None else previous)  # None: it was not Python's


# Registered once, since it can't be undone: a guard that is over is not kept alive by it.
_listening: weakref.WeakSet[StopRequests] = weakref.WeakSet()


def _fall_silent() -> None:
    for requests in list(_listening):
        requests.fall_silent_in_child()
    _listening.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_fall_silent)
