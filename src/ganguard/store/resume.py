"""From which checkpoint a start goes on, and what has to be set aside for that.

``plan`` only reads; ``carry_out`` moves files and needs the folder's lock.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ganguard.errors import NoCheckpoint
from ganguard.store import aliases, durable, named, names, runfile, search, set_aside, spared
from ganguard.store.catalog import Catalog, Entry, newest_first
from ganguard.store.envelope import State
from ganguard.store.plans import Plan, Request, going_on, naming, older_to_name, some
from ganguard.store.runfile import Run
from ganguard.store.search import Search
from ganguard.store.shelf import Shelf

__all__ = ["Plan", "Request", "carry_out", "plan", "settings", "to_name"]
_LISTED = 10


def plan(where: Path | Shelf, request: Request, *, verified: bool = True) -> Plan:
    """Decide from which checkpoint to go on. Changes nothing.

    Args:
        where: a folder, or one run's shelf of it.
        verified: read every byte of the checkpoint chosen; False only to look at its summary.

    Raises:
        NoCheckpoint, DamagedCheckpoint, UnreadableCheckpoint: none can be used; the message says what would help.
    """
    there = _as_if_settled(Catalog.of(where))
    shelf = there.shelf
    if request.afresh:
        aside = tuple(there.name_of(e) for e in there.entries)
        begun = runfile.new_run(request.called)
        return Plan(shelf=shelf, run=begun, start=None, aside=aside, reason="old_run", switches=True)
    if request.companion is not None and named.means_the_newest(there, request.companion):
        request = replace(request, companion=None)
    if request.file is not None and (request.branch or not named.means_the_newest(there, request.file)):
        return named.from_file(there, request, verified=verified)
    run = runfile.identify(there)
    if run is None:
        _refuse_to_start_from_zero(there, None, Search(), required=bool(request.required))
        begun = runfile.new_run(request.called)
        return Plan(shelf=shelf, run=begun, start=None, switches=True, notes=tuple(_elsewhere(shelf)))
    met = search.newest_valid(there, run, verified=verified)
    if again := named.begin_again(there, run, met, verified=verified):
        return again
    if met.found is None:
        return _from_zero(there, run, met, request)
    return going_on(there, run, met)


def _from_zero(there: Catalog, run: Run, met: Search, request: Request) -> Plan:
    """A run without a checkpoint. Second files whose first is not there are none, but are kept all the same."""
    orphans = {entry.path for entry in there.orphans}
    only_orphans = all(entry.path in orphans for entry in there.entries)
    if request.required or not only_orphans:
        _refuse_to_start_from_zero(there, run, met, required=bool(request.required))
    if own := [e for e in elsewhere(there.shelf) if e.summary and e.summary.run == run.run]:
        raise NoCheckpoint(
            f"{there.shelf} belongs to run {run.run}, of which it holds no checkpoint, and a whole one lies elsewhere.",
            f"To go on from that:  {naming(own[-1].path)}",
            "To start afresh:  --no-checkpoint",
        )
    # A new id, so that nothing of the run that lost its checkpoints is written over.
    gone = f"{there.shelf} belongs to run {run.run}, of which it holds no checkpoint; a new run begins."
    return Plan(
        shelf=there.shelf,
        run=runfile.new_run(request.called),
        start=None,
        aside=tuple(met.aside(there)),
        reason="damaged",
        switches=True,
        notes=(gone, *met.notes, *_elsewhere(there.shelf)),
    )


def settings(where: Path | Shelf, request: Request) -> tuple[Entry | None, dict[str, Any]]:
    """The checkpoint that will be gone on from, and the settings it was saved under. Changes nothing.

    Raises:
        CheckpointError: as ``plan``.
    """
    start = plan(where, request, verified=False).start
    if start is not None and start.summary is not None and "config" in start.summary.spared:
        start = plan(where, request).start  # what does not fit into a summary is believed once its bytes are
    return start, (spared.value_of(start, "config") or {}) if start else {}


def carry_out(plan: Plan) -> tuple[Path | None, list[str]]:
    """Move what is to be set aside, durably announced first. Needs the folder's lock.

    Returns:
        Where the checkpoint to load lies now, and what is to be told.
    """
    shelf = plan.shelf
    for place in shelf.places:
        durable.make_folder(place)
    moved = runfile.finish_pending(shelf)  # of a start that a crash interrupted
    into = set_aside.new_folder(plan.folder, shelf.aside(plan.reason or "old_run"))
    if plan.switches:
        moved |= runfile.switch(shelf, plan.run, plan.aside, into)
        for parent in plan.folder.absolute().parents:  # whoever made them, the new run is not to hang in the air
            with contextlib.suppress(OSError):
                durable.sync_folder(parent)
    else:
        moved |= set_aside.move(plan.folder, plan.aside, into)
    path, cleared = _ready(plan, moved)
    told = list(plan.notes)
    told += [f"{offer.text} {naming(*(named.lies_at(shelf, file) for file in offer.files))}" for offer in plan.offers]
    for place in sorted({path.parent for path in moved.values()}):
        told.append(f"Set aside in {place}: {some([n for n, path in moved.items() if path.parent == place])}.")
    return path, [*told, *cleared]


def _ready(plan: Plan, moved: Mapping[str, Path]) -> tuple[Path | None, list[str]]:
    """Where the checkpoint to load lies after ``moved``, and what was done so that the fixed names can be its own."""
    shelf, start = plan.shelf, plan.start
    if start is None:
        return None, aliases.clear_the_names(shelf)
    inside = next((p for p in shelf.places if p.absolute() == start.path.parent.absolute()), None)
    name = start.path.name if inside in (None, shelf.folder) else f"{inside.name}/{start.path.name}"
    path = moved.get(name, start.path) if inside else start.path
    if path == start.path and inside and start.summary is not None and start.summary.finite:
        return path, aliases.repair(shelf, start, plan.companions)
    return path, aliases.clear_the_names(shelf)


def _as_if_settled(there: Catalog) -> Catalog:
    """The folder as it will be once a move that a crash interrupted is finished."""
    recorded = runfile.read(there.shelf)
    pending = set(recorded.pending_files) if recorded else set()
    return Catalog(there.shelf, tuple(e for e in there.entries if there.name_of(e) not in pending))


def _refuse_to_start_from_zero(there: Catalog, run: Run | None, met: Search, *, required: bool) -> None:
    """Raise where checkpoints exist and none can be used, or where one was demanded."""
    if not there.entries:
        if required:
            whose = f" of {there.shelf.pair.name}" if there.shelf.pair else ""
            raise NoCheckpoint(
                f"There is no checkpoint{whose} in {there.shelf.folder}, and one is demanded: without that a new run "
                "starts.",
                *_elsewhere(there.shelf),
            )
        return
    search.require_all_readable(there)
    heads = [e for e in there.heads if e not in met.damaged]
    usable = [e for e in there.versioned if e.state is State.OLDER or e in heads]
    reasons = [*met.notes, *_reasons(there, run, met, usable)]
    lines = [f"{there.shelf} holds checkpoints, but none that this run may go on from by itself:"]
    lines += [f"  {reason}" for reason in reasons[:_LISTED]]
    if len(reasons) > _LISTED:
        lines.append(f"  … and {len(reasons) - _LISTED} more")
    if offered := newest_first(heads)[:1] or older_to_name(there):
        lines.append(f"To go on from one all the same:  {naming(*(e.path for e in offered))}")
    lines += _elsewhere(there.shelf)
    instead = ", in place of what demands one" if required else ""
    lines.append(f"To start afresh, setting them aside:  --no-checkpoint{instead}")
    raise NoCheckpoint(*lines)


def _elsewhere(shelf: Shelf) -> list[str]:
    """Likewise, with the options that go on from them."""
    return [f"A whole one lies elsewhere:  {naming(entry.path)}" for entry in elsewhere(shelf)]


def to_name(shelf: Shelf) -> list[Entry]:
    """What a person may name where nothing is gone on from by itself: the newest, else an older script's, a backup."""
    there = Catalog.of(shelf)
    return newest_first(there.heads)[:1] or list(older_to_name(there)[:1]) or elsewhere(shelf)


