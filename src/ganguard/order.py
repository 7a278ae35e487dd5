"""The order of data as a function of (seed, epoch, position), and a plain DataLoader made to follow it.

Skipping ahead is index arithmetic: nothing is read to get to a position. Each item is drawn under a seed of
(seed, epoch, position in the epoch, index), so that random transforms come out the same with any number of workers
and after a resume, and differ where a sampler draws one index twice.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, Subset

from ganguard import streams
from ganguard.inspection import sampler_generators
from ganguard.protection import workers
from ganguard.protection.handover import failing_in_words
from ganguard.protection.workers import WatchedLoader

Key = tuple[int, int, Any]  # (epoch, position in the epoch, index), so that workers may outlive an epoch
_CHUNK = 1 << 16  # how many indices are drawn from a sampler at a time


def _whole_batches(dataset: Any) -> Callable[[list[Any]], Any] | None:
    """The data set's own way to get several items at once; a ``Subset`` has one only where what it is of has."""
    inner = dataset
    while isinstance(inner, Subset):
        inner = inner.dataset
    found = getattr(dataset, "__getitems__", None) if getattr(inner, "__getitems__", None) else None
    return found if callable(found) else None


class _Items(Dataset[Any]):
    """A data set whose items are drawn under seeds of their own."""

    def __init__(self, dataset: Any, seed: int) -> None:
        self.users_own = dataset
        self._seed = seed

    def __len__(self) -> int:
        return len(self.users_own)

    def __getitem__(self, key: Key | list[Key]) -> Any:
        with failing_in_words():
            return self._item(key)

    def _item(self, key: Key | list[Key]) -> Any:
        if isinstance(key, list):  # batch_size=None, and a sampler that yields lists: the data set makes the batch
            streams.seed_host(streams.derive(self._seed, *key[0]))
            return self.users_own[[index for *_, index in key]]
        streams.seed_host(streams.derive(self._seed, *key))
        return self.users_own[key[-1]]

    def __getitems__(self, keys: list[Key]) -> Any:
        whole_batch = _whole_batches(self.users_own)
        with failing_in_words():
            if whole_batch is not None:
                streams.seed_host(streams.derive(self._seed, *keys[0]))
                items = whole_batch([index for *_, index in keys])
            else:
                items = [self._item(key) for key in keys]
        streams.seed_host(streams.derive(self._seed, *keys[0], "collate"))
        return items


class _Schedule:
    """The batches of keys of one epoch from a position on; ``sizes`` holds those handed out and not yet received."""

    def __init__(self, loader: DataLoader[Any], seed: int) -> None:
        self._loader = loader
        self._seed = seed
        self.epoch = 0
        self.samples_done = 0
        self.batches_done = 0
        self.sizes: deque[int] = deque()

    def __iter__(self) -> Iterator[Any]:
        self.sizes.clear()
        # Where the data set makes the batches, how many samples are in one is not known before.
        whole = self._loader.batch_sampler is None
        position = self.batches_done if whole else self.samples_done
        for batch in self._batches():
            indices = batch if isinstance(batch, list) else [batch]
            keys = [(self.epoch, position + (0 if whole else place), index) for place, index in enumerate(indices)]
            position += 1 if whole else len(keys)
            self.sizes.append(len(keys))
            yield keys if isinstance(batch, list) else keys[0]

    def _batches(self) -> Iterator[Any]:
        loader = self._loader
        if loader.batch_sampler is None:  # batch_size=None: the data set makes the batches
            return itertools.islice(self._drawn(loader.sampler), self.batches_done, None)
        if type(loader.batch_sampler) is not BatchSampler:
            drawn = self._drawn(loader.batch_sampler)
            return (list(batch) for batch in itertools.islice(drawn, self.batches_done, None))
        return self._grouped(self._drawn(loader.batch_sampler.sampler), loader.batch_sampler)

    def _grouped(self, indices: Iterator[int], batches: BatchSampler) -> Iterator[list[int]]:
        indices = itertools.islice(indices, self.samples_done, None)
        while batch := list(itertools.islice(indices, batches.batch_size)):
            if len(batch) == batches.batch_size or not batches.drop_last:
                yield batch

    def _drawn(self, sampler: Any) -> Iterator[Any]:
        """What ``sampler`` yields under a seed of the epoch; the process's own streams stay as they are."""
        for item in (sampler, getattr(sampler, "sampler", None)):
            if item is not None and hasattr(item, "set_epoch"):
                item.set_epoch(self.epoch)
        seed = streams.derive(self._seed, self.epoch, "sampler")
        lent = streams.Lent(seed)
        own = sampler_generators(sampler)
        private = [torch.Generator().manual_seed(seed).get_state() for _ in own]
        drawing: Iterator[Any] | None = None
        while True:
            kept = [g.get_state() for g in own]
            with lent.active():
                for generator, state in zip(own, private, strict=True):
                    generator.set_state(state)
                drawing = iter(sampler) if drawing is None else drawing
                chunk = list(itertools.islice(drawing, _CHUNK))
                private = [g.get_state() for g in own]
            for generator, state in zip(own, kept, strict=True):
                generator.set_state(state)
            if not chunk:
                return
            yield from chunk


class ExactLoader:
    """A DataLoader's data in the order that (seed, epoch, position) gives, from its own kind of workers."""

    def __init__(self, loader: DataLoader[Any], seed: int) -> None:
        self._schedule = _Schedule(loader, seed)
        self._generator = torch.Generator()
        self._seed = seed
        self._loader = WatchedLoader(self._rebuilt(loader))

    def _rebuilt(self, loader: DataLoader[Any]) -> DataLoader[Any]:
        unbatched = loader.batch_sampler is None
        sampling: dict[str, Any]
        sampling = {"batch_size": None, "sampler": self._schedule} if unbatched else {"batch_sampler": self._schedule}
        return DataLoader(
            _Items(loader.dataset, self._seed),
            **sampling,
            generator=self._generator,
            **workers.options(loader),
        )

    @property
    def in_this_process(self) -> bool:
        """Whether items are drawn here and not by workers."""
        return self._loader.in_this_process

    def start(self, epoch: int, *, samples_done: int, batches_done: int) -> None:
        """Go to a position: the next batch is the first that is not done."""
        self._schedule.epoch = epoch
        self._schedule.samples_done = samples_done
        self._schedule.batches_done = batches_done
        self._generator.manual_seed(streams.derive(self._seed, epoch, "loader"))
        with streams.kept():
            iter(self._loader)

    def next(self) -> tuple[Any, int] | None:
        """The next batch and how many samples it holds; None at the epoch's end.

        Draws on the process's random streams where there are no workers: the caller puts them back.
        """
        try:
            batch = next(self._loader)
        except StopIteration:
            return None
        return batch, self._schedule.sizes.popleft()

    def close(self) -> None:
        """End the workers, also one that hangs in an item."""
        self._loader.close()
