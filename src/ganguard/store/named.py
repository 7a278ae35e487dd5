"""A start from a file that the person named: on its run's own line, on a new branch of it, or as a new run.

The same command, typed again, goes on: from the newest descendant of that file, or, where nothing was saved since,
from the file once more, wherever it was set aside to.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ganguard import commands
from ganguard.errors import CheckpointError, DamagedCheckpoint, NoCheckpoint, UnreadableCheckpoint, UsageError
from ganguard.store import catalog, envelope, foreign, names, runfile, search
from ganguard.store.catalog import Catalog, Entry, on_line
from ganguard.store.durable import why
from ganguard.store.envelope import State
from ganguard.store.plans import Plan, Request, going_on
from ganguard.store.runfile import Run
from ganguard.store.search import Search
from ganguard.store.shelf import Shelf
from ganguard.store.summary import Origin, Summary


def means_the_newest(there: Catalog, file: Path) -> bool:
    """Whether a path is a fixed name that stands for the run's newest: not where something else lies there, or lay
    there when the run began from it.
    """
    shelf = there.shelf
    if runfile.spelled(file) not in {runfile.spelled(shelf.folder / alias) for alias in shelf.aliases}:
        return False
    run = run_of(there)
    entry = None if file.is_dir() else _look(file)
    if entry is None:
        return not (run and runfile.spelled(file) in (run.named or {}))
    if entry.summary is not None:
        return run is not None and entry.summary.run == run.run
    return entry.state is not State.OLDER


def run_of(there: Catalog) -> Run | None:
    """The run of a folder; None where there is none, or several and nothing tells which is meant."""
    return runfile.identify(there) if runfile.read(there.shelf) or len(there.runs()) == 1 else None


def from_file(there: Catalog, request: Request, *, verified: bool) -> Plan:
    """Begin at the named file, or go on from what goes on from it.

    Raises:
        UsageError, CheckpointError: it cannot be used; the message says what would help.
    """
    file = request.file
    assert file is not None  # that is what named means
    run = run_of(there)
    start = _look(file)
    if start is not None:
        return _from_entry(there, run, _head_of(start), request, verified=verified)
    digest = (run.named or {}).get(runfile.spelled(file)) if run else None
    if run is None or digest is None:
        raise NoCheckpoint(f"There is no file {file}.{_similar(file)}")
    if not request.branch:
        met = search.newest_valid(there, run, verified=verified)
        if met.found is not None and _has_begun(run, met):
            note = f"{file} is gone, but this run began from it and goes on from {met.found.path.name}."
            return going_on(there, run, met, note)
    moved = _find(there.shelf, file, digest)
    if moved is None:
        raise NoCheckpoint(f"{file} is gone, and nothing good was saved since this run began from it.{_similar(file)}")
    plan = _from_entry(there, run, moved, request, verified=verified)
    return replace(plan, notes=(f"{file} lies in {moved.path} now.", *plan.notes))


def begin_again(there: Catalog, run: Run, met: Search, *, verified: bool) -> Plan | None:
    """Where a run began from a named file and was stopped before its first save: begin there once more."""
    if run.beginning is None or _has_begun(run, met):
        return None
    file, digest = run.beginning
    try:
        start = _find(there.shelf, file, digest)
        request = Request(file=file, companion=Path(run.second) if run.second else None)
        plan = _from_entry(there, run, start, request, verified=verified) if start else None
    except (CheckpointError, UsageError) as error:
        met.notes.append(f"This run began from {file}, which cannot be used any more: {error}")
        return None
    if plan is None:
        return None
    note = f"Nothing good was saved since this run began from {file.name}, so it begins there again."
    return replace(plan, notes=(note, *(n for n in met.notes if n not in plan.notes), *plan.notes))


def _has_begun(run: Run, met: Search) -> bool:
    """Whether something good was saved since the run last began from a named file."""
    if run.beginning is None:
        return True
    _, digest = run.beginning
    found = met.found
    if found is None or found.summary is None:
        return False
    origin = found.summary.origin
    return found.digest == digest or (origin is not None and origin.digest == digest)


def _from_entry(there: Catalog, run: Run | None, start: Entry, request: Request, *, verified: bool) -> Plan:
    assert request.file is not None
    typed = request.file
    _require_a_checkpoint(start)
    digest = _digest(start)
    met = Search()
    if run is not None and not request.branch:
        met = _descendants(there, run, start, digest, verified=verified)
        if met.found is not None and met.found.digest != digest:
            note = (
                f"{met.found.path.name} goes on from {typed.name}, so training continues there. "
                f"To really go back to {typed.name}, add --branch."
            )
            return going_on(there, run, met, note)
    companions = _seconds(start, request.companion, verified=verified)
    notes = list(met.notes)
    if start.summary is not None and not start.summary.finite:
        notes = [f"{start.path.name} holds parameters that are not finite."]
    going, aside, reason = _where(there, run, start, digest, met, request)
    return Plan(
        shelf=there.shelf,
        run=_recorded(going, request, digest, companions if start.summary is None else []),
        start=start,
        companions=tuple(companions),
        origin=Origin(path=str(start.path), digest=digest),
        aside=tuple(dict.fromkeys(aside)),
        reason=reason,
        switches=True,
        notes=tuple(notes),
    )


def _recorded(run: Run, request: Request, digest: str, older_seconds: list[Entry]) -> Run:
    """``run``, which begins from what was typed: the same command then means the same, wherever that lies."""
    assert request.file is not None
    second = ""
    if request.companion is not None and older_seconds:
        second = runfile.spelled(request.companion)
        run = run.naming(request.companion, _digest(older_seconds[0]))
    return replace(run.naming(request.file, digest), second=second)


def _require_a_checkpoint(entry: Entry) -> None:
    """Raises UnreadableCheckpoint where a file cannot be read, or is of another kind, which is told."""
    search.require_readable(entry)
    if entry.summary is None:
        foreign.require_none(entry.path)


def _seconds(start: Entry, typed: Path | None, *, verified: bool) -> list[Entry]:
    """The other files of the checkpoint that was named: found beside it by digest, or named too."""
    if start.summary is None and start.state is State.OLDER:
        return [_older_second(start, typed)] if typed else []
    siblings = Catalog.beside(start.path)
    given = _look(typed) if typed else None
    if typed is not None and given is None:
        raise NoCheckpoint(f"There is no file {typed}.{_similar(typed)}")
    if given is not None:
        siblings = replace(siblings, entries=(given, *siblings.entries))
        if given.digest not in {c.digest for c in (start.summary.companions if start.summary else ())}:
            raise UsageError(f"{typed} is not the second file of {start.path}: they were not saved together.")
    if not verified and start.state is State.WHOLE:
        return siblings.companions(start)
    return _require_good(siblings, start)


def _older_second(start: Entry, typed: Path) -> Entry:
    """The second file of an older pair: as named, or set aside with the first."""
    there = [found for path in (typed, start.path.with_name(typed.name)) if (found := _look(path))]
    if not there:
        raise NoCheckpoint(f"There is no file {typed}.{_similar(typed)}")
    found = next((entry for entry in there if entry.state is State.OLDER), there[0])
    _require_a_checkpoint(found)
    if found.state is not State.OLDER:
        raise UsageError(f"{found.path} is not the second file of {start.path}: an older script did not write it.")
    return found


def _where(
    there: Catalog, run: Run | None, start: Entry, digest: str, met: Search, request: Request
) -> tuple[Run, list[str], str]:
    """The run that goes on from ``start``, the names that have to be set aside for it, and why."""
    first = start.summary
    if run is not None and first is not None and first.run == run.run:
        if on_line(first, run.branch, run.lineage) and not request.branch:
            return run, met.aside(there), "damaged"
        going = run.branched_from(first)
        return going, list(_left_behind(there, going)), "newer"
    if run is not None and not request.branch and digest in (run.named or {}).values():
        others = [there.name_of(e) for e in there.entries if e.summary is None or e.summary.run != run.run]
        return run, [*met.aside(there), *others], "old_run"
    return runfile.new_run(request.called), [there.name_of(e) for e in there.entries], "old_run"


def _left_behind(there: Catalog, going: Run) -> Iterator[str]:
    """Names of the run's checkpoints that do not lie on the way to the new branch."""
    for head in there.runs().get(going.run, []):
        if head.summary and not on_line(head.summary, going.branch, going.lineage):
            yield from there.names_of_all(head)


