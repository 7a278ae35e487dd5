"""The order of data as a function of (seed, epoch, position), and a plain DataLoader made to follow it.

Skipping ahead is index arithmetic: nothing is read to get to a position. Each item is drawn under a seed of
(seed, epoch, position in the epoch, index), so that random transforms come out the same with any number of workers
and after a resume, and differ where a sampler draws one index twice.
"""

from __future__ import annotations

import itertools
import random
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
import xxhash
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset

from ganguard import streams
from ganguard.protection.workers import WorkerInit, Workers

Key = tuple[int, int, int]  # (epoch, position in the epoch, index), so that workers may outlive an epoch
_CHUNK = 1 << 16  # how many indices are drawn from a sampler at a time


def is_exact(loader: Iterable[Any]) -> bool:
    """Whether the order of ``loader`` can be reproduced: a map-style DataLoader with its own way to iterate."""
    return (
        isinstance(loader, DataLoader)
        and type(loader).__iter__ is DataLoader.__iter__
        and not isinstance(loader.dataset, IterableDataset)
    )


def fingerprint(dataset: Any) -> str:
    """What tells one data set from another: its own ``fingerprint``, or type, length and the ``samples`` it lists.

    Two data sets of one type and length that list no samples count as the same.
    """
    if isinstance(own := getattr(dataset, "fingerprint", None), str):
        return own
    digest = xxhash.xxh3_128(f"{type(dataset).__qualname__} {len(dataset)}".encode())
    samples = getattr(dataset, "samples", None)
    for sample in samples if isinstance(samples, list) else ():
        digest.update(repr(sample).encode())
    return str(digest.hexdigest())


def own_generators(dataset: Any) -> list[str]:
    """Names of random generators that a data set or its transforms keep: nobody can put those back."""
    found = []
    kinds = (random.Random, np.random.Generator, np.random.RandomState, torch.Generator)
    held = [("", dataset)]
    for _ in range(3):  # the data set, its transform, the transforms in that
        deeper = []
        for name, owner in held:
            for key, value in list(getattr(owner, "__dict__", {}).items()):
                if isinstance(value, kinds):
                    found.append(f"{name}{key}")
                elif isinstance(value, list | tuple) and len(value) < 100:
                    deeper += [(f"{name}{key}[{i}].", item) for i, item in enumerate(value)]
                else:
                    deeper.append((f"{name}{key}.", value))
        held = deeper
    return found


class _Items(Dataset[Any]):
    """A data set whose items are drawn under seeds of their own."""

    def __init__(self, dataset: Any, seed: int) -> None:
        self.dataset = dataset
        self._seed = seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Key) -> Any:
        streams.seed_host(streams.derive(self._seed, *key))
        return self.dataset[key[-1]]

    def __getitems__(self, keys: list[Key]) -> Any:
        whole_batch = getattr(self.dataset, "__getitems__", None)
        if whole_batch is not None:
            streams.seed_host(streams.derive(self._seed, *keys[0]))
            items = whole_batch([index for *_, index in keys])
        else:
            items = [self[key] for key in keys]
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
        position = self.samples_done
        for batch in self._batches():
            indices = batch if isinstance(batch, list) else [batch]
            keys = [(self.epoch, position + place, index) for place, index in enumerate(indices)]
            position += len(keys)
            self.sizes.append(len(keys))
            yield keys if isinstance(batch, list) else keys[0]

    def _batches(self) -> Iterator[Any]:
        loader = self._loader
        if loader.batch_sampler is None:  # batch_size=None: the data set makes the batches
            return itertools.islice(self._drawn(loader.sampler), self.batches_done, None)
        if type(loader.batch_sampler) is not BatchSampler:
            drawn = self._drawn(loader.batch_sampler)
            return (list(batch) for batch in itertools.islice(drawn, self.batches_done, None))
        return self._grouped(self._drawn(loader.sampler), loader.batch_sampler)

    def _grouped(self, indices: Iterator[int], batches: BatchSampler) -> Iterator[list[int]]:
        indices = itertools.islice(indices, self.samples_done, None)
        while batch := list(itertools.islice(indices, batches.batch_size)):
            if len(batch) == batches.batch_size or not batches.drop_last:
                yield batch

    def _drawn(self, sampler: Any) -> Iterator[Any]:
        """What ``sampler`` yields under a seed of the epoch; the process's own streams stay as they are."""
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(self.epoch)
        seed = streams.derive(self._seed, self.epoch, "sampler")
        lent = streams.Lent(seed)
        own = _generators(sampler)
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


def _generators(sampler: Any) -> list[torch.Generator]:
    """Generators that a sampler, or the one inside a batch sampler, was given."""
    held = [getattr(sampler, "generator", None), getattr(getattr(sampler, "sampler", None), "generator", None)]
    return list({id(g): g for g in held if isinstance(g, torch.Generator)}.values())


class ExactLoader:
    """A DataLoader's data in the order that (seed, epoch, position) gives, from its own kind of workers."""

    def __init__(self, loader: DataLoader[Any], seed: int) -> None:
        self._schedule = _Schedule(loader, seed)
        self._generator = torch.Generator()
        self._seed = seed
        self._loader = self._rebuilt(loader)
        self._iterator: Iterator[Any] | None = None
        self._workers = Workers()

    def _rebuilt(self, loader: DataLoader[Any]) -> DataLoader[Any]:
        unbatched = loader.batch_sampler is None
        sampling: dict[str, Any]
        sampling = {"batch_size": None, "sampler": self._schedule} if unbatched else {"batch_sampler": self._schedule}
        return DataLoader(
            _Items(loader.dataset, self._seed),
            **sampling,
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
            pin_memory=loader.pin_memory,
            timeout=loader.timeout,
            worker_init_fn=WorkerInit(loader.worker_init_fn),
            multiprocessing_context=loader.multiprocessing_context,
            generator=self._generator,
            prefetch_factor=loader.prefetch_factor,
            persistent_workers=loader.persistent_workers,
        )

    def start(self, epoch: int, *, samples_done: int, batches_done: int) -> None:
        """Go to a position: the next batch is the first that is not done."""
        self._schedule.epoch = epoch
        self._schedule.samples_done = samples_done
        self._schedule.batches_done = batches_done
        self._generator.manual_seed(streams.derive(self._seed, epoch, "loader"))
        with streams.kept(), self._workers.being_born():
            self._iterator = iter(self._loader)

    def next(self) -> tuple[Any, int] | None:
        """The next batch and how many samples it holds; None at the epoch's end."""
        assert self._iterator is not None  # ``start`` comes first
        with streams.kept():
            try:
                batch = next(self._iterator)
            except StopIteration:
                return None
        return batch, self._schedule.sizes.popleft()

    def close(self) -> None:
        """End the workers, also one that hangs in an item."""
        iterator, self._iterator = self._iterator, None
        self._workers.end(iterator)
