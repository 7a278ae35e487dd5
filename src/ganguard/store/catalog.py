"""What a folder holds, read from the ends of its files: no torch, no unpickling, a fraction of a millisecond each."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ganguard.errors import UnreadableCheckpoint
from ganguard.store import durable, envelope, lock, names
from ganguard.store.durable import TEMPORARY_PREFIX, why
from ganguard.store.envelope import State
from ganguard.store.pair import HISTORY
from ganguard.store.reading import open_regular
from ganguard.store.shelf import Shelf, at
from ganguard.store.summary import Kind, Lineage, Summary, from_json

_LOOKS = 10
_LOCKS = (lock.TRAINING, lock.REMOVAL, lock.BACKUP)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One file. ``inode`` tells two names of one file from two files."""

    path: Path
    size: int
    modified: float
    inode: tuple[int, int | str]
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
    try:
        with open_regular(path) as file:
            return read_open(file, path)
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise
        return _entry(path, _stat(path), State.UNREADABLE, None)


def _stat(path: Path) -> os.stat_result:
    """What tells an unreadable file from others: nothing but its name where its folder keeps all to itself."""
    try:
        return path.stat()
    except OSError as error:
        if isinstance(error, FileNotFoundError):  # by now
            raise
        return os.stat_result((0,) * 10)


def read_open(file: BinaryIO, path: Path) -> Entry:
    """The entry of an open file, which is called ``path``. Raises OSError."""
    state, values = envelope.peek_into(file)
    summary = from_json(values) if values else None
    if summary is None and state is State.WHOLE:
        state = State.NEWER  # its checksum is right, so it is not damaged; this version does not understand it
    return _entry(path, os.fstat(file.fileno()), state, summary)


def _entry(path: Path, info: os.stat_result, state: State, summary: Summary | None) -> Entry:
    return Entry(
        path=path,
        size=info.st_size,
        modified=info.st_mtime,
        inode=(info.st_dev, info.st_ino or str(path)),  # some file systems number nothing
        state=state,
        summary=summary,
    )


