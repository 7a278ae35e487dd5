"""Lines for the person at the terminal. Printing never fails a run: not under cp1252, not with the terminal closed."""

from __future__ import annotations

import contextlib
import os
import select
import sys
from collections.abc import Iterable
from typing import TextIO

from ganguard import commands
from ganguard.printable import one_line

# Options that would undo what the run has done since; they are not part of the command that goes on.
_ONE_TIME = {"--no-checkpoint", "--no-load-model", "--branch"}
_added: list[str] = []


def say(text: str = "", *, stream: TextIO | None = None) -> None:
    """Print one line, whatever it names: the one place that prints."""
    stream = stream or sys.stdout
    if stream is None:  # pythonw has none
        return
    text = one_line(text)
    try:
        print(text, file=stream, flush=True)
    except UnicodeEncodeError:
        encoding = stream.encoding or "ascii"
        with contextlib.suppress(OSError, ValueError):
            print(text.encode(encoding, "replace").decode(encoding), file=stream, flush=True)
    except (OSError, ValueError):
        mute(stream)


def say_all(lines: Iterable[str], *, stream: TextIO | None = None) -> None:
    """Print lines."""
    for line in lines:
        say(line, stream=stream)


def mute(stream: TextIO) -> None:
    """Let what is still to be printed go nowhere: Python would end with an error of its own when it flushes at exit."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def mute_what_is_closed() -> None:
    """Let standard output and error go nowhere where their terminal or pipe is gone."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # a notebook's, pythonw's
            if _hung_up(stream.fileno()):
                mute(stream)


def _hung_up(descriptor: int) -> bool:
    if sys.platform == "win32":
        return False
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & (select.POLLERR | select.POLLHUP | select.POLLNVAL) for _, event in poll.poll(0))


def how_to_go_on() -> str:
    """A sentence for the end of a run that was stopped."""
    if any("ipykernel" in word for word in sys.orig_argv):
        return "To go on, run the cell again."
    return f"To go on: {command_to_go_on()}"


def command_to_go_on() -> str:
    """What to type to go on: this process's command without the options that start over."""
    if command := os.environ.get("GANGUARD_COMMAND"):  # a Makefile's
        return command
    return commands.typed([*(word for word in _words() if word not in _ONE_TIME), *_added])


def go_on_with(*options: str) -> None:
    """From now on the command that goes on has these added, once each: what else it holds may start over."""
    _added[:] = [option for option in options if option not in _words()]


def command_with(*options: str) -> str:
    """What to type for the very same with ``options``; where one was typed already, the last one counts."""
    return commands.typed([*_words(), *options])


def _words() -> list[str]:
    return sys.orig_argv or sys.argv


def counted(number: int, one: str, many: str = "") -> str:
    """``1 file``, ``2 files``, ``1,000 batches``; ``many`` where the plural is another one, or a verb follows."""
    if number == 1:
        return f"1 {one}"
    return f"{number:,} {many or one + ('es' if one.endswith(('s', 'x', 'sh', 'tch')) else 's')}"


def size(count: float) -> str:
    """Bytes as people read them."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def duration(seconds: float) -> str:
    """Seconds as people read them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    if seconds < 172_800:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86_400:.1f} days"
