"""How a batch, or what failed, gets from a data worker to the training: never dropped.

multiprocessing's queue pickles in a thread of its own, which prints what fails (no shared memory left, no descriptor,
an object or exception that cannot be pickled) and goes on without: the training would wait for that batch for ever. So
here the worker's main thread pickles, and torch carries what it raises to the training.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.reduction import ForkingPickler
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

_END = object()
_SPARE = 16
# Descriptors that a worker gives up where it fails: the batches before are handed over by some, and were wanted first.
_spare: list[int] = []


class FailedInWorker(Exception):
    """Stands for what was raised in a worker: some exceptions cannot be pickled, StopIteration would end an epoch.

    Its text is what failed, then the original's traceback.
    """


class Handed:
    """A collate function; in a worker its batches leave as bytes, which become the batch where they are read."""

    def __init__(self, collate: Callable[[Any], Any]) -> None:
        self._collate = collate

    def __call__(self, items: Any) -> Any:
        if get_worker_info() is None:
            return self._collate(items)
        with failing_in_words():
            handed = _Pickled(bytes(ForkingPickler.dumps(self._collate(items))))
            for descriptor in _spare[:1]:
                os.close(os.dup(descriptor))  # handing over takes one more
        return handed


class Stream(IterableDataset[Any]):
    """An iterable data set that fails in words."""

    def __init__(self, dataset: Any) -> None:
        self.users_own = dataset

    def __iter__(self) -> Iterator[Any]:
        with failing_in_words():
            items = iter(self.users_own)
        while True:
            with failing_in_words():
                item = next(items, _END)
            if item is _END:
                return
            yield item


class _Pickled:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def __reduce__(self) -> tuple[Any, ...]:
        return pickle.loads, (self._data,)


def keep_spare_descriptors() -> None:
    """Call once in a worker."""
    for _ in range(_SPARE):
        _spare.append(os.open(os.devnull, os.O_RDONLY))


@contextlib.contextmanager
def failing_in_words() -> Iterator[None]:
    """Within, in a worker, an exception becomes ``FailedInWorker``; in the training itself only StopIteration does."""
    try:
        yield
    except FailedInWorker:
        raise
    except Exception as error:
        if get_worker_info() is None and not isinstance(error, StopIteration):
            raise
        while _spare:
            os.close(_spare.pop())
        what = traceback.format_exception_only(error)[-1]  # the first line, by which the training tells it
        raise FailedInWorker("".join([what, *traceback.format_exception(error)]).rstrip()) from None
