"""What every command does around its work: errors become one message and an exit code, output never fails it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ganguard.errors import EXIT_SIGNAL_BASE, EXIT_USAGE, GanguardError, NoCheckpoint, UsageError
from ganguard.protection import early
from ganguard.reports import console
from ganguard.store import resume
from ganguard.store.catalog import Entry
from ganguard.store.durable import why
from ganguard.store.resume import Request
from ganguard.store.shelf import Shelf

_SPINS = "1000"  # of 300,000: docs/measured.md


def run(work: Callable[[], int | None]) -> int:
    """Do ``work`` and return the exit code; whatever goes wrong is said in words."""
    try:
        return work() or 0
    except GanguardError as error:
        console.say_all(error.lines, stream=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as interrupt:
        early.tell()
        return EXIT_SIGNAL_BASE + (interrupt.number if isinstance(interrupt, early.LeftEarly) else signal.SIGINT)
    except OSError as error:  # a training that it ended has said itself what came of it
        name = f"{error.filename}: " if error.filename else ""
        console.say(f"{name}{why(error)}. Mend that and type the same command.", stream=sys.stderr)
        return EXIT_USAGE
    finally:
        with contextlib.suppress(ValueError):  # not in the main thread
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done: a late Ctrl+C would only garble the end
        for stream in (sys.stdout, sys.stderr):
            flush(stream)


@contextlib.contextmanager
def loading_libraries() -> Iterator[None]:
    """Import torch within: a request to stop ends the process on the spot, since nothing has begun.

    torch's threads will spin only shortly while they wait for each other, where the OpenMP library is GNU's (libgomp
    manual, GOMP_SPINCOUNT): where another program has the core of the one that all wait for, spinning is what makes
    a step take several times as long. An OMP_WAIT_POLICY or GOMP_SPINCOUNT of the user's own stands.

    Raises:
        UsageError: a library is not installed.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
    try:
        with early.loading():
            yield
    except ModuleNotFoundError as error:
        raise UsageError(f"{error.name} is missing. Install it with: pip install 'ganguard[trainers]'") from error


def settings_of(
    where: Path | Shelf, request: Request, beside: Callable[[], list[str]]
) -> tuple[Entry | None, dict[str, Any]]:
    """The checkpoint that training will go on from, and its settings: they hold where nothing else was asked for.

    Args:
        beside: lines about the other runs that lie there.

    Raises:
        CheckpointError: as ``resume.settings``; where no file was named, it names the runs that have one.
    """
    try:
        with loading_libraries():  # it takes torch where the settings do not fit into a summary
            return resume.settings(where, request)
    except NoCheckpoint as error:
        if request.file is not None:  # another run's command would name the same file
            raise
        raise NoCheckpoint(*error.lines, *beside()) from error


def flush(stream: object) -> None:
    """Flush now: Python would fail at exit, with a code of its own, where the terminal is closed."""
    try:
        with contextlib.suppress(AttributeError):
            stream.flush()  # type: ignore[attr-defined]  # None under pythonw
    except (OSError, ValueError):
        console.mute(stream)  # type: ignore[arg-type]  # a text stream


def single_process() -> None:
    """Refuse to start under torchrun with several processes: they would all write into one run.

    Raises:
        UsageError
    """
    count = os.environ.get("WORLD_SIZE", "1")
    if count != "1":
        raise UsageError(
            f"torchrun started {count} processes; ganguard trains in one process so far. "
            "Start it with python, or with torchrun --nproc-per-node 1."
        )
