"""The list of checkpoints: what each is, what they take together, what a cleanup would free. Needs no torch."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ganguard import commands
from ganguard.errors import CheckpointError
from ganguard.printable import one_line
from ganguard.reports.console import counted, duration, size
from ganguard.store import foreign, names, removal, retention, runfile, spared
from ganguard.store.catalog import Catalog, Entry, newest_first, on_line, scan
from ganguard.store.envelope import State
from ganguard.store.retention import Policy
from ganguard.store.summary import Kind, Summary

_COLUMNS = ("file", "what", "epoch", "step", "losses", "FID", "size", "age", "state")
_LISTED = {"means", "score", "best"}  # of what a summary can spare
_RIGHT = {"epoch", "step", "size", "age"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One checkpoint of the list, or a file that is none."""

    entry: Entry
    what: tuple[str, ...]
    state: str
    companions: tuple[Entry, ...] = ()  # its other files
    told: Mapping[str, Any] = field(default_factory=dict)  # by a file without a summary, once it was opened

    @property
    def shown(self) -> str:
        """Its path as the person would type it."""
        return str(self.entry.path)

    @property
    def files(self) -> tuple[Entry, ...]:
        return (self.entry, *self.companions)

    @property
    def bytes(self) -> int:
        return sum(entry.size for entry in self.files)

    @property
    def summary(self) -> Summary | None:
        """What the checkpoint says of itself; what did not fit there and cannot be read elsewhere is left out."""
        spared_here = self.entry.summary and set(self.entry.summary.spared) & _LISTED
        with contextlib.suppress(CheckpointError):
            return spared.whole(self.entry) if spared_here else self.entry.summary
        return self.entry.summary

    def to_json(self) -> dict[str, Any]:
        summary = self.summary
        values: dict[str, Any] = {
            "file": str(self.entry.path),
            "what": list(self.what),
            "state": self.state,
            "bytes": self.bytes,
            "modified": self.entry.modified,
            **self.told,
        }
        if self.companions:
            values["companions"] = [str(entry.path) for entry in self.companions]
        if summary is not None:
            values |= {
                "pair": summary.pair.name if summary.pair else None,
                "run": summary.run,
                "branch": summary.branch,
                "epoch": summary.epoch,
                "batch": summary.batch,
                "step": summary.step,
                "images": summary.images,
                "means": summary.means,
                "score": summary.score,
                "best": summary.best,
                "milestone": summary.milestone,
                "saved_at": summary.saved_at,
            }
        return values


@dataclass(frozen=True, kw_only=True)
class CheckpointList:
    """A checkpoint folder with its backups and what was set aside."""

    folder: Path
    exists: bool
    rows: list[Row]
    files: int
    bytes: int  # of all files, each counted once
    set_aside_files: int
    set_aside_bytes: int
    cleanup_bytes: int
    refused: tuple[str, ...] = ()  # files that could not be opened, and why

    def to_json(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
            "exists": self.exists,
            "checkpoints": [row.to_json() for row in self.rows],
            "bytes": self.bytes,
            "set_aside": {"files": self.set_aside_files, "bytes": self.set_aside_bytes},
            "cleanup_would_free": self.cleanup_bytes,
        }


def make(folder: Path, *, about: Callable[[Path], Mapping[str, Any]] | None = None) -> CheckpointList:
    """Read the list from the ends of the files.

    Args:
        about: opens an older script's file and tells what it says of itself; without it those are not opened.
    """
    shelves = runfile.shelves(folder)
    catalogs = [Catalog.of(shelf) for shelf in shelves]
    rows = {row.entry.path: row for there in catalogs for row in _rows_of(there, shared=len(shelves) > 1)}
    copies, away = Catalog.all_in(removal.backups(folder)), list(map(Catalog.all_in, _set_aside(folder)))
    aside = [row for there in away for row in _plain_rows(there, "set aside")]
    refused: list[str] = []
    all_rows = [*rows.values(), *_plain_rows(copies, "backup"), *aside]
    if about is not None:
        all_rows = [_opened(row, about, refused) for row in all_rows]
    files = {entry.path: entry for there in (*catalogs, copies, *away) for entry in there.entries}
    return CheckpointList(
        folder=folder,
        exists=folder.is_dir(),
        rows=all_rows,
        files=len(files),
        bytes=_bytes_once(files.values()),
        set_aside_files=sum(len(row.files) for row in aside),
        set_aside_bytes=_bytes_once(entry for row in aside for entry in row.files),
        cleanup_bytes=_bytes_once(file for there in catalogs for file in _expendable(there)),
        refused=tuple(refused),
    )


