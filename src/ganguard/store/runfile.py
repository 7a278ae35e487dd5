"""``run.json``: which run and branch a folder belongs to.

It is written durably before anything is set aside, together with the list of what is to be moved, so that a crash
halfway can neither mix two runs nor bring abandoned files back: the next start finishes the move.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from ganguard.errors import NoCheckpoint, UnreadableCheckpoint, UsageError
from ganguard.store import durable, names, plain, reading, set_aside
from ganguard.store.catalog import Catalog, newest_first
from ganguard.store.durable import why
from ganguard.store.pair import HISTORY, Pair, clean
from ganguard.store.shelf import Shelf, at
from ganguard.store.summary import NOTHING, Lineage, Summary, lineage_from_json, pair_from_json

NAME = "run.json"
_LONGEST_NAME = 40  # characters in a run's id


@dataclass(frozen=True, kw_only=True)
class Run:
    """A folder's run. ``lineage[b]``: up to which (step, epoch) the earlier branch b belongs to this one."""

    run: str
    branch: int = 0
    lineage: Lineage = ()
    named: dict[str, str] | None = None  # files that a command began from: absolute path → digest
    second: str = ""  # the second file that was named with the last of them, an older script's; absolute path
    pending_files: tuple[str, ...] = ()  # to be moved…
    pending_folder: str = ""  # …to this folder below the checkpoints
    pair: Pair | None = None  # the layout, where its checkpoints are pairs

    def branched_from(self, start: Summary) -> Run:
        """A new branch that goes on from ``start``, which may lie on this branch or on an abandoned one."""
        here = (start.step, start.epoch)
        kept = tuple(min(until, here) for until in start.lineage)
        abandoned = (NOTHING,) * (self.branch - start.branch)
        return replace(self, branch=self.branch + 1, lineage=(*kept, here, *abandoned))

    def naming(self, path: Path, digest: str) -> Run:
        """The same run, beginning from ``path``: the last of ``named``."""
        others = {p: d for p, d in (self.named or {}).items() if p != spelled(path)}
        return replace(self, named={**others, spelled(path): digest})

    @property
    def beginning(self) -> tuple[Path, str] | None:
        """The file, and its digest, that a command last began from."""
        if not self.named:
            return None
        path, digest = list(self.named.items())[-1]
        return Path(path), digest


def spelled(path: Path) -> str:
    """One spelling of a path, however it was typed."""
    return os.path.abspath(path)  # noqa: PTH100  # Path.absolute() keeps "..", resolve() follows the alias


def new_run(called: str = "") -> Run:
    """A run whose id tells a person when it began, and on what: folders are named after it."""
    name = re.sub(r"[\s_]+", "-", clean(called))[:_LONGEST_NAME] if called else ""  # "_branch_1" follows an id
    words = (datetime.datetime.now().strftime("%Y%m%d"), name, uuid.uuid4().hex[:8])
    return Run(run="_".join(filter(None, words)))


def read(where: Path | Shelf) -> Run | None:
    """What ``run.json`` says; None where there is none or it is damaged (the files then tell).

    Raises:
        UnreadableCheckpoint: it cannot be read now.
    """
    return _read(at(where).run_file)


def _read(file: Path) -> Run | None:
    try:
        values = reading.read_json(file)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UnreadableCheckpoint(f"{file} cannot be read: {why(error)}. Mend that first.") from error
    except ValueError:
        return None
    try:
        known = {f.name: values[f.name] for f in fields(Run) if f.name in values}
        known["lineage"] = lineage_from_json(known["lineage"])
        known["pending_files"] = tuple(known["pending_files"])
        known["pair"] = pair_from_json(known["pair"]) if known.get("pair") else None
        run = Run(**known)
        return run if _well_formed(run) else None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, UsageError):
        return None


def shelves_of_pairs(folder: Path) -> list[Shelf]:
    """The shelf of every run of pairs in a folder, by what the runs and the checkpoints say of themselves."""
    pairs: dict[str, Pair] = {}
    everything = Catalog.all_in(folder).entries
    for entry in newest_first(e for e in everything if e.summary):
        if entry.summary and entry.summary.pair:
            pairs.setdefault(entry.summary.pair.key, entry.summary.pair)
    recorded = (_read(file) for file in sorted(folder.glob("run_*.json")))
    pairs |= {run.pair.key: run.pair for run in recorded if run and run.pair}
    return [Shelf(folder, pairs[key]) for key in sorted(pairs)]


def shelves(folder: Path) -> list[Shelf]:
    """Every run's shelf in a folder, that of single files too; that alone where nothing tells of any."""
    found = shelves_of_pairs(folder)
    single = Shelf(folder)
    rest = [e for e in Catalog.of(single).entries if not any(s.holds(e.path, e.state, e.summary) for s in found)]
    return [*found, single] if rest or not found or single.run_file.exists() else found


def _well_formed(run: Run) -> bool:
    texts = [run.run, run.second, run.pending_folder, *run.pending_files]
    if run.named is not None:
        texts += [*run.named, *dict(run.named).values()]
    into = Path(run.pending_folder).parts
    inside = ".." not in into and (not run.pending_files or into[:1] == (names.SET_ASIDE,))
    return (
        all(isinstance(text, str) for text in texts)
        and names.stays_inside(run.run)
        and plain.is_count(run.branch)
        and len(run.lineage) == run.branch
        and inside
        and all(_is_below(name) for name in run.pending_files)
    )


def _is_below(name: str) -> bool:
    """Whether this names a checkpoint in the folder or its history, and nowhere else."""
    return Path(name).name == name.removeprefix(f"{HISTORY}/") and name.endswith(names.SUFFIX)


def write(where: Path | Shelf, run: Run) -> None:
    shelf = at(where)
    with durable.written_atomically(shelf.run_file, shelf.tag) as file:
        file.write(json.dumps(asdict(replace(run, pair=shelf.pair)), indent=1).encode())


def identify(catalog: Catalog) -> Run | None:
    """The run of a folder: what ``run.json`` names, or the only run id in it; None for a folder without checkpoints.

    Raises:
        NoCheckpoint: several runs lie there and nothing tells which is meant.
    """
    recorded = read(catalog.shelf)
    if recorded is not None:
        return replace(recorded, pending_files=(), pending_folder="")
    runs = catalog.runs()
    if len(runs) > 1:
        raise NoCheckpoint(
            f"{catalog.folder} holds checkpoints of {len(runs)} runs and no {catalog.shelf.run_file.name} that says "
            "which is meant:",
            *(f"  run {run}: newest {newest_first(entries)[0].path}" for run, entries in sorted(runs.items())),
            "Name the file to go on from with --checkpoint-path FILE.",
        )
    if not runs:
        return None
    newest = newest_first(next(iter(runs.values())))[0].summary
    assert newest is not None  # heads have one
    return Run(run=newest.run, branch=newest.branch, lineage=newest.lineage)


def switch(where: Path | Shelf, run: Run, aside: Sequence[str], into: str) -> dict[str, Path]:
    """Make ``run`` the shelf's run and move the named files to ``into`` below its folder; survives a crash anywhere.

    Returns where each of them lies now.
    """
    write(where, replace(run, pending_files=tuple(aside), pending_folder=into if aside else ""))
    return finish_pending(where)


def finish_pending(where: Path | Shelf) -> dict[str, Path]:
    """Carry out the move that ``run.json`` announces, if it does; returns where each file lies now."""
    run = read(where)
    if run is None or not run.pending_files:
        return {}
    moved = set_aside.move(at(where).folder, run.pending_files, run.pending_folder)
    write(where, replace(run, pending_files=(), pending_folder=""))
    return moved
