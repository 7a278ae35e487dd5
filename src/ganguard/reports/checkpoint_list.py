"""The list of checkpoints: what each is, what they take together, what a cleanup would free. Needs no torch."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ganguard.reports.console import duration, size
from ganguard.store import names, removal, retention, runfile
from ganguard.store.catalog import Catalog, Entry, newest_first, on_line, scan
from ganguard.store.envelope import State
from ganguard.store.retention import Policy
from ganguard.store.summary import Kind, Summary

_COLUMNS = ("file", "what", "epoch", "step", "losses", "FID", "size", "age", "state")
_RIGHT = {"epoch", "step", "size", "age"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One file of the list."""

    entry: Entry
    shown: str  # its path as the person would type it
    what: tuple[str, ...]
    state: str

    def to_json(self) -> dict[str, Any]:
        summary = self.entry.summary
        values: dict[str, Any] = {
            "file": str(self.entry.path),
            "what": list(self.what),
            "state": self.state,
            "bytes": self.entry.size,
            "modified": self.entry.modified,
        }
        if summary is not None:
            values |= {
                "run": summary.run,
                "branch": summary.branch,
                "epoch": summary.epoch,
                "batch": summary.batch,
                "step": summary.step,
                "images": summary.images,
                "means": summary.means,
                "score": summary.score,
                "saved_at": summary.saved_at,
            }
        return values


@dataclass(frozen=True, kw_only=True)
class CheckpointList:
    """A checkpoint folder with its backups and what was set aside."""

    folder: Path
    rows: list[Row]
    bytes: int  # of all files, each counted once
    set_aside_files: int
    set_aside_bytes: int
    cleanup_bytes: int

    def to_json(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
            "checkpoints": [row.to_json() for row in self.rows],
            "bytes": self.bytes,
            "set_aside": {"files": self.set_aside_files, "bytes": self.set_aside_bytes},
            "cleanup_would_free": self.cleanup_bytes,
        }


def make(folder: Path) -> CheckpointList:
    """Read the list from the ends of the files."""
    there = Catalog.of(folder)
    rows = list(_rows_of(there))
    backups = [_plain_row(e, "backup") for e in scan(removal.backups(folder))]
    aside = [_plain_row(e, "set aside") for place in _set_aside(folder) for e in scan(place)]
    going = _expendable(there)
    return CheckpointList(
        folder=folder,
        rows=[*rows, *backups, *aside],
        bytes=_bytes_once(row.entry for row in [*rows, *backups, *aside]),
        set_aside_files=len(aside),
        set_aside_bytes=_bytes_once(row.entry for row in aside),
        cleanup_bytes=_bytes_once([*going, *(c for head in going for c in there.companions(head))]),
    )


def _rows_of(there: Catalog) -> Iterator[Row]:
    marks = _marks(there)
    for entry in _in_order(there):
        lacking = there.lacking(entry) if entry.is_head else []
        state = "incomplete" if lacking else str(entry.state.value)
        yield Row(entry=entry, shown=str(entry.path), what=_what(entry, marks), state=state)


def _in_order(there: Catalog) -> list[Entry]:
    """Oldest position first, as a person reads a list whose end stays on the screen; what has no position first."""
    with_position = [e for e in there.entries if e.summary]
    return [e for e in there.entries if not e.summary] + newest_first(with_position)[::-1]


def _marks(there: Catalog) -> dict[Path, list[str]]:
    """What a file is beyond its kind."""
    marks: dict[Path, list[str]] = {}
    run = runfile.read(there.folder)
    heads = removal.current_heads(there) if run or len(there.runs()) == 1 else []
    on = [e for e in heads if e.summary and (not run or on_line(e.summary, run.branch, run.lineage))]
    for entry in newest_first(e for e in on if e.summary and e.summary.finite)[:1]:
        marks.setdefault(entry.path, []).append("latest")
    for entry in retention.best(heads):
        marks.setdefault(entry.path, []).append("best")
    mine = {e.path for e in heads}
    for entry in there.heads:
        if heads and entry.path not in mine:
            marks.setdefault(entry.path, []).append("other run")
    return marks


