"""What operating systems do differently, for tests: removing, stopping, killing, and who can promise what."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import pytest

WINDOWS = sys.platform == "win32"
WINE = WINDOWS and hasattr(ctypes.WinDLL("ntdll"), "wine_get_version")
# Ctrl+C as one process can send it to another: Windows sends Ctrl+C to every process of a console, Ctrl+Break to one.
STOP = signal.SIGBREAK if WINDOWS else signal.SIGINT
TERMINATE = STOP if WINDOWS else signal.SIGTERM  # what a scheduler or an operating system sends
KILLED = 1 if WINDOWS else -signal.SIGKILL  # the exit code after ``Popen.kill``
# For ``subprocess``: the first process of a group of its own, which can be sent ``STOP``.
OWN_GROUP = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP} if WINDOWS else {"start_new_session": True}
# An expression by which a script, with os and signal imported, ends as in a power cut, and the exit code.
DIE = "os.kill(os.getpid(), getattr(signal, 'SIGKILL', 9))"
DIED = 9 if WINDOWS else -signal.SIGKILL


def needs_posix(why: str) -> pytest.MarkDecorator:
    """The promise is for systems that have this."""
    return pytest.mark.skipif(WINDOWS, reason=f"not on Windows: {why}")


def not_under_wine(why: str) -> pytest.MarkDecorator:
    """Windows keeps the promise; Wine itself fails here, without ganguard too."""
    return pytest.mark.skipif(WINE, reason=f"not under Wine: {why}")


needs_fork = needs_posix("forked processes")
needs_mounts = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="mounting a small file system needs root on Linux"
)


def is_root() -> bool:
    """Whether permissions do not bind this process."""
    return not WINDOWS and os.geteuid() == 0


@cache
def makes_links() -> bool:
    """Windows wants a privilege for symbolic links, and Wine makes none."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            Path(folder, "link").symlink_to("nowhere")
        except OSError:
            return False
        return Path(folder, "link").is_symlink()


needs_links = pytest.mark.skipif(not makes_links(), reason="no symbolic links can be made here")


def send(pid: int, number: int) -> None:
    """Send a signal to another process."""
    os.kill(pid, signal.CTRL_BREAK_EVENT if WINDOWS and number == STOP else number)


def remove(path: Path, *, missing_ok: bool = False) -> None:
    """Remove a file that may be read-only, which Windows refuses."""
    if WINDOWS and path.exists():
        path.chmod(0o666)
    path.unlink(missing_ok=missing_ok)


def remove_tree(folder: Path) -> None:
    """Remove a folder with everything in it, read-only files too. There need not be one."""
    for path in folder.rglob("*") if WINDOWS else ():
        path.chmod(0o666)
    if folder.exists():
        shutil.rmtree(folder)
