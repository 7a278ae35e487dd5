"""The newest valid checkpoint of a run: by position, down from the newest to the first that is good."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ganguard.errors import DamagedCheckpoint, UnreadableCheckpoint
from ganguard.store import envelope
from ganguard.store.catalog import Catalog, Entry, newest_first, on_line
from ganguard.store.envelope import State
from ganguard.store.runfile import Run
from ganguard.store.summary import Summary


@dataclass
class Search:
    """The newest valid checkpoint, and what was met on the way to it."""

    found: Entry | None = None
    companions: list[Entry] = field(default_factory=list)  # of what was found
    damaged: list[Entry] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def met(self, entry: Entry, note: str) -> None:
        self.damaged.append(entry)
        self.notes.append(note)

    def aside(self, there: Catalog) -> list[str]:
        """Every name of what is damaged, with the second files that nothing else needs: a pair stays a pair."""
        going = [name for entry in self.damaged for name in there.names_of(entry)]
        staying = (e for e in there.entries if there.name_of(e) not in going and e.state is State.WHOLE)
        needed = {c.digest for e in staying if e.summary for c in e.summary.companions}
        seconds = (c for entry in self.damaged for c in there.companions(entry) if c.digest not in needed)
        going += [name for second in seconds for name in there.names_of(second)]
        return list(dict.fromkeys(going))


def newest_valid(
    there: Catalog, run: Run, *, verified: bool, wanted: Callable[[Summary], bool] = lambda _: True
) -> Search:
    """The newest checkpoint on the run's line that is good. Changes nothing.

    Args:
        verified: read every byte of it; False only to look at its summary.
        wanted: which checkpoints are asked for.

    Raises:
        UnreadableCheckpoint: something there cannot be read, so that nothing is proven.
    """
    require_all_readable(there)
    search = Search()
    for entry, what in _incomplete(there, run):
        search.met(entry, f"{entry.path.name} {what}.")
    for entry in newest_first(on_the_line(there, run)):
        assert entry.summary is not None  # heads have one
        if not wanted(entry.summary):
            continue
        if not entry.summary.finite:
            search.notes.append(f"{entry.path.name} holds parameters that are not finite; it is not resumed unasked.")
            continue
        for twin in there.same_bytes(entry):
            if not verified:
                search.found, search.companions = twin, there.companions(twin)
                return search
            if _is_good(there, twin, search):
                search.found = twin
                return search
    return search


def on_the_line(there: Catalog, run: Run) -> list[Entry]:
    """The run's checkpoints that belong to its branch, or lie on the way to it."""
    heads = there.runs().get(run.run, [])
    return [e for e in heads if e.summary and on_line(e.summary, run.branch, run.lineage)]


def verify_all(there: Catalog, head: Entry) -> list[Entry]:
    """Every byte of a checkpoint's files; returns its companions. Raises as ``envelope.verify``."""
    envelope.verify(head.path)
    companions = there.companions(head)
    return [_first_good(there.same_bytes(companion), Search()) for companion in companions]


def _is_good(there: Catalog, head: Entry, search: Search) -> bool:
    """Whether a checkpoint is good, its companions too."""
    try:
        envelope.verify(head.path)
        search.companions = [_first_good(there.same_bytes(c), search) for c in there.companions(head)]
    except DamagedCheckpoint as error:
        search.met(head, f"{error}.")
        return False
    return True


def _first_good(twins: list[Entry], search: Search) -> Entry:
    """The first of files that should hold the same bytes that does; raises where none does."""
    *others, last = twins
    for entry in others:
        try:
            envelope.verify(entry.path)
        except DamagedCheckpoint as error:
            search.met(entry, f"{error}.")
            continue
        return entry
    envelope.verify(last.path)
    return last


def _incomplete(there: Catalog, run: Run) -> Iterator[tuple[Entry, str]]:
    """What is provably not whole, and why. Another run's files are left alone."""
    orphans = {entry.path for entry in there.orphans}
    for entry in there.versioned:
        if entry.summary is not None and entry.summary.run != run.run:
            continue
        if entry.state is State.INCOMPLETE and (entry.summary or there.shelf.is_versioned(entry.path.name)):
            yield entry, "is incomplete"
        elif entry.state is State.WHOLE and entry.is_head and (lacking := there.lacking(entry)):
            yield entry, f"lacks its second file {lacking[0]}"
        elif entry.state is State.WHOLE and entry.path in orphans:
            yield entry, "is a second file whose first is not there: removed, or never written"


def require_all_readable(there: Catalog) -> None:
    """Raises UnreadableCheckpoint where nothing is proven about a file: what cannot be read may be the newest."""
    for entry in there.entries:
        require_readable(entry)


def require_readable(entry: Entry) -> None:
    """Raises UnreadableCheckpoint where nothing is proven about a file."""
    if entry.state is State.UNREADABLE:
        raise UnreadableCheckpoint(f"{entry.path} cannot be read; check its permissions and the disk.")
    if entry.state is State.NEWER:
        raise UnreadableCheckpoint(
            f"{entry.path} was written by a newer ganguard; update with: pip install -U ganguard"
        )
