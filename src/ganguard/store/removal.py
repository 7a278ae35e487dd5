"""The only code that deletes checkpoints.

Before anything goes, one survivor is verified byte by byte and the folder is flushed, under a short lock, and what may
go is decided again under it: a training and a manager may both be at work, and a save may have its name just now.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ganguard.errors import DamagedCheckpoint, UnreadableCheckpoint, UsageError
from ganguard.store import aliases, catalog, commit, durable, interruption, names, runfile
from ganguard.store.catalog import Catalog, Entry, newest_first
from ganguard.store.envelope import State
from ganguard.store.lock import BACKUP, REMOVAL, TRAINING, Lock
from ganguard.store.pair import HISTORY
from ganguard.store.retention import Policy, expendable
from ganguard.store.search import verify_all
from ganguard.store.shelf import Shelf, at

_WAIT_S = 30.0


def current_heads(there: Catalog) -> list[Entry]:
    """The checkpoints of the folder's own run; other runs are nobody's to clean up."""
    run = runfile.identify(there)
    return there.runs().get(run.run, []) if run else []


@dataclass(frozen=True, kw_only=True)
class Removed:
    """What went. ``warning`` tells where that may not survive a power cut; empty where it does."""

    files: tuple[Entry, ...] = ()
    warning: str = ""

    @property
    def paths(self) -> list[Path]:
        return [file.path for file in self.files]


def would_go(where: Path | Shelf, policy: Policy) -> list[Entry]:
    """The files that ``prune`` would remove, as things stand."""
    there = Catalog.of(where)
    going, staying = _going(there, policy)
    return _once(file for head in going for file in _files_of(there, head, staying))


def _once(files: Iterable[Entry]) -> list[Entry]:
    return list({file.path: file for file in files}.values())


def _raise(_path: Path, error: OSError) -> None:
    raise error


def prune(where: Path | Shelf, policy: Policy, *, stays: Callable[[Path, OSError], None] = _raise) -> Removed:
    """Remove what ``policy`` does not keep.

    Args:
        stays: told of a checkpoint that cannot be removed, held open by another program, say; the others go.

    Raises:
        DamagedCheckpoint: no survivor is good; nothing was removed.
        FolderInUse: another removal takes longer than half a minute.
        OSError: the folder cannot be flushed; nothing was removed.
    """
    shelf = at(where)
    if not shelf.folder.is_dir():
        return Removed()
    with removing(shelf):
        there = Catalog.of(shelf)
        going, staying = _going(there, policy)
        if not going:
            return Removed()
        require_survivor(there, staying)
        _sync(shelf)
        return _removed(shelf, remove_all(there, going, staying, stays=stays))


def removing(shelf: Shelf) -> Lock:
    """What whoever removes a run's checkpoints, or backups of them, holds meanwhile."""
    return Lock(shelf.folder, shelf.lock_name(REMOVAL), of=str(shelf), wait_s=_WAIT_S)


@contextlib.contextmanager
def removing_backups(shelf: Shelf, folder: Path) -> Iterator[None]:
    """``removing`` from a folder of backups, into which nobody copies meanwhile."""
    with Lock(folder, BACKUP, wait_s=_WAIT_S), removing(shelf):
        yield


def _sync(shelf: Shelf) -> None:
    for place in shelf.places:
        if place.is_dir():
            durable.sync_folder(place)


def _removed(shelf: Shelf, files: Sequence[Entry]) -> Removed:
    """The files are gone: no answer of the disk undoes that."""
    told = [
        f"A power cut may bring back what was removed: {place} cannot be flushed ({failure})."
        for place in shelf.places
        if files and place.is_dir() and (failure := commit.synced(place))
    ]
    return Removed(files=tuple(files), warning=" ".join(told))


def _going(there: Catalog, policy: Policy) -> tuple[list[Entry], list[Entry]]:
    """What the policy lets go, and the run's other checkpoints."""
    heads = current_heads(there)
    going = expendable(heads, replace(policy, named=policy.named | _named(there.shelf)))
    paths = {entry.path for entry in going}
    return going, [head for head in heads if head.path not in paths]


