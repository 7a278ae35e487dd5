"""What a folder holds, read from the ends of its files: no torch, no unpickling, a fraction of a millisecond each."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ganguard.store import envelope, names
from ganguard.store.durable import TEMPORARY_PREFIX
from ganguard.store.envelope import State
from ganguard.store.summary import Kind, Lineage, Summary, from_json


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One file. ``inode`` tells two names of one file from two files."""

    path: Path
    size: int
    modified: float
    inode: tuple[int, int]
    state: State
    summary: Summary | None

    @property
    def is_head(self) -> bool:
        """Whether this file is a checkpoint of its own, and not the second file of one."""
        return self.summary is not None and self.summary.kind is not Kind.COMPANION

    @property
    def digest(self) -> str:
        return self.summary.digest if self.summary else ""


def read(path: Path) -> Entry:
    """The entry of one file. Raises FileNotFoundError where there is none."""
    info = path.stat()
    state, values = envelope.peek(path)
    summary = from_json(values) if values else None
    if summary is None and state is State.WHOLE:
        state = State.INCOMPLETE
    return Entry(
        path=path,
        size=info.st_size,
        modified=info.st_mtime,
        inode=(info.st_dev, info.st_ino),
        state=state,
        summary=summary,
    )


def scan(folder: Path) -> list[Entry]:
    """All ``.pth`` files directly in ``folder``, by name. A missing folder holds none."""
    try:
        with os.scandir(folder) as items:
            found = [i.name for i in items if i.name.endswith(names.SUFFIX) and not _hidden(i.name) and i.is_file()]
    except FileNotFoundError:
        return []
    entries = []
    for name in sorted(found):
        try:
            entries.append(read(folder / name))
        except FileNotFoundError:  # removed since, by a training or a manager beside us
            continue
    return entries


def _hidden(name: str) -> bool:
    return name.startswith((TEMPORARY_PREFIX, "."))


@dataclass(frozen=True)
class Catalog:
    """A folder's entries, with the questions that are asked of them."""

    folder: Path
    entries: tuple[Entry, ...]

    @classmethod
    def of(cls, folder: Path) -> Catalog:
        return cls(folder, tuple(scan(folder)))

    @property
    def versioned(self) -> list[Entry]:
        """Every file once: an alias counts only where no other name carries the same bytes."""
        plain = [e for e in self.entries if e.path.name != names.LATEST]
        inodes = {e.inode for e in plain}
        digests = {e.digest for e in plain if e.digest}
        extra = [e for e in self.entries if e.path.name == names.LATEST]
        return plain + [e for e in extra if e.inode not in inodes and e.digest not in digests]

    def same_bytes(self, entry: Entry) -> list[Entry]:
        """``entry``, then other files that should hold the same bytes, such as an alias that is a copy."""
        others = [e for e in self.entries if e.digest == entry.digest and e.inode != entry.inode]
        return [entry, *(e for e in others if e.state is State.WHOLE)]

    def names_of(self, entry: Entry) -> list[str]:
        """Every name of one file."""
        return [e.path.name for e in self.entries if e.inode == entry.inode]

    @property
    def heads(self) -> list[Entry]:
        """Checkpoints that look whole, their companions too."""
        return [e for e in self.versioned if e.state is State.WHOLE and e.is_head and not self.lacking(e)]

    def companions(self, head: Entry) -> list[Entry]:
        """The other files of a checkpoint, found by digest, so that copies under other names work."""
        wanted = {c.digest for c in head.summary.companions} if head.summary else set()
        found: dict[str, Entry] = {}
        for entry in self.entries:
            if entry.state is State.WHOLE and entry.digest in wanted:
                found.setdefault(entry.digest, entry)
        return list(found.values())

    def lacking(self, head: Entry) -> list[str]:
        """Names of companions that are not there."""
        if head.summary is None or not head.summary.companions:
            return []
        there = {e.digest for e in self.companions(head)}
        return [c.name for c in head.summary.companions if c.digest not in there]

    def runs(self) -> dict[str, list[Entry]]:
        """Heads by run id."""
        found: dict[str, list[Entry]] = {}
        for entry in self.heads:
            assert entry.summary is not None  # heads have one
            found.setdefault(entry.summary.run, []).append(entry)
        return found


def newest_first(entries: Iterable[Entry]) -> list[Entry]:
    """By position, never by clock or name; of two at one position an ordinary save comes before an emergency."""

    def key(entry: Entry) -> tuple[object, ...]:
        assert entry.summary is not None  # only heads are ordered
        return (*entry.summary.order, entry.summary.kind is not Kind.EMERGENCY, entry.path.name)

    return sorted(entries, key=key, reverse=True)


def on_line(summary: Summary, branch: int, lineage: Lineage) -> bool:
    """Whether a checkpoint belongs to the branch that ``lineage`` describes, or lies on the way to it."""
    if summary.branch >= len(lineage):
        return summary.branch == branch
    return (summary.step, summary.epoch) <= lineage[summary.branch]
