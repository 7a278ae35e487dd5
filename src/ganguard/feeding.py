"""What ``Guard.batches`` draws from: a loader from a position on, exactly where that is possible."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterDataPipe

from ganguard import inspection, order, streams
from ganguard.protection.workers import WatchedLoader, watched
from ganguard.reports.console import counted

_END = object()


@dataclass(frozen=True)
class Feed:
    """One epoch's data from a position on."""

    next: Callable[[], tuple[Any, int] | None]  # a batch and its number of samples; None at the epoch's end
    draws: bool  # whether ``next`` may draw on this process's random streams…
    private: bool  # …and what it draws does not count: the streams are to be put back


class Feeds:
    """The loaders of one run; workers are kept for the loader that was used last."""

    def __init__(self, seed: int, fingerprint: str | None, say: Callable[[str], None]) -> None:
        self._seed = seed
        self._say = say
        self._loader: Any = None
        self._size: int | None = None
        self._exact: order.ExactLoader | None = None
        self._watched: WatchedLoader | None = None  # a loader that is not exact
        self._told: set[str] = set()
        self.fingerprint = fingerprint  # of the data set, None before the first epoch

    def changed(self, loader: Any) -> bool:
        """Whether the data set is another one than at the last save; from now on this one counts."""
        if not inspection.is_exact(loader):
            return False
        size = len(loader.dataset) if hasattr(loader.dataset, "__len__") else None
        if loader is self._loader and size == self._size:
            return False
        if loader is not self._loader:
            self._take(loader)
        self._size = size
        now = inspection.fingerprint(loader.dataset)
        before, self.fingerprint = self.fingerprint, now
        return before not in (None, now)

    def open(self, loader: Iterable[Any], epoch: int, *, samples_done: int, batches_done: int) -> Feed:
        """``epoch`` counts from 1."""
        if not inspection.is_exact(loader):
            return self._inexact(loader, batches_done)
        if loader is not self._loader:
            self._take(loader)
        assert self._exact is not None  # taken
        self._exact.start(epoch, samples_done=samples_done, batches_done=batches_done)
        return Feed(self._exact.next, draws=self._exact.in_this_process, private=True)

    def _iterate(self, loader: Iterable[Any]) -> Iterator[Any]:
        if not (inspection.is_plain(loader) and loader.num_workers) or isinstance(loader.dataset, IterDataPipe):
            return iter(loader)
        if loader is not self._loader or self._watched is None:
            self.close()
            self._loader, self._watched = loader, watched(loader)
        return iter(self._watched)

    def close(self) -> None:
        """End the workers."""
        self._loader = None
        for held in (self._exact, self._watched):
            if held is not None:
                held.close()
        self._exact = self._watched = None

    def _take(self, loader: Any) -> None:
        self.close()
        if own := inspection.own_generators(loader):
            self._tell_once(
                f"Not exact: random generators that nobody can put back: {', '.join(own)}. "
                "Draw from torch's, numpy's or Python's global one instead."
            )
        self._loader, self._exact = loader, order.ExactLoader(loader, self._seed)

    def _tell_once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._say(text)

    def _inexact(self, loader: Iterable[Any], skip: int) -> Feed:
        if not _indexed(loader):
            self._tell_once(f"Not exact: a {_describe(loader)} cannot be put back to a position.")
            if skip:
                self._say(f"{counted(skip, 'batch that is', 'batches that are')} already done: read again and skipped.")
        iterator = self._iterate(loader)
        to_skip = iter(range(skip))

        def following() -> tuple[Any, int] | None:
            for _ in to_skip:  # here, so that a stop is honoured while this takes its time
                with streams.kept():
                    if next(iterator, _END) is _END:
                        break
            batch = next(iterator, _END)
            return None if batch is _END else (batch, _samples_in(batch))

        return Feed(following, draws=True, private=False)


def _indexed(loader: Any) -> bool:
    """Whether iterating over it means going through its indices: the same every time."""
    return isinstance(loader, list | tuple | range | torch.Tensor | np.ndarray) or (
        hasattr(loader, "__getitem__") and not hasattr(loader, "__iter__")
    )


def _describe(loader: Any) -> str:
    dataset = getattr(loader, "dataset", None)
    return f"{type(loader).__name__}{f' over {type(dataset).__name__}' if dataset is not None else ''}"


def _samples_in(batch: Any) -> int:
    first = next(iter(batch.values())) if isinstance(batch, Mapping) and batch else batch
    first = first[0] if isinstance(first, list | tuple) and first else first
    if isinstance(first, torch.Tensor) and first.ndim == 0:
        return 1
    return len(first) if isinstance(first, Sized) else 1
