"""Bringing a run back from a checkpoint: what it holds, whether it fits, what could not be restored."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ganguard
from ganguard import content, older, options, pairing, state, streams
from ganguard.course import Position
from ganguard.errors import DoesNotFit, SaveFailed, UsageError
from ganguard.reports.console import counted
from ganguard.store import body, resume
from ganguard.store.catalog import Entry
from ganguard.store.durable import why
from ganguard.store.resume import Plan, Request
from ganguard.store.runfile import Run
from ganguard.store.shelf import Shelf
from ganguard.store.summary import Origin


@dataclass
class Beginning:
    """How a training begins: from zero where ``loaded`` is empty."""

    plan: Plan
    loaded: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    translated: bool = False  # from an older script's files, which hold what they hold
    named: bool = False  # a file was asked for, whatever is gone on from

    @property
    def run(self) -> Run:
        return self.plan.run

    @property
    def origin(self) -> Origin | None:
        """The file that this run began from: named now, or on record in the checkpoint."""
        start = self.newest
        return self.plan.origin or (start.summary.origin if start and start.summary else None)

    @property
    def newest(self) -> Entry | None:
        return self.plan.start

    def entry_at(self, path: Path) -> Entry | None:
        """The checkpoint to go on from, which now lies at ``path``."""
        return replace(self.newest, path=path) if self.newest else None

    @property
    def progress(self) -> dict[str, Any]:
        return dict(self.loaded.get("progress", {}))

    @property
    def position(self) -> dict[str, int]:
        return {k: v for k, v in self.progress.items() if k in ("epoch", "batch", "samples", "step", "images")}

    @property
    def seed(self) -> int | None:
        return self.progress.get("seed")

    @property
    def fingerprint(self) -> str | None:
        return self.progress.get("fingerprint")

    @property
    def history(self) -> dict[str, Any]:
        return dict(self.loaded.get("history") or {"epochs": [], "sums": {}})

    @property
    def best(self) -> dict[str, Any] | None:
        return self.loaded.get("best")

    @property
    def random(self) -> dict[str, Any] | None:
        return self.loaded.get("random")


def as_json(config: Mapping[str, Any]) -> dict[str, Any]:
    """``config`` as it comes back from JSON, which is how it is stored and compared.

    Raises:
        UsageError: JSON cannot carry one of its values.
    """
    plain = {}
    for key, value in config.items():
        try:
            plain[str(key)] = json.loads(json.dumps(value))
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"config[{key!r}] is a {type(value).__qualname__} that a checkpoint cannot carry: {error}. "
                "Give numbers, strings, lists and dicts."
            ) from error
    return plain


def begin(shelf: Shelf, request: Request, parts: Mapping[str, Any]) -> Beginning:
    """Find and read the checkpoint to go on from. Changes nothing.

    Raises:
        CheckpointError: none can be used.
    """
    return _read(resume.plan(shelf, request), shelf, request, parts)


def _read(plan: Plan, shelf: Shelf, request: Request, parts: Mapping[str, Any]) -> Beginning:
    start, named = plan.start, request.file is not None
    if start is None:
        return Beginning(plan)
    loaded = body.load_file(start.path)
    others = [body.load_file(companion.path) for companion in plan.companions]
    pair = shelf.pair or (start.summary.pair if start.summary else None)
    if "progress" not in loaded:
        files = [(start.path, loaded), *zip((c.path for c in plan.companions), others, strict=True)]
        translated, notes = older.translate(files, parts, pair, request.begins_at or {})
        content.check(translated, start.path)
        return Beginning(plan, translated, notes, translated=True, named=named)
    for file, holds in ((start.path, loaded), *zip((c.path for c in plan.companions), others, strict=True)):
        content.check(holds, file)
    if pair is not None and "state_dict" in loaded:
        loaded = pairing.join(pair, loaded, others, start.path)
    return Beginning(plan, loaded, named=named)


def require_older_fits(shelf: Shelf, request: Request, parts: Mapping[str, Any]) -> None:
    """Refuse an older script's file at once, before what takes long is begun. Changes nothing.

    Raises:
        CheckpointError: it cannot be used, or was made for other networks.
    """
    plan = resume.plan(shelf, request, verified=False)
    if plan.start is not None and plan.start.summary is None:
        require_same(_read(plan, shelf, request, parts), {}, (), None, parts, say=lambda _: None)


def require_same(
    began: Beginning,
    config: Mapping[str, Any],
    may_change: Iterable[str],
    seed: int | None,
    parts: Mapping[str, Any],
    *,
    say: Callable[[str], None],
) -> None:
    """Refuse a checkpoint of other settings or other networks; say which of the rest changed. Changes nothing.

    Raises:
        DoesNotFit
    """
    if not began.loaded or began.plan.start is None:
        return
    source = began.plan.start.path.name
    stored = as_json(began.loaded.get("config") or {})
    if began.seed is not None and seed is not None:
        stored, config = {**stored, "seed": began.seed}, {**config, "seed": seed}
    free = frozenset(may_change)
    changed = require_settings(source, stored, config, free, named=began.named)
    if unfit := state.differences(parts, began.loaded):
        if began.translated:
            raise _refusal(*older.mismatch(parts, began.loaded, source))
        advice = f"Use the settings it was trained with. {_otherwise(named=began.named)}"
        raise _refusal(*state.mismatch(unfit, source, advice))
    if not began.translated:
        _require_the_same_parts(began.loaded, parts, free, source)
    for key in changed:
        before = "left to its default" if stored[key] is None else stored[key]
        say(f"{key} is {config[key]} now, it was {before}.")


def _otherwise(*, named: bool) -> str:
    """How to train without a checkpoint: where it was named, that it be set aside would be refused."""
    if named:
        return "To train without it, do not name it."
    return "To start afresh (the old run is set aside, not lost): --no-checkpoint."


def require_settings(
    source: str, stored: Mapping[str, Any], config: Mapping[str, Any], free: Set[str], *, named: bool = False
) -> list[str]:
    """Which settings are others than those of the checkpoint ``source``, and may be.

    Args:
        named: a file was asked for.

    Raises:
        DoesNotFit: some may not.
    """
    # As text: a NaN is equal to itself then.
    compared = {key for key in set(stored) & set(config) if not key.startswith("_")}
    changed = sorted(k for k in compared if json.dumps(stored[k]) != json.dumps(config[k]))
    if refused := [key for key in changed if key not in free]:
        raise _refusal(
            f"{source} was saved under other settings; nothing was changed:",
            *(f"  {key}: {config[key]} here, {stored[key]} in the checkpoint" for key in refused),
            f"To go on with this run, leave that out or set it back. {_otherwise(named=named)}",
        )
    return [key for key in changed if config[key] is not None]


def _refusal(*lines: str) -> DoesNotFit:
    """Whoever wrote the loop sees the note, below the traceback; whoever typed a command does not."""
    error = DoesNotFit(*lines)
    if any("--no-checkpoint" in line for line in lines):
        error.add_note("In a loop of your own, --no-checkpoint is Guard(…, resume=Request(afresh=True)).")
    return error


def _require_the_same_parts(loaded: Mapping[str, Any], parts: Mapping[str, Any], free: Set[str], source: str) -> None:
    lacking = [f"  {name} is a part here, and not in the checkpoint" for name in parts if name not in {*loaded, *free}]
    unknown = set(loaded) - set(parts) - set(state.RESERVED) - free
    lines = [*lacking, *(f"  {name} is in the checkpoint, and no part here" for name in sorted(unknown))]
    if lines:
        raise DoesNotFit(
            f"{source} holds other parts than this run has; nothing was changed:",
            *lines,
            "Give the same parts. Where one shall really begin anew, or be left behind, name it in may_change.",
        )


def settle(began: Beginning) -> tuple[Path | None, list[str]]:
    """Set aside what has to be; returns where the checkpoint lies and what is to be told.

    Raises:
        SaveFailed: the folder cannot be written.
    """
    try:
        path, told = resume.carry_out(began.plan)
    except OSError as error:
        raise SaveFailed(
            f"{began.plan.folder} cannot be written: {why(error)}. Nothing was lost; mend that first."
        ) from error
    return path, [*told, *began.notes]


def restore(
    began: Beginning, parts: Mapping[str, Any], constructed: dict[str, Any], *, threads: int | None
) -> list[str]:
    """Put every part back; returns what could not be restored exactly, in words."""
    assert began.plan.start is not None  # there is something to restore
    lost = state.restore(parts, began.loaded, began.plan.start.path.name)
    lost += options.apply_edits(parts, constructed, began.loaded.get("constructed", {}))
    about = began.loaded.get("ganguard", {})
    lost += _restore_threads(about.get("threads"), threads)
    if began.random is not None:
        lost += streams.restore(began.random)
    then, now = about.get("versions", {}), versions()
    lost += [
        f"{name} is {now[name]} now, it was {then[name]}" for name in now if then.get(name, now[name]) != now[name]
    ]
    unknown = sorted(set(began.loaded) - set(parts) - set(state.RESERVED))
    return lost + [f"{name} is in the checkpoint, but no part of this run" for name in unknown]


def tell(
    path: Path, position: Position, best: Mapping[str, Any] | None, lost: Iterable[str], *, say: Callable[[str], None]
) -> None:
    """Say from where the run goes on, and what is not exactly as it was."""
    p = position
    where = f"epoch {p.epoch + 1}, batch {p.batch}" if p.batch or not p.epoch else f"epoch {p.epoch} finished"
    score = f", best {best['name']} {best['value']:.4g} (epoch {best['epoch']})" if best else ""
    say(f"Resumed from {path}: {where}, {counted(p.images, 'image')} seen{score}; resumed from step {p.step}.")
    for line in lost:
        say(f"Not as before: {line}.")


def _restore_threads(then: int | None, asked: int | None) -> list[str]:
    """The thread count belongs to the run: sums come out differently with another."""
    if then is None or then == torch.get_num_threads():
        return []
    if asked is None:
        torch.set_num_threads(then)
        return []
    return [f"{counted(asked, 'thread')} now, {then} before: sums may differ in their last bits"]


def versions() -> dict[str, str]:
    """What bit equality depends on."""
    return {
        "ganguard": ganguard.__version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
