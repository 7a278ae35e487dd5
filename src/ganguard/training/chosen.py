"""Which checkpoint a person means by a word: an epoch's number, ``best``, a file, a folder. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ganguard.errors import NoCheckpoint
from ganguard.networks import best_files
from ganguard.store import names, runfile, search
from ganguard.store.catalog import Catalog, Entry, newest_first
from ganguard.store.plans import some
from ganguard.store.runfile import Run

BEST = "best"


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where a run's files lie."""

    checkpoints: Path
    models: Path
    """Holds a folder for each run, with its best pair."""

    def find(self, word: str | None) -> Path:
        """The file that ``word`` means; the newest checkpoint's folder where it is None.

        A number is always an epoch: a file of that name is ``./7``.

        Raises:
            NoCheckpoint: there is none; the message says which there are.
        """
        if word is None:
            return self._newest()
        if word == BEST:
            return self._best()
        if word.isascii() and word.isdigit():
            return self._epoch(int(word))
        path = Path(word)
        return self.checkpoints / path if len(path.parts) == 1 and not path.exists() else path

    def _newest(self) -> Path:
        if not Catalog.of(self.checkpoints).entries:
            raise NoCheckpoint(
                f"There is no checkpoint in {self.checkpoints}. Train with gan.py first, or name one with --checkpoint."
            )
        return self.checkpoints

    def _best(self) -> Path:
        run = self._run(Catalog.of(self.checkpoints))
        if run is not None:
            name = f"{run.run}_branch_{run.branch}" if run.branch else run.run
            own = self.models / f"cgan_{name}" / best_files.GENERATOR
            if best_files.manifests(own):
                return own
        others = [path.with_suffix(names.SUFFIX) for path in sorted(self.models.glob(f"*/{best_files.MANIFEST}"))]
        if run is None and len(others) == 1:
            return others[0]
        there = f" Of other runs there are {some([str(path) for path in others])}." if others else ""
        raise NoCheckpoint(
            f"There is no best pair of this run in {self.models}: "
            f"it is written when a FID is measured (--fid-every).{there}"
        )

    def _epoch(self, epoch: int) -> Path:
        there = Catalog.of(self.checkpoints)
        kept = self._epochs(there)
        if epoch in kept:
            return kept[epoch].path
        damaged = self.checkpoints / names.epoch_end(epoch)
        if damaged.exists():
            return damaged  # whoever reads it says what is wrong with it
        which = f"There are {_numbers(sorted(kept))}." if kept else "There is none."
        raise NoCheckpoint(
            f"No checkpoint of the end of epoch {epoch} is in {self.checkpoints}. {which} "
            "The 5 newest are kept, and every 10th."
        )

    def _epochs(self, there: Catalog) -> dict[int, Entry]:
        """The checkpoint of each epoch's end on the run's line."""
        run = self._run(there)
        if run is None:
            return {}
        found: dict[int, Entry] = {}
        for entry in newest_first(search.on_the_line(there, run)):
            if entry.summary and entry.summary.finite and entry.summary.batch == 0 and entry.summary.epoch:
                found.setdefault(entry.summary.epoch, entry)
        return found

    def _run(self, there: Catalog) -> Run | None:
        """The folder's run; None where nothing tells."""
        recorded = runfile.read(there.folder)
        return recorded or (runfile.identify(there) if len(there.runs()) == 1 else None)


def _numbers(epochs: list[int]) -> str:
    """Numbers in words, a row of consecutive ones as one: 1, 5 to 9."""
    rows: list[list[int]] = []
    for epoch in epochs:
        if rows and epoch == rows[-1][-1] + 1:
            rows[-1].append(epoch)
        else:
            rows.append([epoch])
    return ", ".join(str(row[0]) if len(row) == 1 else f"{row[0]} to {row[-1]}" for row in rows)
