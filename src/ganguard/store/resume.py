"""From which checkpoint a start goes on, and what has to be set aside for that.

``plan`` only reads; ``carry_out`` moves files and needs the folder's lock.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field, replace
from pathlib import Path

from ganguard.errors import DamagedCheckpoint, NoCheckpoint, UsageError
from ganguard.store import catalog, envelope, names, runfile, set_aside
from ganguard.store.catalog import Catalog, Entry, newest_first, on_line
from ganguard.store.envelope import State
from ganguard.store.runfile import Run
from ganguard.store.summary import Origin, Summary


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the person asked for; the default resumes if it can.

    Args:
        required: fail where there is no checkpoint (``--resume``).
        afresh: start from zero and set the old run aside (``--no-checkpoint``).
        file: the checkpoint to go on from (``--checkpoint-path``).
        branch: really go back to ``file``, setting aside what is newer (``--branch``).

    Raises:
        UsageError: they contradict each other.
    """

    required: bool = False
    afresh: bool = False
    file: Path | None = None
    branch: bool = False

    def __post_init__(self) -> None:
        if self.afresh and (self.required or self.file or self.branch):
            raise UsageError(
                "--no-checkpoint starts afresh; it cannot be combined with --resume, --checkpoint-path or --branch."
            )
        if self.branch and self.file is None:
            raise UsageError("--branch needs to know where to go back to: add --checkpoint-path FILE.")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a start will do."""

    folder: Path
    run: Run
    start: Entry | None  # the checkpoint to load; None: from zero
    origin: Origin | None = None  # the file that the person named, if this start begins from it
    aside: tuple[str, ...] = ()  # names in ``folder`` to be set aside
    reason: str = ""
    switches: bool = False  # whether run.json changes
    notes: tuple[str, ...] = ()  # to be told


@dataclass
class _Search:
    """The newest valid checkpoint, and what was met on the way to it."""

    found: Entry | None = None
    damaged: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def plan(folder: Path, request: Request, *, verified: bool = True) -> Plan:
    """Decide from which checkpoint to go on. Changes nothing.

    Args:
        verified: read every byte of the checkpoint chosen; False only to look at its summary.

    Raises:
        NoCheckpoint, DamagedCheckpoint, UnreadableCheckpoint: none can be used; the message says what would help.
    """
    there = _as_if_settled(Catalog.of(folder))
    if request.afresh:
        aside = tuple(e.path.name for e in there.entries)
        return Plan(folder=folder, run=runfile.new_run(), start=None, aside=aside, reason="old_run", switches=True)
    if request.file is not None:
        return _from_file(there, request.file, branch=request.branch, verified=verified)
    run = runfile.identify(there)
    search = _newest_valid(there, run, verified=verified) if run else _Search()
    if search.found is None:
        _refuse_to_start_from_zero(there, run, search, required=request.required)
        return Plan(folder=folder, run=run or runfile.new_run(), start=None, switches=run is None)
    return _going_on(there, run or runfile.new_run(), search)


def carry_out(plan: Plan) -> tuple[Path | None, list[str]]:
    """Move what is to be set aside, durably announced first. Needs the folder's lock.

    Returns:
        Where the checkpoint to load lies now, and what is to be told.
    """
    recorded = runfile.read(plan.folder)
    if recorded is not None:
        runfile.finish_pending(plan.folder, recorded)
    told = list(plan.notes)
    path = plan.start.path if plan.start else None
    if plan.switches:
        into = set_aside.new_folder(plan.folder, plan.reason or "old_run")
        moved = runfile.switch(plan.folder, plan.run, plan.aside, into)
    else:
        into = set_aside.new_folder(plan.folder, plan.reason or "damaged")
        moved = set_aside.move(plan.folder, plan.aside, into)
    if moved:
        told.append(f"Set aside in {plan.folder / into}: {_some(moved)}.")
    if path is not None and path.name in moved and path.parent == plan.folder:
        path = plan.folder / into / path.name
    return path, told


def _as_if_settled(there: Catalog) -> Catalog:
    """The folder as it will be once a move that a crash interrupted is finished."""
    recorded = runfile.read(there.folder)
    pending = set(recorded.pending_files) if recorded else set()
    return Catalog(there.folder, tuple(e for e in there.entries if e.path.name not in pending))


def _newest_valid(there: Catalog, run: Run, *, verified: bool) -> _Search:
    search = _Search()
    _stop_at_what_is_not_proven(there)
    for entry in there.versioned:
        torn = entry.state is State.INCOMPLETE and (entry.summary or names.is_versioned(entry.path.name))
        if torn or (entry.is_head and there.lacking(entry)):
            search.damaged += there.names_of(entry)
            search.notes.append(f"{entry.path.name} is incomplete.")
    for entry in newest_first(_on_line(there, run)):
        if entry.summary and not entry.summary.finite:
            search.notes.append(f"{entry.path.name} holds parameters that are not finite; it is not resumed unasked.")
            continue
        for twin in there.same_bytes(entry):
            try:
                if verified:
                    _verify(there, twin)
                search.found = twin
                return search
            except DamagedCheckpoint as error:
                search.damaged += there.names_of(twin)
                search.notes.append(f"{error}.")
    return search


def _on_line(there: Catalog, run: Run) -> list[Entry]:
    heads = there.runs().get(run.run, [])
    return [e for e in heads if e.summary and on_line(e.summary, run.branch, run.lineage)]


def _verify(there: Catalog, entry: Entry) -> None:
    envelope.verify(entry.path)
    for companion in there.companions(entry):
        envelope.verify(companion.path)


def _stop_at_what_is_not_proven(there: Catalog) -> None:
    for entry in there.entries:
        if entry.state in (State.UNREADABLE, State.NEWER):
            envelope.verify(entry.path)  # raises with the reason


def _going_on(there: Catalog, run: Run, search: _Search) -> Plan:
    foreign = [e for r, entries in there.runs().items() if r != run.run for e in entries]
    foreign += [e for e in there.versioned if e.state is State.OLDER]
    notes = [*search.notes]
    if foreign:
        notes.append(f"Not of this run, ignored: {_some([e.path.name for e in foreign])}.")
    recorded = runfile.read(there.folder)
    known = recorded is not None and recorded.run == run.run
    return Plan(
        folder=there.folder,
        run=run,
        start=search.found,
        aside=tuple(search.damaged),
        reason="damaged",
        switches=not known,
        notes=tuple(notes),
    )


def _refuse_to_start_from_zero(there: Catalog, run: Run | None, search: _Search, *, required: bool) -> None:
    """Raise where checkpoints exist and none can be used, or where one was demanded."""
    unusable = [e for e in there.versioned if e.state is not State.INCOMPLETE or e.summary or _versioned(e)]
    if not unusable:
        if required:
            raise NoCheckpoint(f"There is no checkpoint in {there.folder}. Leave out --resume to start a new run.")
        return
    lines = [f"{there.folder} holds checkpoints, but none that this run may go on from by itself:"]
    lines += [f"  {note}" for note in search.notes]
    for entry in unusable[-10:]:
        if entry.state is State.OLDER:
            lines.append(f"  {entry.path.name} carries no digest: an older script wrote it, or it was changed since.")
        elif run and entry.summary and entry.summary.run != run.run:
            lines.append(f"  {entry.path.name} is of another run ({entry.summary.run}).")
    lines.append(f"To go on from one all the same:  --checkpoint-path {unusable[-1].path}")
    lines.append("To start afresh, setting them aside:  --no-checkpoint")
    raise NoCheckpoint("\n".join(lines))


def _versioned(entry: Entry) -> bool:
    return names.is_versioned(entry.path.name) or entry.path.name == names.LATEST


def _from_file(there: Catalog, file: Path, *, branch: bool, verified: bool) -> Plan:
    recorded = runfile.read(there.folder)
    if not file.exists():
        if recorded and str(file.absolute()) in (recorded.named or {}) and not branch:
            search = _newest_valid(there, recorded, verified=verified)
            if search.found is not None:
                note = f"{file} is gone, but this run began from it and goes on from {search.found.path.name}."
                return replace(_going_on(there, recorded, search), notes=(note, *search.notes))
        raise NoCheckpoint(f"There is no file {file}.{_similar(file)}")
    entry = catalog.read(file)
    if entry.state is State.UNREADABLE or entry.state is State.NEWER:
        envelope.verify(file)  # raises with the reason
    digest = entry.digest or envelope.file_digest(file)
    run = runfile.identify(there) if recorded or len(there.runs()) == 1 else None
    if run is not None and not branch:
        search = _descendants(there, run, entry, digest, verified=verified)
        if search.found is not None and search.found.digest != digest:
            note = (
                f"{search.found.path.name} goes on from {file.name}, so training continues there. "
                f"To really go back to {file.name}, add --branch."
            )
            going_on = _going_on(there, run, search)
            return replace(going_on, notes=(note, *going_on.notes))
    return _begin_at(there, run, entry, digest, branch=branch, verified=verified)


def _descendants(there: Catalog, run: Run, start: Entry, digest: str, *, verified: bool) -> _Search:
    """The newest valid checkpoint of ``run`` that goes on from ``start``."""

    def goes_on(summary: Summary) -> bool:
        if summary.origin is not None and summary.origin.digest == digest:
            return True
        first = start.summary
        same_line = first is not None and first.run == run.run and on_line(first, run.branch, run.lineage)
        return first is not None and same_line and summary.order >= first.order

    later = tuple(e for e in there.entries if not e.is_head or (e.summary and goes_on(e.summary)))
    return _newest_valid(Catalog(there.folder, later), run, verified=verified)


def _begin_at(there: Catalog, run: Run | None, start: Entry, digest: str, *, branch: bool, verified: bool) -> Plan:
    """Begin at the named file: on the run's own line, on a new branch of it, or as a new run."""
    if start.state is State.INCOMPLETE or (verified and start.state is State.WHOLE):
        siblings = there if start.path.parent == there.folder else Catalog.of(start.path.parent)
        if start.is_head and (lacking := siblings.lacking(start)):
            raise DamagedCheckpoint(f"{start.path} lacks its second file {lacking[0]}. Put the two side by side again.")
        _verify(siblings, start)
    first = start.summary
    notes = []
    if first is not None and not first.finite:
        notes.append(f"{start.path.name} holds parameters that are not finite.")
    origin = Origin(path=str(start.path), digest=digest)
    named = start.path
    if first is not None and run is not None and first.run == run.run:
        if on_line(first, run.branch, run.lineage) and not branch:
            going = run.naming(named, digest)
            return Plan(folder=there.folder, run=going, start=start, origin=origin, switches=True, notes=tuple(notes))
        going = run.branched_from(first).naming(named, digest)
        aside = [
            e.path.name
            for e in there.runs().get(run.run, [])
            if e.summary and not (on_line(e.summary, going.branch, going.lineage) and e.summary.order <= first.order)
        ]
        return Plan(
            folder=there.folder,
            run=going,
            start=start,
            origin=origin,
            aside=tuple(aside),
            reason="newer",
            switches=True,
            notes=tuple(notes),
        )
    going = runfile.new_run().naming(named, digest)
    aside = [e.path.name for e in there.entries]
    return Plan(
        folder=there.folder,
        run=going,
        start=start,
        origin=origin,
        aside=tuple(aside),
        reason="old_run",
        switches=True,
        notes=tuple(notes),
    )


def _similar(file: Path) -> str:
    close = difflib.get_close_matches(file.name, [p.name for p in file.parent.glob("*.pth")], n=1)
    return f" Did you mean {file.parent / close[0]}?" if close else " List what is there with --list-checkpoints."


def _some(items: list[str]) -> str:
    return ", ".join(items[:5]) + (f" and {len(items) - 5} more" if len(items) > 5 else "")
