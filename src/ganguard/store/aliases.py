"""Fixed names such as ``latest_checkpoint.pth``: second names of immutable files, never written through."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from ganguard.errors import CheckpointError
from ganguard.store import commit, durable, envelope, names, set_aside
from ganguard.store.catalog import Catalog, Entry, read
from ganguard.store.durable import why
from ganguard.store.envelope import State
from ganguard.store.pair import HISTORY
from ganguard.store.shelf import Shelf, at

T = TypeVar("T")


def point_all(where: Path | Shelf, files: Sequence[Path]) -> list[str]:
    """Make the fixed names those of a checkpoint's files, its head the last of them; returns warnings."""
    shelf = at(where)
    pointed = (point(shelf.folder / alias, file, shelf.tag) for alias, file in _matched(shelf, files))
    return [warning for warning in pointed if warning]


def _matched(shelf: Shelf, files: Sequence[T]) -> list[tuple[str, T]]:
    """Each fixed name with its file: there may be fewer of either, but both end with the head's."""
    count = min(len(shelf.aliases), len(files))
    return list(zip(shelf.aliases[-count:], files[-count:], strict=True))


def point(alias: Path, target: Path, tag: str = "") -> str | None:
    """Make ``alias`` another name of ``target``; returns a warning where it is not, or may not last.

    A hard link costs no space. Where a read-only file can be written all the same (by root, on some shares), a plain
    ``torch.save`` onto a link would reach the checkpoint itself: there it is a copy.
    """
    temporary = durable.temporary_name(alias, tag)
    try:
        if not (durable.read_only_protects(alias.parent, tag) and durable.link(target, temporary)):
            durable.copy(target, temporary)
            durable.protect(temporary)
        durable.replace(temporary, alias)
        if durable.WINDOWS:  # to be replaced, the alias had to become writable, and with it what it was a link to
            _protect_all(alias.parent)
    except OSError as error:
        return f"{alias.name} could not be moved on ({why(error)}); {target.name} itself is safe."
    finally:
        # Renaming one name of a file onto another name of the same file does nothing and leaves both.
        _clear_up(alias, target, tag)
    if unsynced := commit.synced(alias.parent):
        return f"{alias.name} was moved on, which a power cut may undo: {alias.parent} cannot be flushed ({unsynced})."
    return None


def _clear_up(alias: Path, target: Path, tag: str) -> None:
    """Remove what is left of this process's moves, an earlier one too, whose file was held open then."""
    mine = (p for p in durable.temporaries(alias.parent, tag) if f"-{os.getpid()}-" in p.name)
    with contextlib.suppress(OSError):
        for left in [path for path in mine if path.name.endswith(f"-{alias.name}")]:
            durable.remove(left)
            durable.protect(target)  # under Windows it became writable with this other name of it


def _protect_all(folder: Path) -> None:
    for place in (folder, folder / HISTORY):
        for path in place.glob(f"*{names.SUFFIX}"):
            if names.is_versioned(path.name) or place != folder:
                durable.protect(path)


def repair(where: Path | Shelf, newest: Entry, companions: Sequence[Entry] = ()) -> list[str]:
    """See to it that the aliases are other names of ``newest``, which is good; returns what is to be told.

    A file of another run that this one begins from gets none of its fixed names.
    """
    shelf = at(where)
    told = clear_the_names(shelf)
    if not shelf.holds(newest.path, newest.state, newest.summary):
        return told
    for name, target in _matched(shelf, [*companions, newest]):
        alias = shelf.folder / name
        if alias.exists() and (alias.samefile(target.path) or _is_good_copy(alias, target)):
            continue
        if warning := point(alias, target.path, shelf.tag):
            told.append(warning)
    return told


def _is_good_copy(alias: Path, newest: Entry) -> bool:
    """A copy may be torn anywhere: earlier versions did not flush it."""
    try:
        envelope.verify(alias)
        return read(alias).summary == newest.summary
    except CheckpointError:
        return False


def clear_the_names(where: Path | Shelf) -> list[str]:
    """See to it that the alias names may be replaced; returns what was done with files that were in the way.

    A whole checkpoint that no other name carries gets its versioned name back. What is not ours (an older script's
    real file, say) is set aside.
    """
    shelf = at(where)
    return [told for alias in shelf.aliases if (told := _clear(shelf, alias))]


def _clear(shelf: Shelf, alias_name: str) -> str | None:
    alias = shelf.folder / alias_name
    if not os.path.lexists(alias):
        return None
    if alias.is_symlink() or not alias.is_file():
        return _aside(shelf, alias_name)
    entry = read(alias)
    there = Catalog.of(shelf)
    if entry.state is State.INCOMPLETE and (whole := _torn_from(there, entry)):
        durable.remove(alias)
        return f"{alias_name} was torn, as by a power cut, and is made anew; {whole.path.name} holds all of it."
    if entry.state is not State.WHOLE or entry.summary is None:
        return _aside(shelf, alias_name)
    if not shelf.holds(alias, entry.state, entry.summary):
        return _aside(shelf, alias_name, "a checkpoint of another run")
    if not any(other.path == alias for other in there.versioned):
        return None
    wanted = entry.summary.name if names.is_plain(entry.summary.name) else names.at_step(entry.summary.step)
    head = there.head_of(entry)
    home = shelf.home(head.summary.kind if head.summary else entry.summary.kind)
    durable.make_folder(home)
    path = names.free(home, wanted)
    _second_name(alias, path, shelf.tag)
    return f"{alias_name} was the only copy of {path.name}, which has its name back."


def _torn_from(there: Catalog, torn: Entry) -> Entry | None:
    """The checkpoint file that holds all that an incomplete one does: a power cut leaves a copy short, or with gaps."""
    whole = (e for e in there.versioned if e.state is State.WHOLE and e.size >= torn.size)
    return next((entry for entry in whole if _is_rest_of(torn.path, entry.path)), None)


def _is_rest_of(torn: Path, whole: Path) -> bool:
    """Whether every byte of ``torn`` is that of ``whole``, or zero."""
    with torn.open("rb") as rest, whole.open("rb") as file:
        while piece := rest.read(1 << 16):
            same = file.read(len(piece))
            if (
                piece != same
                and any(piece)
                and any(one and one != other for one, other in zip(piece, same, strict=True))
            ):
                return False
    return True


def _second_name(source: Path, path: Path, tag: str) -> None:
    if durable.read_only_protects(path.parent, tag) and durable.link(source, path):
        durable.sync_folder(path.parent)
        return
    with durable.written_atomically(path, tag) as file, source.open("rb") as reader:
        shutil.copyfileobj(reader, file, 1 << 20)
    durable.protect(path)


def _aside(shelf: Shelf, alias_name: str, was: str = "no whole checkpoint of ganguard") -> str:
    into = set_aside.new_folder(shelf.folder, shelf.aside("not_ours"))
    moved = set_aside.move(shelf.folder, [alias_name], into)
    return f"{alias_name} was {was}; it is kept as {moved[alias_name]}."
