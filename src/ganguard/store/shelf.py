"""One run's place in a folder: which files are its own, where they go, and what they are called.

A folder holds one run whose checkpoints are single files, or the pairs of any number of runs, each under a name of its
own and with a lock, a ``run_<name>.json`` and temporary files of its own.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

import xxhash

from ganguard.store import names
from ganguard.store.envelope import State
from ganguard.store.pair import HISTORY, Pair
from ganguard.store.summary import Kind, Summary


@dataclass(frozen=True)
class Shelf:
    """A folder as one run sees it.

    Args:
        folder: where the fixed names are.
        pair: the layout, where checkpoints are pairs.
    """

    folder: Path
    pair: Pair | None = None

    @property
    def places(self) -> tuple[Path, ...]:
        """Where its checkpoints may lie. Copied by hand, those of a history may lie in the folder itself."""
        return (self.folder,) if self.pair is None else (self.folder, self.folder / HISTORY)

    @property
    def aliases(self) -> tuple[str, ...]:
        """The fixed names, a head's last."""
        return (names.LATEST,) if self.pair is None else self.pair.aliases

    @property
    def run_file(self) -> Path:
        return self.folder / ("run.json" if self.pair is None else f"run_{self.pair.key}.json")

    @property
    def journal(self) -> Path:
        return self.folder / ("journal.jsonl" if self.pair is None else f"journal_{self.pair.key}.jsonl")

    @property
    def tag(self) -> str:
        """What temporary names carry, so that a start clears its own only."""
        return "" if self.pair is None else str(xxhash.xxh3_64_hexdigest(self.pair.key.encode())[:8])

    def lock_name(self, name: str) -> str:
        """The name of a lock of this run: other runs in the folder have their own."""
        return name if self.pair is None else name.replace(".ganguard.", f".ganguard.{self.pair.key}.")

    def __str__(self) -> str:
        return str(self.folder) if self.pair is None else f"{self.pair.name} in {self.folder}"

    def aside(self, reason: str) -> str:
        """What a folder of files set aside is called after its date."""
        return reason if self.pair is None else f"{reason}_{self.pair.name}"

    def home(self, kind: Kind) -> Path:
        """Where a new checkpoint goes."""
        return self.folder if self.pair is None or kind is Kind.EMERGENCY else self.folder / HISTORY

    def file_names(self, kind: Kind, *, epoch: int, batch: int, step: int) -> list[str]:
        """What the files of a new checkpoint are called, the head's last; ``epoch`` counts those finished."""
        words = (names.TITLE,) if self.pair is None else self.pair.words
        if kind is Kind.EMERGENCY:
            now, of = datetime.datetime.now(), self.pair.name if self.pair and self._is_shared() else ""
            return [names.emergency(now, word, of=of) for word in words]
        titles = words if self.pair is None else [f"{word}_{self.pair.name}" for word in words]
        if kind is Kind.STEP:
            return [names.at_step(step, title) for title in titles]
        if kind is Kind.AUTOSAVE:
            return [names.within_epoch(epoch + 1, batch, title) for title in titles]
        return [names.epoch_end(epoch, title) for title in titles]

    def _is_shared(self) -> bool:
        """Whether other runs save here too, maybe in this very second."""
        return len(list(self.folder.glob("run_*.json"))) > 1

    def is_versioned(self, name: str) -> bool:
        """Whether files of this run are called like that: used for files that have lost their summary."""
        if self.pair is None:
            return names.is_versioned(name)
        return self.pair.is_versioned(name) or self.pair.is_emergency(name)

    def holds(self, path: Path, state: State, summary: Summary | None) -> bool:
        """Whether a file is of this run's kind: by what it says of itself, and by its name where it says nothing."""
        if summary is not None:
            return (summary.pair.key if summary.pair else None) == (self.pair.key if self.pair else None)
        if self.pair is None or path.name in self.aliases or self.pair.is_versioned(path.name):
            return True
        # Whose it was nobody can tell: what is damaged or cannot be read may be the newest of any of them.
        return state in (State.INCOMPLETE, State.UNREADABLE, State.NEWER) and self.pair.is_emergency(path.name)


def at(where: Path | Shelf) -> Shelf:
    """A plain folder is the shelf of a run of single files."""
    return where if isinstance(where, Shelf) else Shelf(where)
