"""What did not fit into a checkpoint's summary, such as thousands of class names, read from the file's body."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ganguard.errors import UnreadableCheckpoint
from ganguard.store import body
from ganguard.store.catalog import Entry
from ganguard.store.summary import Summary, is_well_formed

# Where the body holds what a summary can spare.
_PLACES = {
    "config": ("config",),
    "means": ("history", "means"),
    "versions": ("ganguard", "versions"),
    "best": ("best",),
    "score": ("history", "score"),
}


def value_of(entry: Entry, name: str) -> Any:
    """A field of a checkpoint's summary; None where the entry has none.

    Raises:
        CheckpointError: it was spared, and the body cannot be read.
    """
    summary = entry.summary
    if summary is not None and name in summary.spared:
        summary = whole(entry)
    return getattr(summary, name) if summary else None


def whole(entry: Entry) -> Summary | None:
    """A checkpoint's summary with all its fields. Raises CheckpointError as ``value_of``."""
    if entry.summary is None or not entry.summary.spared:
        return entry.summary
    return _filled(entry.summary, _found(entry.path, entry.digest), entry.path)


def filled(summary: Summary, loaded: Mapping[str, Any], path: Path) -> Summary:
    """``whole`` where the body is ``loaded`` already."""
    return _filled(summary, _in_body(loaded), path)


@functools.lru_cache(maxsize=64)
def _found(path: Path, _digest: str) -> dict[str, Any]:
    return _in_body(body.load_file(path))


def _in_body(loaded: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for name, place in _PLACES.items():
        value: Any = loaded
        for key in place:
            value = value.get(key) if isinstance(value, Mapping) else None
        found[name] = value
    return found


def _filled(summary: Summary, found: Mapping[str, Any], path: Path) -> Summary:
    more = {name: found[name] for name in summary.spared if found[name] is not None}
    full = replace(summary, **more, spared=())
    if not is_well_formed(full):
        raise UnreadableCheckpoint(
            f"{path} was not written by ganguard: what it says of itself makes no sense. Name another checkpoint."
        )
    return full
