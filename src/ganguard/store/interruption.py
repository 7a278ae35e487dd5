"""Long work on files lets itself be broken off: whoever began it is asked, in between, whether it is to go on.

Copies, digests and waits for a lock call ``ask``; what ``asking`` names then may raise, or do something more urgent.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
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