def scan(folder: Path) -> list[Entry]:
    """All ``.pth`` files directly in ``folder``, by name. A missing folder holds none.

    Raises:
        UnreadableCheckpoint: the folder is there and cannot be listed, which says nothing of what it holds.
    """
    try:
        with os.scandir(folder) as items:
            found = [i.name for i in items if i.name.endswith(names.SUFFIX) and not _hidden(i.name) and _may_be(i)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UnreadableCheckpoint(f"{folder} cannot be listed: {why(error)}. Mend that first.") from error
    entries = []
    for name in sorted(found):
        try:
            entries.append(read(folder / name))
        except FileNotFoundError:  # removed since, by a training or a manager beside us; or a link to nothing
            continue
    return entries


def _may_be(item: os.DirEntry[str]) -> bool:
    return item.is_symlink() or item.is_file(follow_symlinks=False)


def _hidden(name: str) -> bool:
    return name.startswith((TEMPORARY_PREFIX, "."))


@dataclass(frozen=True)
class Catalog:
    """What one run's shelf holds, with the questions that are asked of it."""

    shelf: Shelf
    entries: tuple[Entry, ...]

    @classmethod
    def of(cls, where: Path | Shelf) -> Catalog:
        """The files of a shelf; of a plain folder, those that are single checkpoints and what belongs to nobody."""
        shelf = at(where)
        return cls._settled(shelf, shelf.places, lambda e: shelf.holds(e.path, e.state, e.summary))

    @classmethod
    def all_in(cls, folder: Path) -> Catalog:
        """Every checkpoint file in a folder and its history, whosever it is."""
        return cls._settled(Shelf(folder), (folder, folder / HISTORY), lambda _: True)

    @classmethod
    def _settled(cls, shelf: Shelf, places: Iterable[Path], mine: Callable[[Entry], bool]) -> Catalog:
        """What lies there. Half a pair is believed where two looks agree: it may come or go while they are taken."""
        there = None
        for _ in range(_LOOKS):
            before, found = there, (entry for place in places for entry in scan(place))
            there = cls(shelf, tuple(filter(mine, found)))
            if (before and before.entries == there.entries) or not there._has_halves:
                break
        assert there is not None  # there was a look
        return there

    @property
    def _has_halves(self) -> bool:
        return any(self.lacking(entry) for entry in self.entries) or bool(self.orphans)

    @classmethod
    def beside(cls, file: Path) -> Catalog:
        """Every checkpoint file where the second file of a pair is looked for."""
        return cls.all_in(file.parent.parent if file.parent.name == HISTORY else file.parent)

    @property
    def folder(self) -> Path:
        return self.shelf.folder

    def name_of(self, entry: Entry) -> str:
        """Where an entry lies within the folder."""
        return entry.path.relative_to(self.folder).as_posix()

    def is_alias(self, entry: Entry) -> bool:
        return self.name_of(entry) in self.shelf.aliases

    @functools.cached_property
    def versioned(self) -> list[Entry]:
        """Every file once: an alias counts only where no other name carries the same bytes."""
        plain = [e for e in self.entries if not self.is_alias(e)]
        inodes = {e.inode for e in plain}
        digests = {e.digest for e in plain if e.digest and e.state is State.WHOLE}
        extra = [e for e in self.entries if self.is_alias(e)]
        return plain + [e for e in extra if e.inode not in inodes and e.digest not in digests]

    @functools.cached_property
    def _whole(self) -> dict[str, list[Entry]]:
        """Files that look whole, by digest, aliases last."""
        found: dict[str, list[Entry]] = {}
        for entry in sorted(self.entries, key=self.is_alias):
            if entry.state is State.WHOLE:
                found.setdefault(entry.digest, []).append(entry)
        return found

    def same_bytes(self, entry: Entry) -> list[Entry]:
        """``entry``, then other files that should hold the same bytes, such as an alias that is a copy."""
        return [entry, *(e for e in self._whole.get(entry.digest, []) if e.inode != entry.inode)]

    def names_of(self, entry: Entry) -> list[str]:
        """Every name of one file."""
        return [self.name_of(e) for e in self.entries if e.inode == entry.inode]

    def names_of_all(self, head: Entry) -> list[str]:
        """Every name of a checkpoint: of its head, aliases that are copies, and companions that no other head needs."""
        others = (e for e in self.entries if e.summary and e.inode != head.inode and e.digest != head.digest)
        needed = {c.digest for e in others if e.summary for c in e.summary.companions}
        found = []
        for entry in (head, *(c for c in self.companions(head) if c.digest not in needed)):
            found += self.names_of(entry)
            if entry.digest:
                found += [self.name_of(e) for e in self.entries if self.is_alias(e) and e.digest == entry.digest]
        return list(dict.fromkeys(found))

    def head_of(self, entry: Entry) -> Entry:
        """The head of the checkpoint that a file belongs to; the file itself where it is one, or has none."""
        if entry.is_head or not entry.digest:
            return entry
        wanting = (e for e in self.heads if e.summary and entry.digest in {c.digest for c in e.summary.companions})
        return next(wanting, entry)

    @functools.cached_property
    def heads(self) -> list[Entry]:
        """Checkpoints that look whole, their companions too."""
        return [e for e in self.versioned if e.state is State.WHOLE and e.is_head and not self.lacking(e)]

    @property
    def orphans(self) -> list[Entry]:
        """Second files whose first is not there: what a crash between the two leaves."""
        whole = (e.summary for e in self.entries if e.summary and e.state is State.WHOLE)
        needed = {companion.digest for summary in whole for companion in summary.companions}
        return [e for e in self.entries if e.summary and not e.is_head and e.digest not in needed]

    def is_in_between(self, entry: Entry, *, locks: Collection[str] = _LOCKS) -> bool:
        """Whether this is the second file of a pair that is being written, copied or removed, or was since the look.

        The first one lies there under a temporary name before the second one gets its own, and until it is gone.

        Args:
            locks: that tell whether somebody is at work; not those that the caller holds.
        """
        if entry not in self.orphans or entry.summary is None:
            return False
        shelf = Shelf(self.folder, entry.summary.pair)
        if waits_for_its_first(entry, shelf.tag):
            of_the_run = (name for name in locks if name != lock.BACKUP)
            return any(lock.is_held(self.folder, shelf.lock_name(name)) for name in of_the_run)
        if waits_for_its_first(entry, names.BACKUP_TAG):
            return lock.BACKUP in locks and lock.is_held(entry.path.parent, lock.BACKUP)
        now = Catalog.all_in(self.folder)
        return any(entry.digest in {c.digest for c in head.summary.companions} for head in now.heads if head.summary)

    def companions(self, head: Entry) -> list[Entry]:
        """The other files of a checkpoint, found by digest, so that copies under other names work."""
        wanted = [c for c in (head.summary.companions if head.summary else ()) if c.digest in self._whole]
        return [min(self._whole[c.digest], key=lambda entry: entry.path.name != c.name) for c in wanted]

    def by_its_own_name(self, entry: Entry) -> Entry:
        """The file that never changes, where ``entry`` may be a fixed name of it."""
        twins = self._whole.get(entry.digest, []) if entry.state is State.WHOLE else []
        return next((e for e in (entry, *twins) if e.summary and e.path.name == e.summary.name), entry)

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


def waits_for_its_first(entry: Entry, tag: str) -> bool:
    """Whether the first file of a second one lies beside it under a temporary name of the writer with this ``tag``."""
    return any(entry.digest in _companions_in(path) for path in durable.temporaries(entry.path.parent, tag))


def _companions_in(path: Path) -> set[str]:
    """Digests of the second files that a file names; of one that is gone, none."""
    try:
        summary = read(path).summary
    except FileNotFoundError:
        return set()
    return {companion.digest for companion in summary.companions} if summary else set()


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
