"""What saving took: how many checkpoints of each kind, bytes, seconds, the share of the run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ganguard.clock import Stopwatch
from ganguard.reports.console import duration, size
from ganguard.store.summary import Kind

_WORDS = {
    Kind.EPOCH: "at epochs' ends",
    Kind.AUTOSAVE: "within epochs",
    Kind.STEP: "between steps",
    Kind.EMERGENCY: "in an emergency",
}


@dataclass
class Tally:
    """Checkpoints of one kind."""

    count: int = 0
    bytes: int = 0
    seconds: float = 0.0


class Savings:
    """Counts from the moment that it is made."""

    def __init__(self) -> None:
        self.by_kind: dict[Kind, Tally] = {}
        self.failed = Tally()
        self.backups = Tally()
        self._watch = Stopwatch()

    def saved(self, kind: Kind, taken: int, seconds: float) -> None:
        """A save of ``taken`` bytes stands."""
        tally = self.by_kind.setdefault(kind, Tally())
        tally.count, tally.bytes, tally.seconds = tally.count + 1, tally.bytes + taken, tally.seconds + seconds

    def did_not(self, seconds: float) -> None:
        """A save failed, after this long."""
        self.failed.count, self.failed.seconds = self.failed.count + 1, self.failed.seconds + seconds

    def backed_up(self, taken: int, seconds: float) -> None:
        """A scheduled backup of ``taken`` bytes was made and verified, beside the training."""
        tally = self.backups
        tally.count, tally.bytes, tally.seconds = tally.count + 1, tally.bytes + taken, tally.seconds + seconds

    @property
    def seconds(self) -> float:
        """That the training waited for saves."""
        return sum(tally.seconds for tally in (*self.by_kind.values(), self.failed))

    @property
    def share(self) -> float:
        """Of the time since the run was entered."""
        return self.seconds / self._watch.seconds

    def as_dict(self) -> dict[str, Any]:
        """Of each kind, ``failed`` and ``backups``: count, bytes, seconds; ``seconds`` in all; ``share``."""
        kinds = {str(kind.value): asdict(tally) for kind, tally in self.by_kind.items()}
        failed = {"failed": {"count": self.failed.count, "seconds": self.failed.seconds}} if self.failed.count else {}
        backups = {"backups": asdict(self.backups)} if self.backups.count else {}
        return {**kinds, **failed, **backups, "seconds": self.seconds, "share": self.share}

    def text(self) -> str:
        """One line for a person; empty where nothing was saved."""
        if not self.by_kind:
            return ""
        kinds = ", ".join(f"{tally.count} {_WORDS[kind]}" for kind, tally in self.by_kind.items())
        taken = sum(tally.bytes for tally in self.by_kind.values())
        failed = f"; {self.failed.count} failed" if self.failed.count else ""
        backups = f" With it {self.backups.count} backed up, {size(self.backups.bytes)}." if self.backups.count else ""
        return (
            f"Saved in this start: {kinds}{failed}; {size(taken)} in {_duration(self.seconds)}, "
            f"{self.share:.1%} of its time.{backups}"
        )


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else duration(seconds)