def delete(file: Path, folder: Path, *, force: bool = False) -> Removed:
    """Remove one checkpoint, its companions too.

    Args:
        file: one of its files.
        folder: the checkpoint folder that ``file`` belongs to (it may also lie in its backups or set-aside files).

    Raises:
        UsageError: the file is an alias, no checkpoint, or outside; or the last good one, and ``force`` is not given.
        DamagedCheckpoint: every survivor is damaged.
        OSError: the folder cannot be flushed, or the file not removed; nothing was.
    """
    require_inside(file, folder)
    shelf = shelf_of(file, folder)
    place = Catalog.beside(file).folder
    copies = _same(place, backups(folder))
    with removing_backups(shelf, place) if copies else removing(shelf):
        home = Catalog.of(replace(shelf, folder=place))
        named = next((e for e in home.entries if _same(e.path, file)), None)
        if named is None:
            raise UsageError(f"{file} is not a checkpoint file. List them with --list.")
        _require_a_checkpoint(home, named, locks=(TRAINING,) if copies else (TRAINING, BACKUP))
        entry = home.head_of(named)
        survivors = [e for e in _elsewhere(shelf, home) if not _same(e.path, entry.path)]
        proven_worthless = entry.state is State.INCOMPLETE or entry in home.orphans
        if not force and not proven_worthless:
            _refuse_the_last(entry, survivors)
        _sync(home.shelf)
        _move_aliases_off(shelf, home, entry, survivors)
        return _removed(home.shelf, remove(home, entry, survivors, tag=names.BACKUP_TAG if copies else None))


def shelf_of(file: Path, folder: Path) -> Shelf:
    """The run of ``folder`` that a file belongs to."""
    entry = catalog.read(file)
    found = (shelf for shelf in runfile.shelves(folder) if shelf.holds(file, entry.state, entry.summary))
    pair = entry.summary.pair if entry.summary else None  # of a run that has nothing in the folder itself
    return next(found, Shelf(folder, pair))


def _require_a_checkpoint(home: Catalog, entry: Entry, *, locks: Collection[str]) -> None:
    name = entry.path.name
    if home.is_in_between(entry, locks=locks):
        raise UsageError(f"{name} is of a checkpoint that is being written or removed. Wait a moment.")
    if home.is_alias(entry):
        raise UsageError(f"{name} is only a second name of the newest checkpoint; delete that one by its own name.")
    if entry.state is State.INCOMPLETE and entry.summary is None and not home.shelf.is_versioned(name):
        raise UsageError(f"{name} is no checkpoint that ganguard knows; remove it by other means.")


def _refuse_the_last(entry: Entry, survivors: list[Entry]) -> None:
    mine = [e for e in survivors if not entry.summary or (e.summary and e.summary.run == entry.summary.run)]
    if not [e for e in mine if e.summary and e.summary.finite]:
        which = "is the last good checkpoint of its run" if entry.summary else "may be the last good checkpoint"
        raise UsageError(
            f"{entry.path.name} {which}. Back it up first with --backup, or add --force to delete it all the same."
        )
    require_survivor(None, mine)


def require_survivor(there: Catalog | None, survivors: Sequence[Entry]) -> Entry:
    """The newest of ``survivors`` that is good, byte by byte.

    Raises:
        DamagedCheckpoint: there is none.
    """
    for entry in newest_first(e for e in survivors if e.summary and e.summary.finite):
        try:
            verify_all(there or Catalog.beside(entry.path), entry)
        except (DamagedCheckpoint, UnreadableCheckpoint):
            continue
        return entry
    raise DamagedCheckpoint(
        "No checkpoint that would remain is good, so nothing is removed. Look closer with --verify."
    )


def left_elsewhere(shelf: Shelf, gone: Entry) -> Entry | None:
    """After ``gone`` was deleted: the newest good backup of its run, where the folder holds nothing of it any more."""
    if gone.summary is None or not _lies_in(shelf, gone):
        return None
    run = gone.summary.run
    if any(e.summary and e.summary.run == run and e.summary.finite for e in Catalog.of(shelf).heads):
        return None
    copies = Catalog.of(replace(shelf, folder=backups(shelf.folder))).heads
    try:
        return require_survivor(None, [e for e in copies if e.summary and e.summary.run == run])
    except DamagedCheckpoint:
        return None


def _elsewhere(shelf: Shelf, home: Catalog) -> list[Entry]:
    """All heads in the checkpoint folder, its backups, and the folder that the file lies in."""
    found = {}
    for place in (shelf.folder, backups(shelf.folder), home.folder):
        for entry in Catalog.of(replace(shelf, folder=place)).heads:
            found[entry.path.resolve()] = entry
    return list(found.values())


def _same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


def remove_all(
    there: Catalog,
    going: Sequence[Entry],
    staying: Sequence[Entry],
    *,
    stays: Callable[[Path, OSError], None],
    tag: str | None = None,
) -> list[Entry]:
    """``remove`` one head after the other; returns the files that went. ``stays`` is told of what cannot be removed."""
    gone, left = list[Entry](), [*staying, *going]
    for entry in going:
        interruption.ask()
        survivors = [e for e in left if e is not entry]
        try:
            gone += remove(there, entry, survivors, tag=tag)
            left = survivors
        except OSError as error:
            stays(entry.path, error)
    return gone