def elsewhere(shelf: Shelf) -> list[Entry]:
    """The newest checkpoint among the backups, and of each time when some were set aside."""
    aside = shelf.folder / names.SET_ASIDE
    kept = [place for place in sorted(aside.iterdir()) if "_damaged" not in place.name] if aside.is_dir() else []
    places = [shelf.folder.absolute().parent / names.BACKUPS, *kept]
    found = []
    for place in places:
        heads = Catalog.of(replace(shelf, folder=place)).heads if place.is_dir() else []
        found += newest_first(e for e in heads if e.summary and e.summary.finite)[:1]
    return found[-3:]


def _reasons(there: Catalog, run: Run | None, met: Search, usable: list[Entry]) -> Iterator[str]:
    """Why each of them is not gone on from, where the search has not said so already."""
    for entry in there.versioned:
        name = entry.path.name
        if entry.state is State.OLDER:
            yield f"{name} carries no digest: an older script wrote it, or it was changed since."
        elif entry in usable and entry.summary and (run is None or entry.summary.run != run.run):
            yield f"{name} is of another run ({entry.summary.run})."
        elif entry in usable and entry.summary and entry.summary.finite:
            yield f"{name} is of a branch that was left."
        elif entry not in usable and entry not in met.damaged:
            yield f"{name} is no whole checkpoint."
