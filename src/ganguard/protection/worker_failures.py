"""What failed in a data worker, in words, and what to do."""

from __future__ import annotations

import errno
import shutil
import signal
import sys
import time
from collections.abc import Iterable
from multiprocessing.process import BaseProcess
from pathlib import Path
from pickle import PicklingError

from ganguard.errors import WorkerFailed
from ganguard.protection.handover import FailedInWorker
from ganguard.reports.console import size

_SHARED_MEMORY = Path("/dev/shm")
_OF_SHARED_MEMORY = ("shared memory", "Bus error", "shm_open", "sem_open", "<torch_")
_OF_DESCRIPTORS = ("Too many open files", "ancdata")
_TORCHS_WORDS = ("DataLoader timed out", "Pin memory thread", "pickle")
_WITHOUT = "train without workers: --workers 0, in a loop of your own num_workers=0"
_BUS_ERROR = -getattr(signal, "SIGBUS", 999)  # as an exit code
_LONGEST = 300
_PATIENCE_S = 5.0


def explained(error: Exception, workers: Iterable[BaseProcess]) -> Exception:
    """``WorkerFailed`` where a worker did; ``error`` itself where not: a sampler's, say.

    Args:
        error: what came of starting ``workers``, or of waiting for them.
    """
    workers = list(workers)
    lost = isinstance(error, ConnectionError | EOFError | FileNotFoundError) and not getattr(error, "filename", None)
    codes = _exit_codes(workers, within_s=_PATIENCE_S if lost else 0)  # what handed over is gone, the worker soon
    number = error.errno if isinstance(error, OSError) else None
    text = _what_failed(error)
    if number == errno.EMFILE or any(words in text for words in _OF_DESCRIPTORS):
        return WorkerFailed(
            f"Data workers have no file descriptor left{_limit()}. Raise that (ulimit -n 65536), call "
            f"torch.multiprocessing.set_sharing_strategy('file_system'), or {_WITHOUT}."
        )
    if number == errno.ENOSPC or _BUS_ERROR in codes or any(w in text for w in _OF_SHARED_MEMORY):
        return WorkerFailed(f"{_room()} Make it larger (docker run --shm-size=8g, or --ipc=host), or {_WITHOUT}.")
    if isinstance(error, FailedInWorker):
        return WorkerFailed(f"A data worker failed: {_in_one_line(text)}. To see where, {_WITHOUT}.")
    if codes or "exited unexpectedly" in text:
        return WorkerFailed(f"A data worker {_end(min(codes, default=0))}; use fewer workers, or {_WITHOUT}.")
    if lost or isinstance(error, PicklingError) or any(words in text for words in _TORCHS_WORDS):
        return WorkerFailed(f"Data workers failed: {type(error).__name__}: {_in_one_line(text)}. To go on, {_WITHOUT}.")
    return error


def _what_failed(error: Exception) -> str:
    """Without the traceback that comes along from a worker."""
    if not isinstance(error, FailedInWorker):
        return f"{error}"
    return f"{error}".rpartition("FailedInWorker: ")[2].partition("\nTraceback (most recent call last):")[0]


def _exit_codes(workers: list[BaseProcess], within_s: float) -> list[int]:
    """Of those that ended; waits for one."""
    deadline = time.monotonic() + within_s
    while not (codes := [worker.exitcode for worker in workers if worker.exitcode is not None]):
        if time.monotonic() >= deadline:
            break
        time.sleep(0.02)
    return codes


def _room() -> str:
    what = "Data workers have run out of shared memory"
    try:
        room = shutil.disk_usage(_SHARED_MEMORY)
    except OSError:
        return f"{what}."
    return f"{what}: {_SHARED_MEMORY} holds {size(room.total)}, of which {size(room.free)} are free."


def _limit() -> str:
    if sys.platform == "win32":
        return ""
    import resource

    return f" (at most {resource.getrlimit(resource.RLIMIT_NOFILE)[0]})"


def _end(code: int) -> str:
    if code >= 0:
        return f"ended by itself (exit code {code})"
    if code == -getattr(signal, "SIGKILL", 0):
        return "was ended by SIGKILL, as systems do that run out of memory"
    return f"was ended by {signal.Signals(-code).name}"


def _in_one_line(text: str) -> str:
    line = " ".join(text.split()).rstrip(".")
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"
