"""Fixed names such as ``latest_checkpoint.pth``: second names of immutable files, never written through."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from ganguard.errors import CheckpointError
from ganguard.store import durable, envelope, names, set_aside
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
        if durable.WINDOWS:  # to be replaced, the alias had to become writable, and with it what it was a link to
            _protect_all(alias.parent)
    except OSError as error:
        return f"{alias.name} could not be moved on ({why(error)}); {target.name} itself is safe."
    finally:
        # Renaming one name of a file onto another name of the same file does nothing and leaves both.
        with contextlib.suppress(OSError):
            durable.remove(temporary)
    return None


def _protect_all(folder: Path) -> None:
    for path in folder.glob(f"*{names.SUFFIX}"):
        if names.is_versioned(path.name):
            durable.protect(path)


def repair(folder: Path, newest: Path) -> list[str]:
    """See to it that the alias is another name of ``newest``, which is good; returns what is to be told."""
    note = clear_the_name(folder)
    alias = folder / names.LATEST
    if alias.exists() and (alias.samefile(newest) or _is_good_copy(alias, newest)):
        return [note] if note else []
    return [told for told in (note, point(alias, newest)) if told]


def _is_good_copy(alias: Path, newest: Path) -> bool:
    """A copy is not synced when it is made, so a power cut may have torn it anywhere."""
    try:
        envelope.verify(alias)
        return read(alias).summary == read(newest).summary
    except CheckpointError:
        return False


def clear_the_name(folder: Path, alias_name: str = names.LATEST) -> str | None:
    """See to it that the alias name may be replaced; returns what was done with a file that was in the way.

    A whole checkpoint that no other name carries gets its versioned name back. What is not ours (an older script's
    real file, say) is set aside.
    """
    alias = folder / alias_name
    if not os.path.lexists(alias):
        return None
    if alias.is_symlink() or not alias.is_file():
        return _aside(folder, alias_name)
    entry = read(alias)
    if entry.state is not State.WHOLE or entry.summary is None:
        return _aside(folder, alias_name)
    if not _only_copy(folder, entry):
        return None
    wanted = entry.summary.name if names.is_plain(entry.summary.name) else names.at_step(entry.summary.step)
    path = names.free(folder, wanted)
    _second_name(alias, path)
    return f"{alias_name} was the only copy of {path.name}, which has its name back."


def _second_name(source: Path, path: Path) -> None:
    if durable.read_only_protects(path.parent) and durable.link(source, path):
        durable.sync_folder(path.parent)
        return
    with durable.written_atomically(path) as file, source.open("rb") as reader:
        shutil.copyfileobj(reader, file, 1 << 20)
    durable.protect(path)


def _only_copy(folder: Path, alias: Entry) -> bool:
    return any(entry.path == alias.path for entry in Catalog.of(folder).versioned)


def _aside(folder: Path, alias_name: str) -> str:
    moved = set_aside.move(folder, [alias_name], set_aside.new_folder(folder, "not_ours"))
    return f"{alias_name} was no whole checkpoint of ganguard; it is kept as {moved[alias_name]}."
