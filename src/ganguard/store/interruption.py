"""Long work on files lets itself be broken off: whoever began it is asked, in between, whether it is to go on.

Copies, digests and waits for a lock call ``ask``; what ``asking`` names then may raise.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from contextvars import ContextVar

_asked: ContextVar[Callable[[], None] | None] = ContextVar("asked", default=None)


@contextlib.contextmanager
def asking(asked: Callable[[], None]) -> Iterator[None]:
    """Within, in this thread, ``asked`` is called by every piece of long work."""
    token = _asked.set(asked)
    try:
        yield
    finally:
        _asked.reset(token)


def ask() -> None:
    """To be called every few megabytes, and while waiting. Raises what ``asking`` was given raises."""
    if (asked := _asked.get()) is not None:
        asked()


def undisturbed() -> AbstractContextManager[None]:
    """Within, nobody is asked: for what is short, and must not be left half done."""
    return asking(lambda: None)