def _opened(row: Row, about: Callable[[Path], Mapping[str, Any]], refused: list[str]) -> Row:
    """A row with what its file says of itself, where that is an older script's."""
    if row.entry.state is not State.OLDER:
        return row
    try:
        return replace(row, told=about(row.entry.path))
    except CheckpointError as error:
        refused.append(str(error))
        return row


def _rows_of(there: Catalog, *, shared: bool) -> Iterator[Row]:
    marks = _marks(there)
    within = _within_pairs(there)
    for entry in _in_order(there):
        if entry.digest in within and not entry.is_head:
            continue
        what = _what(there, entry, marks)
        if shared and there.shelf.pair:
            what = (there.shelf.pair.name, *what)
        yield Row(entry=entry, what=what, state=_state(there, entry), companions=tuple(_seconds(there, entry)))


def _within_pairs(there: Catalog) -> set[str]:
    """Digests of second files whose first is there: the two are one row."""
    return {c.digest for head in there.heads if head.summary for c in head.summary.companions}


def _seconds(there: Catalog, entry: Entry) -> list[Entry]:
    """The other files of a head; of a head's alias, their aliases."""
    if not there.is_alias(entry):
        return there.companions(entry)
    twins = [e for c in there.companions(entry) for e in there.entries if e.digest == c.digest and there.is_alias(e)]
    return twins or there.companions(entry)


def _state(there: Catalog, entry: Entry) -> str:
    if entry.state is State.WHOLE and (there.lacking(entry) if entry.is_head else entry in there.orphans):
        return "being written or removed" if there.is_in_between(entry) else "incomplete"
    return str(entry.state.value)


def _in_order(there: Catalog) -> list[Entry]:
    """Oldest position first, as a person reads a list whose end stays on the screen; what has no position first."""
    with_position = [e for e in there.entries if e.summary]
    return [e for e in there.entries if not e.summary] + newest_first(with_position)[::-1]


def _marks(there: Catalog) -> dict[Path, list[str]]:
    """What a file is beyond its kind."""
    marks: dict[Path, list[str]] = {}
    run = runfile.read(there.shelf)
    heads = removal.current_heads(there) if run or len(there.runs()) == 1 else []
    on = [e for e in heads if e.summary and (not run or on_line(e.summary, run.branch, run.lineage))]
    for entry in newest_first(e for e in on if e.summary and e.summary.finite)[:1]:
        marks.setdefault(entry.path, []).append("latest")
    with contextlib.suppress(CheckpointError):  # a score that is only in a body which cannot be read
        for entry in retention.best(heads):
            marks.setdefault(entry.path, []).append("best")
    mine = {e.path for e in heads}
    for entry in there.heads:
        if heads and entry.path not in mine:
            marks.setdefault(entry.path, []).append("other run")
    return marks


def _what(there: Catalog, entry: Entry, marks: dict[Path, list[str]]) -> tuple[str, ...]:
    if there.is_alias(entry):
        return ("alias",)
    if entry.summary is None and entry.state in (State.OLDER, State.INCOMPLETE):
        other = foreign.of(entry.path)
        return (other.name if other else "older" if entry.state is State.OLDER else "?",)
    if entry.summary is None:
        return ("?",)
    return (*marks.get(entry.path, []), *_kind(entry.summary, retention.usual(there.shelf)))


def _kind(summary: Summary, usual: Policy) -> list[str]:
    regular = summary.kind is Kind.EPOCH and usual.keep_every and summary.epoch % usual.keep_every == 0
    if summary.milestone or regular:
        return ["milestone"]
    words = [str(summary.kind.value)]
    return words if summary.finite else [*words, "not finite"]