def remove(there: Catalog, entry: Entry, survivors: Sequence[Entry], *, tag: str | None = None) -> list[Entry]:
    """Remove a head, then those of its companions that no survivor beside it needs: all of them or, on errors, none.

    Args:
        tag: whose temporary file a head is while its companions go; by default the shelf's.
    """
    _, *seconds = files = _files_of(there, entry, survivors)
    if not seconds:
        durable.remove(entry.path)
        return files
    hidden = durable.temporary_name(entry.path, there.shelf.tag if tag is None else tag)
    with interruption.undisturbed():  # what would break it off would leave half of it
        durable.replace(entry.path, hidden)
        try:
            for second in seconds:
                durable.remove(second.path)
        except BaseException:
            durable.replace(hidden, entry.path)
            raise
        with contextlib.suppress(OSError):  # it has no name any more; the next start clears it
            durable.remove(hidden)
    return files


def _files_of(there: Catalog, head: Entry, survivors: Sequence[Entry]) -> list[Entry]:
    """A head, and those of its companions that no survivor beside it needs."""
    seconds = {c.digest: c for c in there.companions(head)}
    for entry in survivors if seconds else ():
        shared = [c.digest for c in entry.summary.companions if c.digest in seconds] if entry.summary else []
        if shared and _lies_in(there.shelf, entry):  # asked of few: it costs the system's time
            seconds = {digest: c for digest, c in seconds.items() if digest not in shared}
    return [head, *seconds.values()]


def _lies_in(shelf: Shelf, entry: Entry) -> bool:
    return any(_same(entry.path.parent, place) for place in shelf.places)


def _move_aliases_off(shelf: Shelf, home: Catalog, going: Entry, survivors: Sequence[Entry]) -> None:
    """Aliases of what is deleted would bring it back at the next start: point them at the newest survivor."""
    if not _lies_in(shelf, going):
        return
    files = [going, *home.companions(going)]
    if not _aliases_of(shelf, files):
        return
    run = going.summary.run if going.summary else ""
    beside = (e for e in survivors if e.summary and _lies_in(shelf, e))
    left = newest_first(e for e in beside if e.summary and e.summary.run == run and e.summary.finite)[:1]
    moved = [e.path for head in left for e in (*home.companions(head), head)]
    if moved:
        aliases.point_all(shelf, moved)
    for alias in _aliases_of(shelf, files):
        durable.remove(alias.path)


def _aliases_of(shelf: Shelf, files: Sequence[Entry]) -> list[Entry]:
    """The fixed names that lead to some of these files, or to the same bytes."""
    inodes, digests = {file.inode for file in files}, {file.digest for file in files if file.digest}
    there = (catalog.read(shelf.folder / name) for name in shelf.aliases if (shelf.folder / name).is_file())
    return [alias for alias in there if alias.inode in inodes or alias.digest in digests]


def _named(shelf: Shelf) -> frozenset[str]:
    recorded = runfile.read(shelf)
    return frozenset((recorded.named or {}).values()) if recorded else frozenset()


def backups(folder: Path) -> Path:
    """Where the backups of a checkpoint folder lie: beside it."""
    return folder.absolute().parent / names.BACKUPS


def require_inside(file: Path, folder: Path) -> None:
    """Refuse what is neither in the checkpoint folder, nor set aside in it, nor among its backups.

    Raises:
        UsageError
    """
    if not file.exists():
        raise UsageError(f"There is no file {file}. List the checkpoints with --list.")
    parent = file.absolute().parent.resolve()
    home = folder.absolute().resolve()
    aside = home / names.SET_ASIDE
    if parent not in (home, home / HISTORY, backups(folder).resolve(), aside) and aside not in parent.parents:
        raise UsageError(f"{file} lies outside {folder}. Name the folder that it belongs to with --checkpoint-dir.")


def set_aside_in(folder: Path) -> list[Path]:
    """The files that were set aside, whatever they are."""
    aside = (folder / names.SET_ASIDE).rglob("*")
    return sorted(path for path in aside if path.is_symlink() or not path.is_dir())


def clear_set_aside(folder: Path) -> list[Path]:
    """Remove everything that was set aside, if the folder still holds a good checkpoint; returns the files.

    Raises:
        DamagedCheckpoint: it holds none, so what was set aside may be all there is.
    """
    aside = folder / names.SET_ASIDE
    if not aside.is_dir():
        return []
    with Lock(folder, REMOVAL, wait_s=_WAIT_S):
        files = set_aside_in(folder)
        kept_apart = [catalog.read(path) for path in files if path.suffix == names.SUFFIX and path.is_file()]
        for shelf in {shelf_of(entry.path, folder) for entry in kept_apart}:
            there = Catalog.of(shelf)
            require_survivor(there, there.heads)
        for path in files:
            durable.remove(path)
        _remove_empty(aside)
    return files


def _remove_empty(aside: Path) -> None:
    """What was set aside in the meantime keeps its folder."""
    for folder in [*sorted((p for p in aside.rglob("*") if p.is_dir()), reverse=True), aside]:
        with contextlib.suppress(OSError):
            folder.rmdir()
