"""Data workers that a signal to the whole process group leaves alone, and that never keep a process from ending."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any

from torch.utils.data import get_worker_info

from ganguard.protection.early import STOPPING
from ganguard.protection.early import USR1 as USR1

_PATIENCE_S = 1.0


class WorkerInit:
    """First call in a worker: ignore what asks the training to stop, then what the user wants done."""

    def __init__(self, inner: Callable[[int], None] | None) -> None:
        self._inner = inner

    def __call__(self, worker: int) -> None:
        for number in STOPPING:
            signal.signal(number, signal.SIG_IGN)
        _set_blocked(blocked=False)
        sys.excepthook = _report_unless_broken_off
        info = get_worker_info()
        if info is not None:  # a frozen record, whose data set should be the user's own, as their code expects
            object.__setattr__(info, "dataset", getattr(info.dataset, "dataset", info.dataset))
        if self._inner is not None:
            self._inner(worker)


def _report_unless_broken_off(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """A training that is stopped while a tensor is handed over hangs up; multiprocessing's thread would report that."""
    if not issubclass(kind, ConnectionError | EOFError) or threading.current_thread() is threading.main_thread():
        sys.__excepthook__(kind, error, traceback)


class Workers:
    """The processes of one loader."""

    def __init__(self) -> None:
        self._processes: list[BaseProcess] = []
        # Python joins its children without a limit at exit; one that hangs in an item would trap the user.
        atexit.register(self.end)

    @contextlib.contextmanager
    def being_born(self) -> Iterator[None]:
        """Processes started within ignore the stopping signals from their first instruction on."""
        before = set(multiprocessing.active_children())
        with _inherited_deafness():
            yield
        self._processes = [p for p in self._processes if p.is_alive()]
        self._processes += [p for p in multiprocessing.active_children() if p not in before]

    def end(self, iterator: Any = None) -> None:
        """Let torch's iterator over them shut down; those that have not left after a moment are ended."""
        hanging = threading.Timer(_PATIENCE_S, self._kill)
        hanging.daemon = True
        hanging.start()
        # torch raises from its handler where a worker dies, and the one that hangs is about to.
        with _children_unheard():
            shut_down = getattr(iterator, "_shutdown_workers", None)  # private to torch; its deletion may come too late
            if shut_down is not None:
                shut_down()
            for process in self._processes:
                process.join(2 * _PATIENCE_S)
        hanging.cancel()
        self._processes = []
        atexit.unregister(self.end)

    def _kill(self) -> None:
        for process in self._processes:
            with contextlib.suppress(OSError, ValueError):  # it ended meanwhile
                process.kill()


@contextlib.contextmanager
def _children_unheard() -> Iterator[None]:
    if not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        if previous is not None:
            signal.signal(signal.SIGCHLD, previous)


if sys.platform == "win32":
    import ctypes

    def _set_blocked(*, blocked: bool) -> None:
        """Windows has no signal mask; children inherit instead that Ctrl+C is ignored."""

    @contextlib.contextmanager
    def _inherited_deafness() -> Iterator[None]:
        set_handler = ctypes.windll.kernel32.SetConsoleCtrlHandler
        set_handler(None, True)
        try:
            yield
        finally:
            set_handler(None, False)

else:

    def _set_blocked(*, blocked: bool) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK if blocked else signal.SIG_UNBLOCK, STOPPING)

    @contextlib.contextmanager
    def _inherited_deafness() -> Iterator[None]:
        _start_resource_tracker()  # starting it unblocks signals, so that must not happen within
        _set_blocked(blocked=True)
        try:
            yield
        finally:
            _set_blocked(blocked=False)


def _start_resource_tracker() -> None:
    from multiprocessing import resource_tracker

    ensure: Any = resource_tracker.ensure_running
    ensure()
