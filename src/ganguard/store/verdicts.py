"""Whether a checkpoint is good, all of its files, every byte, also while a training beside us writes and removes."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

from ganguard.errors import DamagedCheckpoint, UnreadableCheckpoint
from ganguard.store import catalog, envelope
from ganguard.store.catalog import Catalog, Entry
from ganguard.store.envelope import State
from ganguard.store.summary import from_json

_LOOKS = 20
_LOOK_PAUSE_S = 0.05
_GOOD = "good"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What reading every byte of a checkpoint found."""

    head: Entry
    companions: tuple[Entry, ...]
    text: str

    @property
    def good(self) -> bool:
        return self.text == _GOOD

    @property
    def shown(self) -> str:
        """The names of its files."""
        return " and ".join(map(str, [self.head.path, *(entry.path.name for entry in self.companions)]))


def of(file: Path) -> Verdict | None:
    """The verdict on the checkpoint that a file belongs to; None where it is gone, or being written or removed.

    One that is not good is believed only where nothing of the checkpoint changed while it was reached.
    """
    before = None
    for look in range(_LOOKS):
        there = _concerning(file)
        if before is not None and there == before:
            break
        time.sleep(_LOOK_PAUSE_S if look > 1 else 0)
        before = there
        try:
            found = _look(file)
        except FileNotFoundError:
            return None
        if found.good:
            break
    return found


def _concerning(file: Path) -> list[Entry]:
    """The file, and whatever belongs to one checkpoint with it, as they are now."""
    there = Catalog.beside(file).entries
    own = {e.digest for e in there if e.path == file and e.digest}
    needed = {c.digest for e in there if e.path == file and e.summary for c in e.summary.companions}
    return [e for e in there if e.path == file or e.digest in own | needed or own & _companions(e)]


def _companions(entry: Entry) -> set[str]:
    return {companion.digest for companion in entry.summary.companions} if entry.summary else set()


def _look(file: Path) -> Verdict:
    """Raises FileNotFoundError where there is no such file, or it is half of what is being written or removed."""
    head = Catalog.beside(file).head_of(catalog.read(file))
    others: tuple[Entry, ...] = ()
    try:
        head = _as_verified(head)
        siblings = Catalog.beside(head.path)
        others = tuple(siblings.companions(head))
        if lacking := siblings.lacking(head):
            text = f"incomplete: its second file {lacking[0]} is not there"
        elif siblings.is_in_between(head):
            raise FileNotFoundError(file)
        elif not head.is_head:
            text = "incomplete: its first file is not there"
        else:
            for other in others:
                envelope.verify(other.path)
            text = _GOOD
    except (DamagedCheckpoint, UnreadableCheckpoint) as error:
        if not file.exists():
            raise FileNotFoundError(file) from error
        text = str(error).removeprefix(f"{head.path} ")
    return Verdict(head=head, companions=others, text=text)


def _as_verified(entry: Entry) -> Entry:
    """The entry of the bytes that were verified: a fixed name may have moved on since ``entry`` was read."""
    return replace(entry, state=State.WHOLE, summary=from_json(envelope.verify(entry.path)) or entry.summary)
