"""What a person asks of a start, and what the start will do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ganguard import commands
from ganguard.errors import UsageError
from ganguard.store import runfile
from ganguard.store.catalog import Catalog, Entry, newest_first
from ganguard.store.envelope import State
from ganguard.store.runfile import Run
from ganguard.store.search import Search
from ganguard.store.shelf import Shelf
from ganguard.store.summary import Origin


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the person asked for; the default resumes if it can.

    Args:
        required: fail where there is no checkpoint (``--resume``); by default where a file is named.
        afresh: start from zero and set the old run aside (``--no-checkpoint``).
        file: the checkpoint to go on from (``--checkpoint-path``). A fixed name stands for the newest.
        companion: the second file, where ``file`` is of a pair that does not tell where its other file is.
        branch: really go back to ``file``, setting aside what is newer (``--branch``).
        begins_at: where the run is to begin if ``file`` is an older script's and does not tell: any of epoch (finished
            ones), step, images; the rest is 0.
        called: what a new run is on, such as its images' name: a part of its id, and so of its folders' names.

    Raises:
        UsageError: they contradict each other.
    """

    required: bool | None = None
    afresh: bool = False
    file: Path | None = None
    companion: Path | None = None
    branch: bool = False
    begins_at: Mapping[str, int] | None = None
    called: str = ""

    def __post_init__(self) -> None:
        if self.required is None:
            object.__setattr__(self, "required", self.file is not None)
        if self.afresh and (self.required or self.file or self.branch):
            raise UsageError(
                "--no-checkpoint starts afresh; it cannot be combined with --resume, --checkpoint-path or --branch."
            )
        if self.branch and self.file is None:
            raise UsageError("--branch needs to know where to go back to: add --checkpoint-path FILE.")
        if self.companion is not None and self.file is None:
            raise UsageError(f"{self.companion} is the second file of a pair; name the first one too.")
        if unknown := set(self.begins_at or ()) - {"epoch", "step", "images"}:
            raise UsageError(f"begins_at takes epoch, step and images, not {', '.join(sorted(unknown))}.")


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What is not gone on from by itself, and the files whose names would do it."""

    text: str
    files: tuple[Entry, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a start will do."""

    shelf: Shelf
    run: Run
    start: Entry | None  # the checkpoint to load; None: from zero
    companions: tuple[Entry, ...] = ()  # its other files
    origin: Origin | None = None  # the file that the person named, if this start begins from it
    aside: tuple[str, ...] = ()  # names in the folder to be set aside
    reason: str = ""
    switches: bool = False  # whether run.json changes
    notes: tuple[str, ...] = ()  # to be told
    offers: tuple[Offer, ...] = ()  # to be told too, once it is known where those files will lie

    @property
    def folder(self) -> Path:
        return self.shelf.folder


def going_on(there: Catalog, run: Run, met: Search, *first: str) -> Plan:
    """Go on from the checkpoint that was found; ``first`` are notes to be told before others."""
    recorded = runfile.read(there.shelf)
    return Plan(
        shelf=there.shelf,
        run=run,
        start=met.found,
        companions=tuple(met.companions),
        aside=tuple(met.aside(there)),
        reason="damaged",
        switches=recorded is None or recorded.run != run.run,
        notes=(*first, *met.notes),
        offers=tuple(_ignored(there, run)),
    )


def _ignored(there: Catalog, run: Run) -> Iterator[Offer]:
    """What lies there and is not of this run."""
    foreign = newest_first(e for r, entries in there.runs().items() if r != run.run for e in entries)
    if foreign:
        names = some([e.path.name for e in foreign])
        yield Offer(text=f"Of another run, ignored: {names}. To go on from there instead:", files=(foreign[0],))
    older = [e for e in there.versioned if e.state is State.OLDER]
    if older and (files := older_to_name(there)):
        names = some([e.path.name for e in older])
        text = f"Without a digest, so not resumed unasked: {names}. To go on from there all the same:"
        yield Offer(text=text, files=files)


def older_to_name(there: Catalog) -> tuple[Entry, ...]:
    """The last of the older files by name, with its second file where there is one; none where a first one lacks."""
    older = {e.path.name: e for e in there.versioned if e.state is State.OLDER}
    pair = there.shelf.pair
    if pair is None:
        return tuple(older.values())[-1:]
    second, first = pair.aliases
    seconds = {name: name.replace(pair.head, pair.companion, 1) for name in older if name.startswith(pair.head)}
    seconds |= {first: second} if first in older else {}
    for name in reversed(seconds):
        return (older[name], *([older[seconds[name]]] if seconds[name] in older else []))
    return ()


def naming(first: Path, *second: Path) -> str:
    """The options that go on from a file, and from its second where that does not tell where it is."""
    return commands.typed(["--checkpoint-path", first, *(w for path in second for w in ("--checkpoint-critic", path))])


def some(items: list[str]) -> str:
    """A few of many, in words."""
    return ", ".join(items[:5]) + (f" and {len(items) - 5} more" if len(items) > 5 else "")
