"""What one checkpoint holds: the body that torch reads, and the summary that needs no torch to be read."""

from __future__ import annotations

import datetime
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ganguard import restoring, state, streams
from ganguard.course import Position
from ganguard.feeding import Feeds
from ganguard.history import History
from ganguard.store import names
from ganguard.store.runfile import Run
from ganguard.store.summary import Kind, Origin, Summary


@dataclass(kw_only=True)
class Snapshot:
    """Everything of a run that goes into a checkpoint; ``position`` and ``history`` move on as it trains."""

    parts: Mapping[str, Any]
    run: Run
    origin: Origin | None
    config: dict[str, Any]
    constructed: dict[str, Any]  # optimizer options as the code made them
    seed: int
    position: Position
    history: History
    feeds: Feeds

    def take(self, kind: Kind, *, parent: str, finite: bool) -> tuple[Summary, dict[str, Any]]:
        """Summary and body. The body's tensors are the live ones, so write before training goes on."""
        summary = self._summary(kind, parent=parent, finite=finite)
        return summary, self._body(summary)

    def _body(self, summary: Summary) -> dict[str, Any]:
        about = {
            "progress": {**vars(self.position), "fingerprint": self.feeds.fingerprint, "seed": self.seed},
            "history": self.history.state(),
            "best": self.history.best,
            "config": self.config,
            "constructed": self.constructed,
            "random": streams.capture(),
            "ganguard": {
                "format": 1,
                "run": summary.run,
                "branch": summary.branch,
                "parent": summary.parent,
                "threads": torch.get_num_threads(),
                "versions": summary.versions,
                "host": summary.host,
                "saved_at": summary.saved_at,
            },
        }
        return {**state.capture(self.parts), **{key: state.to_plain(value, key) for key, value in about.items()}}

    def _summary(self, kind: Kind, *, parent: str, finite: bool) -> Summary:
        p = self.position
        last = self.history.epochs[-1] if self.history.epochs else {}
        means = self.history.means() if p.batch else last
        score = self.history.last_score
        return Summary(
            kind=kind,
            name=self._name(kind),
            run=self.run.run,
            branch=self.run.branch,
            lineage=self.run.lineage,
            **vars(p),
            means={name: value for name, value in means.items() if isinstance(value, float)},
            score=score if score and score["step"] == p.step else None,
            best=self.history.best,
            finite=finite,
            saved_at=datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            host=socket.gethostname(),
            versions=restoring.versions(),
            parent=parent,
            origin=self.origin,
            config=self.config,
        )

    def _name(self, kind: Kind) -> str:
        p = self.position
        if kind is Kind.EMERGENCY:
            return names.emergency(datetime.datetime.now())
        if kind is Kind.STEP:
            return names.at_step(p.step)
        return names.within_epoch(p.epoch + 1, p.batch) if kind is Kind.AUTOSAVE else names.epoch_end(p.epoch)
