"""Data workers that a signal to the whole process group leaves alone, and that never keep a process from ending.

Whatever fails in one reaches the training, as ``WorkerFailed`` in words.
"""

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
from typing import Any, NoReturn, Self

from torch.utils.data import DataLoader, get_worker_info

from ganguard.protection import children, handover, windows, worker_failures
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
        _unblock()
        sys.excepthook = _report_unless_broken_off
        with handover.failing_in_words():
            handover.keep_spare_descriptors()
            info = get_worker_info()
            if info is not None:  # a frozen record, whose data set should be the user's own, as their code expects
                object.__setattr__(info, "dataset", getattr(info.dataset, "users_own", info.dataset))
            if self._inner is not None:
                self._inner(worker)


def options(loader: DataLoader[Any]) -> dict[str, Any]:
    """What makes another loader's workers those of ``loader``, watched: all but data set, order and generator."""
    return {
        "num_workers": loader.num_workers,
        "collate_fn": handover.Handed(loader.collate_fn),
        "pin_memory": loader.pin_memory,
        "timeout": loader.timeout,
        "worker_init_fn": WorkerInit(loader.worker_init_fn),
        "multiprocessing_context": loader.multiprocessing_context,
        "prefetch_factor": loader.prefetch_factor,
        "persistent_workers": loader.persistent_workers,
    }


def watched(loader: DataLoader[Any]) -> WatchedLoader:
    """A loader like this one over an iterable data set, whose workers are watched."""
    again = {"batch_size": loader.batch_size, "drop_last": loader.drop_last, "generator": loader.generator}
    return WatchedLoader(DataLoader(handover.Stream(loader.dataset), **again, **options(loader)))


def _report_unless_broken_off(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """A training that is stopped while a tensor is handed over hangs up; multiprocessing's thread would report that."""
    if not issubclass(kind, ConnectionError | EOFError) or threading.current_thread() is threading.main_thread():
        sys.__excepthook__(kind, error, traceback)


class WatchedLoader:
    """A DataLoader that is gone through once or more often.

    Args:
        loader: with ``handover.Handed`` and ``WorkerInit`` around the user's own functions.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        self._loader = loader
        self._iterator: Iterator[Any] | None = None
        self._processes: list[BaseProcess] = []
        # Python joins its children without a limit at exit; one that hangs in an item would trap the user.
        atexit.register(self.close)

    @property
    def in_this_process(self) -> bool:
        """Whether items are drawn here and not by workers."""
        return self._loader.num_workers == 0

    def __iter__(self) -> Self:
        """Begin anew: start the workers, or wake those that persist.

        Raises:
            WorkerFailed
        """
        if not self._loader.persistent_workers:
            self._iterator = None  # an epoch that was left early still has its workers
        if self.in_this_process:
            self._iterator = iter(self._loader)
            return self
        before = set(multiprocessing.active_children())
        try:
            children.hear()
            with _inherited_deafness():
                self._iterator = iter(self._loader)
        except Exception as error:
            self._raise_in_words(error)
        finally:
            self._processes = [p for p in self._processes if p.is_alive()]
            self._processes += [p for p in multiprocessing.active_children() if p not in before]
        return self

    def __next__(self) -> Any:
        """The next batch.

        Raises:
            StopIteration: there is none.
            WorkerFailed
        """
        assert self._iterator is not None  # ``iter`` comes first
        if self.in_this_process:
            return next(self._iterator)
        try:
            children.hear()
            return next(self._iterator)
        except StopIteration:
            raise
        except Exception as error:
            self._raise_in_words(error)

    def _raise_in_words(self, error: Exception) -> NoReturn:
        with children.unheard():
            explained = worker_failures.explained(error, self._processes)
        if explained is error:
            raise error
        raise explained from error

    def close(self) -> None:
        """Let torch's iterator shut its workers down; those that have not left after a moment are ended."""
        iterator, self._iterator = self._iterator, None
        hanging = threading.Timer(_PATIENCE_S, self._kill)
        hanging.daemon = True
        hanging.start()
        # torch raises from its handler where a worker dies, and the one that hangs is about to.
        with children.unheard():
            shut_down = getattr(iterator, "_shutdown_workers", None)  # private to torch; its deletion may come too late
            if shut_down is not None:
                shut_down()
            for process in self._processes:
                process.join(2 * _PATIENCE_S)
        hanging.cancel()
        self._processes = []
        atexit.unregister(self.close)

    def _kill(self) -> None:
        for process in self._processes:
            with contextlib.suppress(OSError, ValueError):  # it ended meanwhile
                process.kill()


if sys.platform == "win32":

    def _unblock() -> None:
        """Windows has no signal mask."""

    _inherited_deafness = windows.born_deaf

else:

    def _unblock() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)

    @contextlib.contextmanager
    def _inherited_deafness() -> Iterator[None]:
        """Processes started within hear no signal that stops until they unblock them; here such a signal waits."""
        _start_resource_tracker()  # starting it unblocks signals, so that must not happen within
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_resource_tracker() -> None:
    from multiprocessing import resource_tracker

    ensure: Any = resource_tracker.ensure_running
    ensure()
