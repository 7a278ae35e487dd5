"""What a checkpoint says about itself in its zip comment: enough to list, order, keep and find, without torch."""

from __future__ import annotations

import datetime
import enum
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ganguard.errors import UsageError
from ganguard.store import envelope, names, plain
from ganguard.store.pair import Pair

Lineage = tuple[tuple[int, int], ...]  # (step, epochs finished) for each earlier branch
NOTHING = (-1, -1)  # of a branch that was abandoned from its beginning


_WORDS = plain.list_of(plain.is_text)
_IS_PAIR = plain.record(
    **dict.fromkeys(("name", "head", "companion", "head_alias", "companion_alias"), plain.is_text),
    head_parts=_WORDS,
    companion_parts=_WORDS,
)


def lineage_from_json(values: Any) -> Lineage:
    return tuple((int(step), int(epoch)) for step, epoch in values)


def pair_from_json(values: Mapping[str, Any]) -> Pair:
    """Raises TypeError, ValueError or UsageError where ``values`` describe none."""
    if not _IS_PAIR(values):
        raise TypeError("a pair's names are text")
    known = {f.name: values[f.name] for f in fields(Pair) if f.name in values}
    named: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in known.items()}
    return Pair(**named)


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
    score: dict[str, Any] | None = None  # of this state, {"name", "value", "about", …}
    best: dict[str, Any] | None = None  # of the run so far, {"name", "value", "about", "epoch", …}
    milestone: bool = False  # asked to be kept for good
    finite: bool = True  # False: parameters that are not finite; never resumed unasked
    saved_at: str = ""  # ISO 8601 with zone; shown, and tells when a backup is due; never decides what is newer
    host: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    parent: str = ""  # digest of the checkpoint before
    origin: Origin | None = None
    config: dict[str, Any] | None = None
    pair: Pair | None = None  # the layout, where the run's checkpoints are pairs
    companions: tuple[Companion, ...] = ()
    spared: tuple[str, ...] = ()  # fields that did not fit in here: ``spared.value_of`` has them from the body
    digest: str = ""  # set by the envelope
    bytes: int = 0

    @property
    def order(self) -> tuple[int, int, int]:
        """Newer is greater, within one run. A save before an epoch's tail comes before the one after it."""
        return self.branch, self.step, self.epoch

    @property
    def age_s(self) -> float | None:
        """Seconds since it was saved, by the clock that now is; None where that tells nothing. Orders nothing."""
        try:
            age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(self.saved_at)
        except (ValueError, TypeError, OverflowError):
            return None
        return age.total_seconds() if age >= datetime.timedelta() else None

    @property
    def epoch_under_way(self) -> int:
        """The epoch that the state belongs to, counted from 1."""
        return self.epoch if self.batch == 0 and self.epoch else self.epoch + 1

    def to_json(self) -> dict[str, Any]:
        values = asdict(self)
        del values["digest"], values["bytes"]
        for key, nothing in _CAN_BE_SPARED.items():  # what is too long for a comment is then only in the file's body
            if envelope.fits(values):
                break
            if values[key] != nothing:
                values[key], values["spared"] = nothing, (*values["spared"], key)
        return values


def score_kind(score: Mapping[str, Any]) -> str:
    """The name of a score and what it was made with: only scores that agree in both are compared."""
    return json.dumps([score.get("name"), score.get("about") or {}], sort_keys=True, default=str)


# What a summary can do without, the least needed first.
_CAN_BE_SPARED: dict[str, Any] = {"config": None, "means": {}, "versions": {}, "best": None, "score": None}
_KNOWN = tuple(f.name for f in fields(Summary))
_TEXTS = ("name", "saved_at", "host", "parent", "digest")
_CHECKS: dict[str, plain.Check] = {
    **dict.fromkeys(("branch", "epoch", "batch", "samples", "step", "images", "bytes"), plain.is_count),
    **dict.fromkeys(_TEXTS, plain.is_text),
    "run": plain.all_of(plain.is_text, names.stays_inside),
    **dict.fromkeys(("finite", "milestone"), lambda value: isinstance(value, bool)),
    **dict.fromkeys(("score", "best"), plain.or_none(plain.is_score)),
    "means": plain.table_of(plain.is_number),
    "versions": plain.table_of(plain.is_json),
    "config": plain.or_none(plain.all_of(plain.table_of(lambda _: True), plain.is_json)),
}


def from_json(values: dict[str, Any]) -> Summary | None:
    """The summary, or None where ``values`` is none that this version understands.

    Damage is caught before, by the checksum: what comes here is ours, a newer version's, or a forger's.
    """
    try:
        known = {key: values[key] for key in _KNOWN if key in values}
        known["kind"] = Kind(known["kind"])
        known["lineage"] = lineage_from_json(known.get("lineage", ()))
        known["companions"] = tuple(Companion(**c) for c in known.get("companions", ()))
        known["origin"] = Origin(**known["origin"]) if known.get("origin") else None
        known["pair"] = pair_from_json(known["pair"]) if known.get("pair") else None
        known["spared"] = tuple(known.get("spared", _spared_before_that_was_written_down(known)))
        summary = Summary(**known)
        return summary if is_well_formed(summary) else None
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError, UsageError):
        return None


def _spared_before_that_was_written_down(known: dict[str, Any]) -> tuple[str, ...]:
    """Every head had settings, so that one without them had too many."""
    return () if known.get("config") is not None or known["kind"] is Kind.COMPANION else ("config",)


def is_well_formed(summary: Summary) -> bool:
    """Whether each field holds what it should."""
    others = (*summary.companions, *([summary.origin] if summary.origin else ()))
    return (
        all(check(getattr(summary, key)) for key, check in _CHECKS.items())
        and all(plain.is_text(text) for other in others for text in vars(other).values())
        and set(summary.spared) <= set(_CAN_BE_SPARED)
        and len(summary.lineage) == summary.branch
    )
