"""One writer: a lock for the life of the training process and no longer.

A POSIX record lock belongs to the process alone: forked data workers do not inherit it (``flock`` they do, which
is why the usual lock libraries do not serve here), and the kernel drops it with the process, however it ends.
Windows' region locks behave alike. The lock's file stays where it is and means nothing by itself.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from ganguard.errors import FolderInUse, SaveFailed
from ganguard.store import interruption, reading
from ganguard.store.durable import why

TRAINING = ".ganguard.lock"
REMOVAL = ".ganguard.removal.lock"
BACKUP = ".ganguard.backup.lock"
LOOK_S = 0.5  # a lock that is only looked at, see ``is_held``, is free again by then
_TAKEN = {errno.EACCES, errno.EAGAIN, errno.EDEADLK}
_UNSUPPORTED = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
_OFFSET = 1 << 30  # beyond the text, so that others can read who holds it under Windows too

# Record locks do not exclude within a process, and closing any descriptor of the file would drop them.
_held: dict[str, Lock] = {}


class Lock:
    """A lock on ``folder``; use with ``with``.

    Args:
        folder: what is locked; must exist.
        name: ``TRAINING``, ``REMOVAL`` or ``BACKUP``, or what a shelf calls them.
        of: what the lock is of, for messages; default the folder.
        wait_s: how long to wait for another holder before giving up.
        warn: told once where the file system cannot lock; the run goes on unprotected.

    Raises:
        FolderInUse: on entering, where another holds it.
        SaveFailed: on entering, where the folder cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        name: str = TRAINING,
        *,
        of: str = "",
        wait_s: float = 0,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        self._path = folder / name
        self._of = of or str(folder)
        self._key = str(self._path.resolve())
        self._wait_s = wait_s
        self._warn = warn
        self._descriptor = -1

    def __enter__(self) -> Lock:
        deadline = time.monotonic() + self._wait_s
        while not self._acquire():
            if time.monotonic() >= deadline:
                raise FolderInUse(self._holder_message())
            interruption.ask()
            time.sleep(0.05)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor < 0:
            return
        with contextlib.suppress(OSError):
            os.close(self._descriptor)
        self._descriptor = -1
        _held.pop(self._key, None)  # only now: closing would drop the lock of another thread that took it since

    def reassert(self) -> None:
        """Take the lock again: anything in this process that opened and closed the lock's file has dropped it.

        Raises:
            FolderInUse: somebody else took it in between.
            SaveFailed: the folder cannot be written, or made where it is gone; the next call tries again.
        """
        if self._is_current():
            try:
                if _DROPPED_BY_CLOSING:
                    _lock_region(self._descriptor)
            except OSError as error:
                if error.errno not in _UNSUPPORTED:
                    raise FolderInUse(self._holder_message(own=False)) from error
            return
        # The folder was removed or replaced, or a drive went and came back: lock what is there now.
        self.__exit__(None, None, None)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SaveFailed(f"{self._path.parent} cannot be made: {why(error)}") from error
        self.__enter__()

    def _is_current(self) -> bool:
        """Whether the file that is locked is still the one at the lock's path."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), self._path.stat())
        except OSError:
            return False

    def _acquire(self) -> bool:
        if _held.setdefault(self._key, self) is not self:
            return False
        try:
            self._descriptor = self._open()
        except OSError as error:
            raise SaveFailed(f"{self._path} cannot be written, so the folder cannot be locked: {why(error)}") from error
        finally:
            if self._descriptor < 0:
                _held.pop(self._key)
        return self._descriptor >= 0

    def _open(self) -> int:
        """The descriptor that holds the lock; -1 where another process has it."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOINHERIT", 0), 0o644)
        try:
            _lock_region(descriptor)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                os.close(descriptor)
                if error.errno in _TAKEN:
                    return -1
                raise
            if self._warn:
                self._warn(f"{self._path.parent} cannot be locked here: do not start a second training in it.")
        self._sign(descriptor)
        return descriptor

    def _sign(self, descriptor: int) -> None:
        """Write down who holds it, for the message of a second one; on a full disk nobody is named."""
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "command": sys.argv, "since": time.time()}
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.write(descriptor, json.dumps(holder).encode())

    def _holder_message(self, *, own: bool = True) -> str:
        # Reading the file would drop the lock of a thread of this process that takes it meanwhile.
        if own and _held.setdefault(self._key, self) is not self:
            return f"{self._of} is in use by this process already. Leave the first guard before entering a second."
        try:
            holder = reading.read_json(self._path)
            since = time.strftime("%Y-%m-%d %H:%M", time.localtime(holder["since"]))
            who = f"process {holder['pid']} on {holder['host']} since {since} ({' '.join(holder['command'])})"
        except (OSError, ValueError, KeyError, TypeError):
            who = "another process"
        finally:
            if own:
                _held.pop(self._key)
        return f"{self._of} is in use by {who}. Stop that one first, or choose another folder."


def is_held(folder: Path, name: str = TRAINING) -> bool:
    """Whether somebody holds a lock, or that cannot be told. It is taken for an instant, as it can be shared."""
    path = folder / name
    if str(path.resolve()) in _held:
        return True
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOINHERIT", 0))
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        _lock_region(descriptor, shared=True)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


if sys.platform == "win32":
    import msvcrt

    _DROPPED_BY_CLOSING = False  # nor may a region be locked twice, even by its holder

    def _lock_region(descriptor: int, *, shared: bool = False) -> None:  # noqa: ARG001  # it knows one kind only
        os.lseek(descriptor, _OFFSET, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    _DROPPED_BY_CLOSING = True

    def _lock_region(descriptor: int, *, shared: bool = False) -> None:
        fcntl.lockf(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB, 1, _OFFSET)
