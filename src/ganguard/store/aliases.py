"""Fixed names such as ``latest_checkpoint.pth``: second names of immutable files, never written through."""

from __future__ import annotations

import contextlib
from pathlib import Path

from ganguard.store import durable, names, set_aside
from ganguard.store.catalog import Catalog, Entry, read
from ganguard.store.durable import why
from ganguard.store.envelope import State


def point(alias: Path, target: Path) -> str | None:
    """Make ``alias`` another name of ``target``; returns a warning where that failed, which harms nothing.

    A hard link costs no space. Where a read-only file can be written all the same (by root, on some shares), a plain
    ``torch.save`` onto a link would reach the checkpoint itself: there it is a copy.
    """
    temporary = durable.temporary_name(alias)
    try:
        if not (durable.read_only_protects(alias.parent) and durable.link(target, temporary)):
            durable.copy(target, temporary)
            durable.protect(temporary)
        durable.replace(temporary, alias)
        durable.sync_folder(alias.parent)
    except OSError as error:
        return f"{alias.name} could not be moved on ({why(error)}); {target.name} itself is safe."
    finally:
        # Renaming one name of a file onto another name of the same file does nothing and leaves both.
        with contextlib.suppress(OSError):
            durable.remove(temporary)
    return None


def clear_the_name(folder: Path, alias_name: str = names.LATEST) -> str | None:
    """See to it that the alias name may be replaced; returns what was done with a file that was in the way.

    A whole checkpoint that no other name carries gets its versioned name back. What is not ours (an older script's
    real file, say) is set aside.
    """
    alias = folder / alias_name
    if not (alias.exists() or alias.is_symlink()):
        return None
    if alias.is_symlink() or not alias.is_file():
        return _aside(folder, alias_name)
    entry = read(alias)
    if entry.state is not State.WHOLE or entry.summary is None:
        return _aside(folder, alias_name)
    if not _only_copy(folder, entry):
        return None
    path = names.free(folder, entry.summary.name)
    if not durable.link(alias, path):
        durable.copy(alias, path)
    durable.sync_folder(folder)
    return f"{alias_name} was the only copy of {path.name}, which has its name back."


def _only_copy(folder: Path, alias: Entry) -> bool:
    return any(entry.path == alias.path for entry in Catalog.of(folder).versioned)


def _aside(folder: Path, alias_name: str) -> str:
    into = set_aside.new_folder(folder, "not_ours")
    set_aside.move(folder, [alias_name], into)
    return f"{alias_name} was no whole checkpoint of ganguard; it is kept as {into}/{alias_name}."
