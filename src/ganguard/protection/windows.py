"""What a console does to processes on Windows: Ctrl+C reaches all of them, and a closed window ends them.

Everywhere else there are signals for it, and nothing is to be done.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator

if sys.platform == "win32":
    import _winapi
    import ctypes
    import signal
    import socket
    from multiprocessing import popen_spawn_win32
    from typing import Any

    _spawning: Any = popen_spawn_win32
    _create_process: Any = _winapi.CreateProcess

    _NEW_GROUP = 0x200  # CREATE_NEW_PROCESS_GROUP
    _CLOSED, _LOGOFF, _SHUTDOWN = 2, 5, 6
    _Routine = ctypes.WINFUNCTYPE(ctypes.c_int, ctypes.c_uint)

    class _DeafChildren:
        """multiprocessing's _winapi, whose processes are born into a group of their own: Ctrl+C is off in it."""

        def __getattr__(self, name: str) -> Any:
            return getattr(_winapi, name)

        def CreateProcess(self, *words: Any) -> Any:
            return _create_process(*words[:5], words[5] | _NEW_GROUP, *words[6:])

    @contextlib.contextmanager
    def born_deaf() -> Iterator[None]:
        """Processes that multiprocessing starts within never hear Ctrl+C; this one goes on hearing it."""
        _spawning._winapi = _DeafChildren()
        try:
            yield
        finally:
            _spawning._winapi = _winapi

    _listening = threading.Event()

    def _console_event(event: int) -> int:
        """Called in a thread of its own; Windows ends the process as soon as this returns, or after five seconds."""
        if event not in (_CLOSED, _LOGOFF, _SHUTDOWN) or not _listening.is_set():
            return False
        signal.raise_signal(signal.SIGINT)  # of all signals the only one that wakes a main thread that waits
        threading.Event().wait()  # the process ends by itself once it has saved
        return True

    _routine = _Routine(_console_event)  # kept: Windows calls it as long as the process lives

    def closed_window_stops() -> None:
        """From now on a closed console window, a log-off and a shutdown are Ctrl+C, and wait for the process."""
        set_routine = ctypes.windll.kernel32.SetConsoleCtrlHandler
        set_routine(_routine, False)
        set_routine(_routine, True)  # the newest is asked first: those of libraries end the process
        _listening.set()

    def closed_window_ends() -> None:
        """The opposite: nothing is at risk any more."""
        _listening.clear()

    def write_wakeup(descriptor: int, numbers: bytes) -> None:
        """Write to what ``signal.set_wakeup_fd`` was given: an event loop gives a socket, which is no file here.

        Raises:
            OSError
        """
        try:
            wakeup = socket.socket(fileno=descriptor)
        except OSError:
            os.write(descriptor, numbers)
            return
        try:
            wakeup.send(numbers)
        finally:
            wakeup.detach()

else:

    @contextlib.contextmanager
    def born_deaf() -> Iterator[None]:
        yield

    def closed_window_stops() -> None:
        pass

    def closed_window_ends() -> None:
        pass

    def write_wakeup(descriptor: int, numbers: bytes) -> None:
        os.write(descriptor, numbers)
