"""Which checkpoints may go: a pure function of their summaries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ganguard.errors import UsageError
from ganguard.store import spared
from ganguard.store.catalog import Entry, newest_first
from ganguard.store.shelf import Shelf
from ganguard.store.summary import Kind, Summary, score_kind


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What is kept. ``named`` are digests of files that a command began from."""

    keep_latest: int = 5  # the newest epochs
    keep_every: int = 10  # every so many epochs; 0 keeps none of them
    keep_autosaves: int = 1  # saves within an epoch
    named: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if min(self.keep_latest, self.keep_every, self.keep_autosaves) < 0:
            raise UsageError("How many checkpoints to keep cannot be less than 0.")


def usual(shelf: Shelf) -> Policy:
    """What is kept where nothing was asked for. Pairs are large, and theirs are marked as milestones instead."""
    return Policy() if shelf.pair is None else Policy(keep_latest=2, keep_every=0)


def expendable(heads: Sequence[Entry], policy: Policy) -> list[Entry]:
    """Those of one run's checkpoints that ``policy`` does not keep, oldest first. Never the newest finite one.

    A file under another name than the one that it was saved under was copied or renamed by a person, who wants it:
    it neither goes nor counts.
    """
    ordered = newest_first(e for e in heads if e.path.name == _summary(e).name)
    kept = {entry.path for entry in _kept(ordered, policy)}
    return [entry for entry in reversed(ordered) if entry.path not in kept]


def _kept(ordered: list[Entry], policy: Policy) -> list[Entry]:
    finite = [e for e in ordered if _summary(e).finite]
    regular = [e for e in finite if _summary(e).kind in (Kind.EPOCH, Kind.STEP)]
    autosaves = [e for e in finite if _summary(e).kind is Kind.AUTOSAVE]
    kept = finite[:1] + regular[: policy.keep_latest] + autosaves[: policy.keep_autosaves] + best_of_each_kind(finite)
    if policy.keep_every:
        epochs = (e for e in regular if _summary(e).kind is Kind.EPOCH)
        kept += [e for e in epochs if _summary(e).epoch % policy.keep_every == 0]
    kept += [e for e in finite if _summary(e).milestone]
    newest_regular = _summary(regular[0]).order if regular else (-1, -1, -1)
    kept += [e for e in ordered if _summary(e).kind is Kind.EMERGENCY and _summary(e).order > newest_regular]
    return kept + [e for e in ordered if e.digest in policy.named]


def best(heads: Sequence[Entry]) -> list[Entry]:
    """The checkpoint with the lowest score, among those of the same kind as the run's newest best.

    Scores of another name, or made with something else (another extractor, say), are never compared.
    """
    scored = [(score, entry) for entry in newest_first(heads) if (score := _finite_score(entry))]
    if not scored:
        return []
    bests = (spared.value_of(entry, "best") for entry in newest_first(heads))
    kind = score_kind(next(filter(None, bests), scored[0][0]))
    same = [(score["value"], entry) for score, entry in scored if score_kind(score) == kind]
    return [min(same, key=lambda found: found[0])[1]] if same else []


def best_of_each_kind(heads: Sequence[Entry]) -> list[Entry]:
    """The checkpoint with the lowest score of each kind: one is no worse for being scored in another way."""
    kinds: dict[str, list[Entry]] = {}
    for entry in newest_first(heads):
        if score := _finite_score(entry):
            kinds.setdefault(score_kind(score), []).append(entry)
    return [min(entries, key=lambda entry: (_finite_score(entry) or {})["value"]) for entries in kinds.values()]


def _finite_score(entry: Entry) -> dict[str, Any] | None:
    score = spared.value_of(entry, "score") or {}
    value = score.get("value")
    return score if isinstance(value, int | float) and math.isfinite(value) else None


def _summary(entry: Entry) -> Summary:
    assert entry.summary is not None  # heads have one
    return entry.summary
