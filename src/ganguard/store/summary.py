"""What a checkpoint says about itself in its zip comment: enough to list, order, keep and find, without torch."""

from __future__ import annotations

import enum
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ganguard.store import envelope

Lineage = tuple[tuple[int, int], ...]  # (step, epochs finished) an earlier branch
NOTHING = (-1, -1)  # of a branch that was abandoned from its beginning


def lineage_from_json(values: Any) -> Lineage:
    return tuple((int(step), int(epoch)) for step, epoch in values)


class Kind(enum.StrEnum):
    """Why a checkpoint was written."""

    EPOCH = "epoch"  # at an epoch's end, after its tail
    AUTOSAVE = "autosave"  # within an epoch
    STEP = "step"  # in a loop counted in iterations
    EMERGENCY = "emergency"  # on Ctrl+C, a signal, heat
    COMPANION = "companion"  # the second file of a checkpoint of two


@dataclass(frozen=True, kw_only=True)
class Companion:
    """The other file of a checkpoint of two, found by its digest."""

    name: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The file that a run began from."""

    path: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class Summary:
    """All fields are plain; unknown ones of a later version are ignored."""

    kind: Kind
    name: str  # the file's name when it was committed
    run: str = ""
    branch: int = 0
    lineage: Lineage = ()  # for each earlier branch, up to where it belongs to this one
    epoch: int = 0  # epochs finished, tail included
    batch: int = 0  # batches done in the epoch that is under way
    samples: int = 0  # samples of that epoch seen
    step: int = 0  # iterations over the whole run; never goes back within a branch
    images: int = 0  # samples over the whole run
    means: dict[str, float] = field(default_factory=dict)  # of the last finished epoch
    score: dict[str, Any] | None = None  # of this state, {"name", "value", …}
    best: dict[str, Any] | None = None  # of the run so far, {"name", "value", "epoch", …}
    finite: bool = True  # False: parameters that are not finite; never resumed unasked
    saved_at: str = ""  # ISO 8601 with zone; shown, never compared
    host: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    parent: str = ""  # digest of the checkpoint before
    origin: Origin | None = None
    config: dict[str, Any] | None = None
    companions: tuple[Companion, ...] = ()
    digest: str = ""  # set by the envelope
    bytes: int = 0

    @property
    def order(self) -> tuple[int, int, int]:
        """Newer is greater, within one run. A save before an epoch's tail comes before the one after it."""
        return self.branch, self.step, self.epoch

    @property
    def epoch_under_way(self) -> int:
        """The epoch that the state belongs to, counted from 1."""
        return self.epoch if self.batch == 0 and self.epoch else self.epoch + 1

    def to_json(self) -> dict[str, Any]:
        values = asdict(self)
        del values["digest"], values["bytes"]
        if not envelope.fits(values):  # a configuration of more than 60 KB is then only in the file's body
            values["config"] = None
        return values


def from_json(values: dict[str, Any]) -> Summary | None:
    """The summary, or None where ``values`` cannot be one (a forger's; damage is caught before)."""
    try:
        known = {f.name: values[f.name] for f in fields(Summary) if f.name in values}
        known["kind"] = Kind(known["kind"])
        known["lineage"] = lineage_from_json(known.get("lineage", ()))
        known["companions"] = tuple(Companion(**c) for c in known.get("companions", ()))
        known["origin"] = Origin(**known["origin"]) if known.get("origin") else None
        summary = Summary(**known)
        numbers = (
            summary.branch,
            summary.epoch,
            summary.batch,
            summary.samples,
            summary.step,
            summary.images,
        )
        texts = (summary.name, summary.run, summary.digest, summary.parent, summary.saved_at, summary.host)
        if not all(isinstance(n, int) for n in numbers) or not all(isinstance(t, str) for t in texts):
            return None
    except (TypeError, ValueError, KeyError, AttributeError):
        return None
    return summary
