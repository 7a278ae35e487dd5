"""Which checkpoints may go: a pure function of their summaries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ganguard.store.catalog import Entry, newest_first
from ganguard.store.summary import Kind, Summary


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What is kept. ``named`` are digests of files that a command began from."""

    keep_latest: int = 5  # the newest epochs
    keep_every: int = 10  # every so many epochs; 0 keeps none of them
    keep_autosaves: int = 1  # saves within an epoch
    named: frozenset[str] = frozenset()


def expendable(heads: Sequence[Entry], policy: Policy) -> list[Entry]:
    """Those of one run's checkpoints that ``policy`` does not keep, oldest first. Never the newest finite one."""
    ordered = newest_first(heads)
    kept = {entry.path for entry in _kept(ordered, policy)}
    return [entry for entry in reversed(ordered) if entry.path not in kept]


def _kept(ordered: list[Entry], policy: Policy) -> list[Entry]:
    def of_kind(*kinds: Kind) -> list[Entry]:
        return [e for e in ordered if _summary(e).kind in kinds]

    regular = of_kind(Kind.EPOCH, Kind.STEP)
    kept = regular[: policy.keep_latest]
    if policy.keep_every:
        kept += [e for e in of_kind(Kind.EPOCH) if _summary(e).epoch % policy.keep_every == 0]
    kept += of_kind(Kind.AUTOSAVE)[: policy.keep_autosaves]
    newest_regular = _summary(regular[0]).order if regular else (-1, -1, -1)
    kept += [e for e in of_kind(Kind.EMERGENCY) if _summary(e).order > newest_regular]
    kept += [e for e in ordered if e.digest in policy.named]
    kept += best(ordered)
    kept += [e for e in ordered if _summary(e).finite][:1]
    return kept


def best(heads: Sequence[Entry]) -> list[Entry]:
    """The checkpoint with the lowest score, for each kind of score: different extractors are never compared."""
    by_name: dict[str, Entry] = {}
    for entry in heads:
        score = _summary(entry).score
        if not score or not isinstance(score.get("value"), int | float):
            continue
        name = str(score.get("name"))
        if name not in by_name or score["value"] < _summary(by_name[name]).score["value"]:  # type: ignore[index]  # those in by_name have a score
            by_name[name] = entry
    return list(by_name.values())


def _summary(entry: Entry) -> Summary:
    assert entry.summary is not None  # heads have one
    return entry.summary
