"""What one checkpoint holds: the body that torch reads, and the summary that needs no torch to be read."""

from __future__ import annotations

import datetime
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from ganguard import pairing, restoring, state, streams
from ganguard.course import Position
from ganguard.feeding import Feeds
from ganguard.history import History
from ganguard.store.runfile import Run
from ganguard.store.shelf import Shelf
from ganguard.store.summary import Kind, Origin, Summary

File = tuple[Summary, dict[str, Any]]  # what a file says about itself, and what torch reads from it


@dataclass(kw_only=True)
class Snapshot:
    """Everything of a run that goes into a checkpoint; ``position`` and ``history`` move on as it trains."""

    parts: Mapping[str, Any]
    shelf: Shelf
    run: Run
    origin: Origin | None
    config: dict[str, Any]
    constructed: dict[str, Any]  # optimizer options as the code made them
    seed: int
    position: Position
    history: History
    feeds: Feeds

    def take(self, kind: Kind, *, parent: str, finite: bool, milestone: bool) -> list[File]:
        """The files of a checkpoint, its head last. The tensors are the live ones: write before training goes on."""
        self.history.sync()  # a checkpoint that survives a power cut has its lines in the journal
        p = self.position
        names = self.shelf.file_names(kind, epoch=p.epoch, batch=p.batch, step=p.step)
        summary = replace(self._summary(kind, parent=parent), name=names[-1], finite=finite, milestone=milestone)
        body = self._body(summary)
        if self.shelf.pair is None:
            return [(summary, body)]
        second, first = pairing.split(self.shelf.pair, body)
        companion = replace(summary, kind=Kind.COMPANION, name=names[0], config=None)
        return [(companion, second), (summary, first)]

    def _body(self, summary: Summary) -> dict[str, Any]:
        about = {
            "progress": {**vars(self.position), "fingerprint": self.feeds.fingerprint, "seed": self.seed},
            # Its means and score stand in the summary too, unless they are too long for that.
            "history": {**self.history.state(), "means": summary.means, "score": summary.score},
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

    def _summary(self, kind: Kind, *, parent: str) -> Summary:
        p = self.position
        last = self.history.epochs[-1] if self.history.epochs else {}
        means = self.history.means() if p.batch else last
        score = self.history.last_score
        return Summary(
            kind=kind,
            name="",
            run=self.run.run,
            branch=self.run.branch,
            lineage=self.run.lineage,
            **vars(p),
            means={name: value for name, value in means.items() if isinstance(value, float)},
            score=score if score and score["step"] == p.step else None,
            best=self.history.best,
            saved_at=datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            host=socket.gethostname(),
            versions=restoring.versions(),
            parent=parent,
            origin=self.origin,
            config=self.config,
            pair=self.shelf.pair,
        )
