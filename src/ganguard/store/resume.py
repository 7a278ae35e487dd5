"""From which checkpoint a start goes on, and what has to be set aside for that.

``plan`` only reads; ``carry_out`` moves files and needs the folder's lock.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ganguard.errors import NoCheckpoint
from ganguard.store import aliases, durable, named, names, runfile, search, set_aside
from ganguard.store.catalog import Catalog, Entry, newest_first
from ganguard.store.envelope import State
from ganguard.store.plans import Plan, Request, going_on, some
from ganguard.store.runfile import Run
from ganguard.store.search import Search
from ganguard.store.shelf import Shelf

__all__ = ["Plan", "Request", "carry_out", "plan"]
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
        return Plan(shelf=shelf, run=runfile.new_run(), start=None, aside=aside, reason="old_run", switches=True)
    if request.file is not None:
        return named.from_file(there, request, verified=verified)
    run = runfile.identify(there)
    if run is None:
        _refuse_to_start_from_zero(there, None, Search(), required=request.required)
        return Plan(shelf=shelf, run=runfile.new_run(), start=None, switches=True)
    met = search.newest_valid(there, run, verified=verified)
    if again := named.begin_again(there, run, met, verified=verified):
        return again
    if met.found is None:
        return _from_zero(there, run, met, required=request.required)
    return going_on(there, run, met)


def _from_zero(there: Catalog, run: Run, met: Search, *, required: bool) -> Plan:
    """A run without a checkpoint. Second files whose first was never written are none, but are kept all the same."""
    orphans = {entry.path for entry in there.orphans}
    only_orphans = all(entry.path in orphans for entry in there.entries)
    if required or not only_orphans:
        _refuse_to_start_from_zero(there, run, met, required=required)
    # A new id, so that nothing of the run that lost its checkpoints is written over.
    gone = f"{there.shelf} belongs to run {run.run}, of which it holds no checkpoint; a new run begins."
    return Plan(
        shelf=there.shelf,
        run=runfile.new_run(),
        start=None,
        aside=tuple(met.aside(there)),
        reason="damaged",
        switches=True,
        notes=(gone, *met.notes, *_elsewhere(there.shelf)),
    )


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
    told = list(plan.notes)
    for place in sorted({path.parent for path in moved.values()}):
        told.append(f"Set aside in {place}: {some([n for n, path in moved.items() if path.parent == place])}.")
    if plan.start is None:
        return None, told
    path = plan.start.path
    inside = next((p for p in shelf.places if p.absolute() == path.parent.absolute()), None)
    name = path.name if inside in (None, shelf.folder) else f"{inside.name}/{path.name}"
    if inside and name in moved:
        return moved[name], told
    if inside and plan.start.summary is not None and plan.start.summary.finite:
        told += aliases.repair(shelf, plan.start, plan.companions)
    return path, told


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
                "starts."
            )
        return
    search.require_all_readable(there)
    usable = [e for e in there.versioned if e.state is State.OLDER or (e in there.heads and e not in met.damaged)]
    reasons = [*met.notes, *_reasons(there, run, met, usable)]
    lines = [f"{there.shelf} holds checkpoints, but none that this run may go on from by itself:"]
    lines += [f"  {reason}" for reason in reasons[:_LISTED]]
    if len(reasons) > _LISTED:
        lines.append(f"  … and {len(reasons) - _LISTED} more")
    if usable:
        best = newest_first(e for e in usable if e.summary) or usable[-1:]
        lines.append(f"To go on from one all the same:  --checkpoint-path {best[0].path}")
    lines += _elsewhere(there.shelf)
    lines.append("To start afresh, setting them aside:  --no-checkpoint")
    raise NoCheckpoint("\n".join(lines))


def _elsewhere(shelf: Shelf) -> list[str]:
    """The newest checkpoint among the backups, and among what was set aside, with the option that goes on from it."""
    aside = shelf.folder / names.SET_ASIDE
    kept = [place for place in sorted(aside.iterdir()) if "_damaged" not in place.name] if aside.is_dir() else []
    places = [shelf.folder.absolute().parent / names.BACKUPS, *kept]
    lines = []
    for place in places:
        heads = Catalog.of(replace(shelf, folder=place)).heads if place.is_dir() else []
        finite = newest_first(e for e in heads if e.summary and e.summary.finite)
        lines += [f"A whole one lies elsewhere:  --checkpoint-path {e.path}" for e in finite[:1]]
    return lines[-3:]


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
