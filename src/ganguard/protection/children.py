"""When it is heard that a child process ended.

torch raises from its SIGCHLD handler where a data worker died, wherever the main thread is: in the middle of a step,
whose training could not be saved any more, or in the middle of a save.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

_Handler = Callable[[int, FrameType | None], object]

# Lists, since signal handlers change them too: append and pop are never interrupted.
_reasons: list[None] = []
_missed: list[_Handler] = []


class _Muted:
    """Stands in for a handler of SIGCHLD while there is a reason."""

    def __init__(self, inner: _Handler) -> None:
        self.inner = inner

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        _missed[:] = [self.inner]


if sys.platform == "win32":

    @contextlib.contextmanager
    def unheard() -> Iterator[None]:
        """Windows tells of no child's end; torch looks at its workers now and then."""
        yield

    def hear() -> None:
        """Nothing was missed."""

else:

    @contextlib.contextmanager
    def unheard() -> Iterator[None]:
        """Within, no handler of SIGCHLD is called; ``hear`` makes up for it."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        _reasons.append(None)
        try:
            handler = signal.getsignal(signal.SIGCHLD)
            if callable(handler) and not isinstance(handler, _Muted):
                signal.signal(signal.SIGCHLD, _Muted(handler))
            yield
        finally:
            _reasons.pop()
            handler = signal.getsignal(signal.SIGCHLD)
            if not _reasons and isinstance(handler, _Muted):
                signal.signal(signal.SIGCHLD, handler.inner)

    def hear() -> None:
        """Call the handler now where a child ended unheard, unless there is still a reason not to.

        Raises:
            RuntimeError: torch's, where the child was a data worker that failed.
        """
        while _missed and not _reasons:
            _missed.pop()(signal.SIGCHLD, None)