def _descendants(there: Catalog, run: Run, start: Entry, digest: str, *, verified: bool) -> Search:
    """The newest valid checkpoint of ``run`` that goes on from ``start``."""
    first = start.summary
    same_line = first is not None and first.run == run.run and on_line(first, run.branch, run.lineage)

    def goes_on(summary: Summary) -> bool:
        if summary.origin is not None and summary.origin.digest == digest:
            return True
        return first is not None and same_line and summary.order >= first.order

    return search.newest_valid(there, run, verified=verified, wanted=goes_on)


def _require_good(siblings: Catalog, start: Entry) -> list[Entry]:
    """Raises DamagedCheckpoint where the named checkpoint is not good; returns its companions."""
    if start.is_head and (lacking := siblings.lacking(start)):
        raise DamagedCheckpoint(f"{start.path} lacks its second file {lacking[0]}. Put the two side by side again.")
    try:
        return search.verify_all(siblings, start)
    except DamagedCheckpoint as error:
        raise DamagedCheckpoint(
            f"{error}. Name another file, or leave out --checkpoint-path to go on from the newest good one."
        ) from error


def _look(file: Path) -> Entry | None:
    """The entry of a file, None where there is none."""
    if file.is_dir():
        raise UsageError(f"{file} is a folder. Name a checkpoint file in it.{_similar(file / names.LATEST)}")
    try:
        return catalog.read(file)
    except FileNotFoundError:
        return None


