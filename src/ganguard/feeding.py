"""What ``Guard.batches`` draws from: a loader from a position on, exactly where that is possible."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sized
from typing import Any

import torch

from ganguard import order

Feed = Callable[[], tuple[Any, int] | None]  # the next batch and its number of samples; None at the epoch's end


class Feeds:
    """The loaders of one run."""

    def __init__(self, seed: int, fingerprint: str | None, say: Callable[[str], None]) -> None:
        self._seed = seed
        self._say = say
        self._exact: dict[int, tuple[Any, order.ExactLoader]] = {}
        self.fingerprint = fingerprint  # of the data set, None before the first epoch

    def changed(self, loader: Any) -> bool:
        """Whether the data set is another one than at the last save; from now on this one counts."""
        if not order.is_exact(loader):
            return False
        now = order.fingerprint(loader.dataset)
        before, self.fingerprint = self.fingerprint, now
        return before not in (None, now)

    def open(self, loader: Iterable[Any], epoch: int, *, samples_done: int, batches_done: int) -> Feed:
        """``epoch`` counts from 1."""
        if order.is_exact(loader):
            exact = self._exact_loader(loader)
            exact.start(epoch, samples_done=samples_done, batches_done=batches_done)
            return exact.next
        return self._inexact(loader, batches_done)

    def close(self) -> None:
        """End the workers."""
        for _, exact in self._exact.values():
            exact.close()
        self._exact = {}

    def _exact_loader(self, loader: Any) -> order.ExactLoader:
        known = self._exact.get(id(loader))
        if known is not None:
            return known[1]
        if own := order.own_generators(loader.dataset):
            self._say(f"Not exact: the data set keeps random generators of its own ({', '.join(own)}).")
        exact = order.ExactLoader(loader, self._seed)
        self._exact[id(loader)] = (loader, exact)  # holding the loader keeps its id from being used again
        return exact

    def _inexact(self, loader: Iterable[Any], skip: int) -> Feed:
        if not (isinstance(loader, Sized) and hasattr(loader, "__getitem__")):
            again = f"; the {skip} batches already done are read again and skipped" if skip else ""
            self._say(f"Not exact: a {_describe(loader)} cannot be put back to a position{again}.")
        iterator = iter(loader)
        for _ in range(skip):
            next(iterator, None)

        def following() -> tuple[Any, int] | None:
            for batch in iterator:
                return batch, _samples_in(batch)
            return None

        return following


def _describe(loader: Any) -> str:
    dataset = getattr(loader, "dataset", None)
    return f"{type(loader).__name__}{f' over {type(dataset).__name__}' if dataset is not None else ''}"


def _samples_in(batch: Any) -> int:
    first = next(iter(batch.values())) if isinstance(batch, Mapping) and batch else batch
    first = first[0] if isinstance(first, list | tuple) and first else first
    if isinstance(first, torch.Tensor) and first.ndim == 0:
        return 1
    return len(first) if isinstance(first, Sized) else 1
