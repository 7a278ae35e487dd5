"""What every command does around its work: errors become one message and an exit code, output never fails it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable

from ganguard.errors import EXIT_SIGNAL_BASE, EXIT_USAGE, GanguardError
from ganguard.protection import early
from ganguard.reports import console
from ganguard.store.durable import why


def run(work: Callable[[], int | None]) -> int:
    """Do ``work`` and return the exit code; whatever goes wrong is said in words."""
    try:
        return work() or 0
    except GanguardError as error:
        console.say(f"{error}", stream=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as interrupt:
        early.tell()
        return EXIT_SIGNAL_BASE + (interrupt.number if isinstance(interrupt, early.LeftEarly) else signal.SIGINT)
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        console.say(f"{name}{why(error)}. Nothing was lost; mend that and type the same command.", stream=sys.stderr)
        return EXIT_USAGE
    finally:
        with contextlib.suppress(ValueError):  # not in the main thread
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done: a late Ctrl+C would only garble the end
        for stream in (sys.stdout, sys.stderr):
            flush(stream)


def quick_exit() -> contextlib.AbstractContextManager[None]:
    """Within, while libraries are loaded and nothing has begun, a request to stop ends the process on the spot."""
    return early.loading()


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
    from ganguard.errors import UsageError

    count = os.environ.get("WORLD_SIZE", "1")
    if count != "1":
        raise UsageError(
            f"torchrun started {count} processes; ganguard trains in one process so far. "
            "Start it with python gan.py, or torchrun --nproc-per-node 1."
        )