def _plain_rows(there: Catalog, what: str) -> list[Row]:
    within = _within_pairs(there)
    own = (e for e in there.entries if e.is_head or e.digest not in within)
    return [Row(entry=e, what=(what,), state=_state(there, e), companions=tuple(_seconds(there, e))) for e in own]


def _set_aside(folder: Path) -> list[Path]:
    aside = folder / names.SET_ASIDE
    return sorted(p for p in aside.iterdir() if p.is_dir()) if aside.is_dir() else []


def _expendable(there: Catalog) -> list[Entry]:
    """The files that a cleanup would remove: none where it would not know which run is meant."""
    if runfile.read(there.shelf) is None and len(there.runs()) != 1:
        return []
    with contextlib.suppress(CheckpointError):  # likewise: a cleanup stops there
        return removal.would_go(there.shelf, retention.usual(there.shelf))
    return []


def _bytes_once(entries: Iterable[Entry]) -> int:
    return sum({entry.inode: entry.size for entry in entries}.values())


def lines(listing: CheckpointList) -> Iterator[str]:
    """The list as text."""
    if not listing.exists:
        yield f"There is no folder {listing.folder}. Train first, or name the right one with --checkpoint-dir."
    elif not listing.rows:
        inner = listing.folder / "checkpoints"
        hint = f" There are some in {inner}: {commands.typed(['--checkpoint-dir', inner])}" if scan(inner) else ""
        yield f"There are no checkpoints in {listing.folder}.{hint}"
    if listing.rows:
        yield from _table(listing)


def _table(listing: CheckpointList) -> Iterator[str]:
    table = [{column: one_line(cell) for column, cell in _cells(row).items()} for row in listing.rows]
    widths = {c: max(len(c), *(len(cells[c]) for cells in table)) for c in _COLUMNS}
    yield "  ".join(c.rjust(widths[c]) if c in _RIGHT else c.ljust(widths[c]) for c in _COLUMNS).rstrip()
    for cells in table:
        yield "  ".join(
            cells[c].rjust(widths[c]) if c in _RIGHT else cells[c].ljust(widths[c]) for c in _COLUMNS
        ).rstrip()
    free = size(listing.cleanup_bytes)
    yield f"{counted(listing.files, 'file')}, {size(listing.bytes)} on disk; --cleanup would free {free}."
    if listing.set_aside_files:
        yield (
            f"{listing.set_aside_files} of them ({size(listing.set_aside_bytes)}) are set aside: "
            "--cleanup --set-aside removes those."
        )
    yield from listing.refused
    if any(row.entry.state is State.OLDER and not row.told for row in listing.rows) and not listing.refused:
        yield "Files of older scripts are not opened for this: --list --older does, which takes longer."
    yield "State is read from the end of each file; --verify reads every byte."


def _cells(row: Row) -> dict[str, str]:
    summary = row.summary
    position = summary if summary and summary.kind is not Kind.COMPANION else None
    told = row.told
    age = datetime.datetime.now().timestamp() - row.entry.modified
    return {
        "file": row.shown,
        "what": ", ".join(row.what),
        "epoch": _epoch(position) if position else str(told.get("epoch", "")),
        "step": str(position.step) if position else "",
        "losses": _losses(position.means if position else told),
        "FID": _score(position.score) if position else f"best {told['best_fid']:.2f}" if "best_fid" in told else "",
        "size": size(row.bytes),
        "age": duration(max(0.0, age)),
        "state": row.state,
    }


def _epoch(summary: Summary) -> str:
    return f"{summary.epoch + 1} batch {summary.batch}" if summary.batch else str(summary.epoch)


def _losses(means: Mapping[str, Any]) -> str:
    return " ".join(f"{n.removeprefix('loss_')} {v:.3f}" for n, v in means.items() if n.startswith("loss"))


def _score(score: dict[str, Any] | None) -> str:
    return f"{score['value']:.2f}" if score and isinstance(score.get("value"), int | float) else ""
