"""What every command does around its work: errors become one message and an exit code, output never fails it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable

from ganguard.errors import EXIT_SIGNAL_BASE, EXIT_USAGE, GanguardError
from ganguard.reports import console
from ganguard.store.durable import why

_SIGINT = 2


def run(work: Callable[[], int | None]) -> int:
    """Do ``work`` and return the exit code; whatever goes wrong is said in words."""
    try:
        return work() or 0
    except GanguardError as error:
        console.say(f"{error}", stream=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        console.say("Stopped before training began; nothing was changed.", stream=sys.stderr)
        return EXIT_SIGNAL_BASE + _SIGINT
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        console.say(f"{name}{why(error)}. Nothing was lost; mend that and type the same command.", stream=sys.stderr)
        return EXIT_USAGE
    finally:
        for stream in (sys.stdout, sys.stderr):
            flush(stream)


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
    import os

    from ganguard.errors import UsageError

    count = os.environ.get("WORLD_SIZE", "1")
    if count != "1":
        raise UsageError(
            f"torchrun started {count} processes; ganguard trains in one process so far. "
            "Start it with python gan.py, or torchrun --nproc-per-node 1."
        )
