"""What can be told of a loader by looking at it: whether its order can be reproduced, and which data it gives."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any, TypeGuard

import numpy as np
import torch
import xxhash
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, TensorDataset

_GENERATORS = (random.Random, np.random.Generator, np.random.RandomState, torch.Generator)
_SEARCH_DEPTH = 8  # a subset of a data set with a list of transforms that have generators
_SEARCH_MOST = 2000


def is_exact(loader: Iterable[Any]) -> bool:
    """Whether the order of ``loader`` can be reproduced: a map-style DataLoader with its own way to iterate."""
    return is_plain(loader) and not isinstance(loader.dataset, IterableDataset)


def is_plain(loader: Iterable[Any]) -> TypeGuard[DataLoader[Any]]:
    """Whether ``loader`` is a DataLoader that is iterated over in torch's own way."""
    return isinstance(loader, DataLoader) and type(loader).__iter__ is DataLoader.__iter__


def fingerprint(dataset: Any) -> str:
    """What tells one data set from another: its own ``fingerprint``, or its type, length and what it lists.

    Looked at are ``samples`` (of image folders), ``indices`` (of subsets), the shapes of ``tensors``, and the data
    sets within. Two that agree in all of that count as the same.
    """
    digest = xxhash.xxh3_128()
    for text in _identity(dataset):
        digest.update(text.encode() + b"\0")
    return str(digest.hexdigest())


def _identity(dataset: Any) -> Iterator[str]:
    if isinstance(own := getattr(dataset, "fingerprint", None), str):
        yield own
        return
    yield f"{type(dataset).__qualname__} {len(dataset) if hasattr(dataset, '__len__') else ''}"
    samples = getattr(dataset, "samples", None)
    yield from map(repr, samples if isinstance(samples, list) else ())
    if isinstance(dataset, Subset):
        yield repr(list(dataset.indices))
    if isinstance(dataset, TensorDataset):
        yield repr([tuple(t.shape) for t in dataset.tensors])
    within = getattr(dataset, "datasets", None) if isinstance(dataset, ConcatDataset) else None
    for inner in within or filter(None, [getattr(dataset, "dataset", None)]):
        if isinstance(inner, Dataset):
            yield from _identity(inner)


def own_generators(loader: DataLoader[Any]) -> list[str]:
    """Names of random generators that a loader's data set, sampler or collate function keep to themselves.

    Nobody can put those back. Not among them: the processes' global ones, and torch generators of samplers.
    """
    known = {id(np.random.mtrand._rand), id(torch.default_generator)}  # numpy's global one
    known |= {id(g) for g in sampler_generators(loader.batch_sampler or loader.sampler)}
    held: list[tuple[str, Any]] = [
        ("dataset", loader.dataset),
        ("batch_sampler" if loader.batch_sampler else "sampler", loader.batch_sampler or loader.sampler),
        ("collate_fn", loader.collate_fn),
    ]
    found = []
    for _ in range(_SEARCH_DEPTH):
        deeper: list[tuple[str, Any]] = []
        for name, value in held:
            if id(value) in known:
                continue
            known.add(id(value))
            if isinstance(value, _GENERATORS):
                found.append(name)
            else:
                deeper += _inside(name, value)
        held = deeper[:_SEARCH_MOST]
    return found


def _inside(name: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, type | ModuleType | torch.Tensor | np.ndarray):
        return []
    if isinstance(value, list | tuple):
        return [(f"{name}[{i}]", item) for i, item in enumerate(value)] if len(value) < 100 else []
    if isinstance(value, dict):
        return [(f"{name}[{key!r}]", item) for key, item in value.items()] if len(value) < 100 else []
    return [(f"{name}.{key}", item) for key, item in list(getattr(value, "__dict__", {}).items())]


def sampler_generators(sampler: Any) -> list[torch.Generator]:
    """Generators that a sampler, or the one inside a batch sampler, was given."""
    held = [getattr(sampler, "generator", None), getattr(getattr(sampler, "sampler", None), "generator", None)]
    return list({id(g): g for g in held if isinstance(g, torch.Generator)}.values())