def _head_of(entry: Entry) -> Entry:
    """Either file of a pair may be named, or a fixed name, which a training beside us may move on at any moment.

    Raises:
        DamagedCheckpoint: it is a second file, and its first is not there.
    """
    if entry.summary is None:
        return entry
    there = Catalog.beside(entry.path)
    head = there.by_its_own_name(there.head_of(entry))
    if not head.is_head:
        raise DamagedCheckpoint(f"{entry.path} is a second file whose first is not there. Put the two side by side.")
    return head


def _digest(entry: Entry) -> str:
    try:
        return entry.digest or envelope.file_digest(entry.path)
    except OSError as error:
        raise UnreadableCheckpoint(f"{entry.path} cannot be read: {why(error)}.") from error


def lies_at(shelf: Shelf, entry: Entry) -> Path:
    """Where a file lies that a start may have moved since, or given its own name back."""
    for found in _everywhere(shelf, entry.path):
        if found.inode == entry.inode or (entry.digest and found.digest == entry.digest):
            return found.path
    return entry.path


def _everywhere(shelf: Shelf, file: Path) -> Iterator[Entry]:
    """What lies where ``file`` was, in the folder, and where the folder's files were set aside to."""
    if at_hand := _look(file):
        yield at_hand
    aside = sorted(path for path in (shelf.folder / names.SET_ASIDE).glob("*") if path.is_dir())
    for place in (*shelf.places, *reversed(aside)):
        yield from catalog.scan(place)


def _find(shelf: Shelf, file: Path, digest: str) -> Entry | None:
    """The file with this digest."""
    for entry in _everywhere(shelf, file):
        if entry.digest == digest or (entry.state is State.OLDER and _digest(entry) == digest):
            return entry
    return None


def _similar(file: Path) -> str:
    close = difflib.get_close_matches(file.name, [p.name for p in file.parent.glob("*.pth")], n=1)
    if close:
        return f" Did you mean {file.parent / close[0]}?"
    if not file.parent.is_dir():
        return f" Nor is there a folder {file.parent}."
    return f" List what is there with: {commands.manager('--checkpoint-dir', file.parent, '--list')}"
