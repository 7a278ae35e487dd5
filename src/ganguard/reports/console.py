"""Lines for the person at the terminal. Printing never fails a run: not under cp1252, not with the terminal closed."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
from typing import TextIO

# Options that would undo what the run has done since; they are not part of the command that goes on.
_ONE_TIME = {"--no-checkpoint", "--branch"}


def say(text: str = "", *, stream: TextIO | None = None) -> None:
    """Print one line."""
    stream = stream or sys.stdout
    if stream is None:  # pythonw has none
        return
    try:
        print(text, file=stream, flush=True)
    except UnicodeEncodeError:
        encoding = stream.encoding or "ascii"
        with contextlib.suppress(OSError, ValueError):
            print(text.encode(encoding, "replace").decode(encoding), file=stream, flush=True)
    except (OSError, ValueError):
        mute(stream)


def mute(stream: TextIO) -> None:
    """Let what is still to be printed go nowhere: Python would end with an error of its own when it flushes at exit."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def command_to_go_on() -> str:
    """What to type to go on: this process's command without the options that start over."""
    if command := os.environ.get("GANGUARD_COMMAND"):
        return command
    words = [word for word in (sys.orig_argv or sys.argv) if word not in _ONE_TIME]
    return subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)


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