def _what(entry: Entry, marks: dict[Path, list[str]]) -> tuple[str, ...]:
    if entry.path.name == names.LATEST:
        return ("alias",)
    if entry.state is State.OLDER:
        return ("older",)
    if entry.summary is None:
        return ("?",)
    return (*marks.get(entry.path, []), *_kind(entry.summary))


def _kind(summary: Summary) -> list[str]:
    if summary.kind is Kind.EPOCH and summary.epoch % Policy().keep_every == 0:
        return ["milestone"]
    words = [str(summary.kind.value)]
    return words if summary.finite else [*words, "not finite"]


def _plain_row(entry: Entry, what: str) -> Row:
    return Row(entry=entry, shown=str(entry.path), what=(what,), state=str(entry.state.value))


def _set_aside(folder: Path) -> list[Path]:
    aside = folder / names.SET_ASIDE
    return sorted(p for p in aside.iterdir() if p.is_dir()) if aside.is_dir() else []


def _expendable(there: Catalog) -> list[Entry]:
    if not there.runs():
        return []
    run = runfile.read(there.folder)
    named = frozenset((run.named or {}).values()) if run else frozenset()
    if run is None and len(there.runs()) > 1:
        return []
    return retention.expendable(removal.current_heads(there), Policy(named=named))


def _bytes_once(entries: Iterable[Entry]) -> int:
    return sum({entry.inode: entry.size for entry in entries}.values())


def lines(listing: CheckpointList) -> Iterator[str]:
    """The list as text."""
    if not listing.rows:
        inner = listing.folder / "checkpoints"
        hint = f" There are some in {inner}: --checkpoint-dir {inner}" if inner.is_dir() else ""
        there = f"no checkpoints in {listing.folder}." if listing.folder.is_dir() else f"no folder {listing.folder}."
        yield f"There {'are' if listing.folder.is_dir() else 'is'} {there}{hint}"
        return
    table = [_cells(row) for row in listing.rows]
    widths = {c: max(len(c), *(len(cells[c]) for cells in table)) for c in _COLUMNS}
    yield "  ".join(c.rjust(widths[c]) if c in _RIGHT else c.ljust(widths[c]) for c in _COLUMNS).rstrip()
    for cells in table:
        yield "  ".join(
            cells[c].rjust(widths[c]) if c in _RIGHT else cells[c].ljust(widths[c]) for c in _COLUMNS
        ).rstrip()
    free = size(listing.cleanup_bytes)
    yield f"{len(listing.rows)} files, {size(listing.bytes)} on disk; --cleanup would free {free}."
    if listing.set_aside_files:
        yield (
            f"{listing.set_aside_files} of them ({size(listing.set_aside_bytes)}) are set aside: "
            "--cleanup --set-aside removes those."
        )
    yield "State is read from the end of each file; --verify reads every byte."


def _cells(row: Row) -> dict[str, str]:
    summary = row.entry.summary
    position = summary if summary and summary.kind is not Kind.COMPANION else None
    age = datetime.datetime.now().timestamp() - row.entry.modified
    return {
        "file": row.shown,
        "what": ", ".join(row.what),
        "epoch": _epoch(position) if position else "",
        "step": str(position.step) if position else "",
        "losses": _losses(position) if position else "",
        "FID": _score(position.score) if position else "",
        "size": size(row.entry.size),
        "age": duration(max(0.0, age)),
        "state": row.state,
    }


def _epoch(summary: Summary) -> str:
    return f"{summary.epoch + 1} batch {summary.batch}" if summary.batch else str(summary.epoch)


def _losses(summary: Summary) -> str:
    return " ".join(f"{n.removeprefix('loss_')} {v:.3f}" for n, v in summary.means.items() if n.startswith("loss"))


def _score(score: dict[str, Any] | None) -> str:
    return f"{score['value']:.2f}" if score and isinstance(score.get("value"), int | float) else ""
