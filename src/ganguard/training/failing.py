"""Where the system refuses a training something, it ends in one sentence, not in a traceback."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ganguard.errors import TrainingFailed
from ganguard.store.durable import why


@contextlib.contextmanager
def in_words() -> Iterator[None]:
    """Stands around the guard, which has told by then what is on disk.

    Raises:
        TrainingFailed: for an OSError of a step, of its data or of what follows an epoch.
    """
    try:
        yield
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = why(error) if error.errno else lines[-1]  # a worker's holds its traceback
        raise TrainingFailed(f"Training has ended: {name}{reason}. Mend that and type the same command.") from error
