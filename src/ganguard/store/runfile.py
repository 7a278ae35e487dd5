"""``run.json``: which run and branch a folder belongs to.

It is written durably before anything is set aside, together with the list of what is to be moved, so that a crash
halfway can neither mix two runs nor bring abandoned files back: the next start finishes the move.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ganguard.errors import NoCheckpoint, UnreadableCheckpoint
from ganguard.store import durable, set_aside
from ganguard.store.catalog import Catalog, newest_first
from ganguard.store.durable import why
from ganguard.store.summary import NOTHING, Lineage, Summary, lineage_from_json

NAME = "run.json"


@dataclass(frozen=True, kw_only=True)
class Run:
    """A folder's run. ``lineage[b]``: up to which (step, epoch) the earlier branch b belongs to this one."""

    run: str
    branch: int = 0
    lineage: Lineage = ()
    named: dict[str, str] | None = None  # files that a command began from: absolute path → digest
    pending_files: tuple[str, ...] = ()  # to be moved…
    pending_folder: str = ""  # …to this folder below the checkpoints

    def branched_from(self, start: Summary) -> Run:
        """A new branch that goes on from ``start``, which may lie on this branch or on an abandoned one."""
        here = (start.step, start.epoch)
        kept = tuple(min(until, here) for until in start.lineage)
        abandoned = (NOTHING,) * (self.branch - start.branch)
        return replace(self, branch=self.branch + 1, lineage=(*kept, here, *abandoned))

    def naming(self, path: Path, digest: str) -> Run:
        return replace(self, named={**(self.named or {}), str(path.absolute()): digest})


def new_run() -> Run:
    return Run(run=uuid.uuid4().hex[:12])


def read(folder: Path) -> Run | None:
    """What ``run.json`` says; None where there is none or it is not readable JSON (the files then tell)."""
    try:
        text = (folder / NAME).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UnreadableCheckpoint(f"{folder / NAME} cannot be read: {why(error)}") from error
    except UnicodeDecodeError:
        return None
    try:
        values = json.loads(text)
        values["lineage"] = lineage_from_json(values["lineage"])
        values["pending_files"] = tuple(str(name) for name in values["pending_files"])
        return Run(**values)
    except (ValueError, KeyError, TypeError):
        return None


def write(folder: Path, run: Run) -> None:
    with durable.written_atomically(folder / NAME) as file:
        file.write(json.dumps(asdict(run), indent=1).encode())


def identify(catalog: Catalog) -> Run | None:
    """The run of a folder: what ``run.json`` names, or the only run id in it; None for a folder without checkpoints.

    Raises:
        NoCheckpoint: several runs lie there and nothing tells which is meant.
    """
    recorded = read(catalog.folder)
    if recorded is not None:
        return recorded
    runs = catalog.runs()
    if len(runs) > 1:
        listing = "\n".join(
            f"  run {run}: newest {newest_first(entries)[0].path}" for run, entries in sorted(runs.items())
        )
        raise NoCheckpoint(
            f"{catalog.folder} holds checkpoints of {len(runs)} runs and no {NAME} that says which is meant:\n"
            f"{listing}\nName the file to go on from with --checkpoint-path FILE."
        )
    if not runs:
        return None
    newest = newest_first(next(iter(runs.values())))[0].summary
    assert newest is not None  # heads have one
    return Run(run=newest.run, branch=newest.branch, lineage=newest.lineage)


def switch(folder: Path, run: Run, aside: Sequence[str], into: str) -> list[str]:
    """Make ``run`` the folder's run and move the named files to ``folder/into``; survives a crash anywhere."""
    if aside:
        run = replace(run, pending_files=tuple(aside), pending_folder=into)
    write(folder, run)
    return finish_pending(folder, run)


def finish_pending(folder: Path, run: Run) -> list[str]:
    """Carry out the move that ``run.json`` announces; returns the names that were moved now."""
    if not run.pending_files:
        return []
    moved = set_aside.move(folder, run.pending_files, run.pending_folder)
    write(folder, replace(run, pending_files=(), pending_folder=""))
    return moved
