"""Which checkpoint a person means by a word: an epoch's number, ``best``, a file, a folder. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ganguard.errors import NoCheckpoint
from ganguard.networks import best_files
from ganguard.networks.best_files import Manifest
from ganguard.reports import console
from ganguard.store import names, retention, runfile, search, spared
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
    say: Callable[[str], None] = console.say
    """Told what is taken where that is not plain from the word."""

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
        """The best of the run's line: on a branch without one of its own, that from before the branch began."""
        there = Catalog.of(self.checkpoints)
        run = self._run(there)
        pairs = [path.with_suffix(names.SUFFIX) for path in sorted(self.models.glob(f"*/{best_files.MANIFEST}"))]
        if run is None:
            if len(pairs) == 1:
                return pairs[0]
            raise self._no_best("nothing tells which run is meant", pairs)
        own = self._pair(run, run.branch)
        if best_files.manifests(own):
            return own
        line = newest_first(search.on_the_line(there, run))
        best = spared.value_of(line[0], "best") if line else None
        for path in (*self._inherited(run, best), *_checkpoint_of(best, line)):
            self.say(f"The best of this {'branch' if run.branch else 'run'} so far is in {path}.")
            return path
        if best is None:
            raise self._no_best("it is written when a FID is measured (--fid-every)", pairs)
        raise self._no_best(f"that of epoch {best['epoch']}, {best['name']} {best['value']:.4g}, is gone", pairs)

    def _pair(self, run: Run, branch: int) -> Path:
        return self.models / f"cgan_{run.run}_branch_{branch}".removesuffix("_branch_0") / best_files.GENERATOR

    def _inherited(self, run: Run, best: Mapping[str, Any] | None) -> Iterator[Path]:
        """Pairs of earlier branches that were the best where this one left them, latest first."""
        for branch, left_at in reversed(list(enumerate(run.lineage[: run.branch]))):
            path = self._pair(run, branch)
            found = best_files.manifests(path)
            if found and all((m.step, m.epoch) <= left_at and _is(m, best) for m in found):
                yield path

    def _no_best(self, reason: str, others: Sequence[Path]) -> NoCheckpoint:
        there = f" Of other runs and branches there are {some([str(path) for path in others])}." if others else ""
        name = " To take one of them, name that file." if others else ""
        return NoCheckpoint(f"There is no best pair of this run in {self.models}: {reason}.{there}{name}")

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


def _is(manifest: Manifest, best: Mapping[str, Any] | None) -> bool:
    """Whether a pair is the best that the checkpoint has on record; without a record, nothing speaks against it."""
    return best is None or (manifest.step, manifest.epoch) == (best["step"], best["epoch"])


def _checkpoint_of(best: Mapping[str, Any] | None, line: Sequence[Entry]) -> Iterator[Path]:
    """The checkpoint whose score is the best on record."""
    for entry in retention.best(line):
        if best and entry.summary and entry.summary.step == best["step"]:
            yield entry.path


def _numbers(epochs: list[int]) -> str:
    """Numbers in words, a row of consecutive ones as one: 1, 5 to 9."""
    rows: list[list[int]] = []
    for epoch in epochs:
        if rows and epoch == rows[-1][-1] + 1:
            rows[-1].append(epoch)
        else:
            rows.append([epoch])
    return ", ".join(str(row[0]) if len(row) == 1 else f"{row[0]} to {row[-1]}" for row in rows)
