"""Checkpoints of older scripts: one file of ``netG_state_dict`` and its companions, mapped part by part to ours."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ganguard.errors import DoesNotFit

# What older scripts call a part → what it may be called here.
_CALLED = {
    "netG_state_dict": ("generator", "netG", "G"),
    "netD_state_dict": ("discriminator", "critic", "netD", "D"),
    "optimizerG_state_dict": ("opt_g", "opt_generator", "optimizerG"),
    "optimizerD_state_dict": ("opt_d", "opt_discriminator", "opt_critic", "optimizerD"),
}


def translate(loaded: dict[str, Any], path: Path, parts: Iterable[str]) -> tuple[dict[str, Any], list[str]]:
    """An older file in today's keys, and what it does not hold, in words.

    Raises:
        DoesNotFit: it is of no layout that is known.
    """
    names = set(parts)
    found = {old: next((n for n in called if n in names), None) for old, called in _CALLED.items() if old in loaded}
    if not found:
        keys = ", ".join(map(str, list(loaded)[:6]))
        raise DoesNotFit(
            f"{path} is of no known layout (it begins with the keys {keys}). "
            "A checkpoint of ganguard, or one with netG_state_dict and netD_state_dict, can be resumed."
        )
    translated = {ours: loaded[old] for old, ours in found.items() if ours is not None}
    epoch = int(loaded.get("epoch", 0))
    translated["progress"] = {"epoch": epoch, "batch": 0, "samples": 0, "step": 0, "images": 0}
    translated["history"] = {"epochs": _rows(loaded, epoch), "sums": {}}
    translated["best"] = _best(loaded, epoch)
    notes = [
        f"{path.name} was written by an older script: it holds no digest, no random states, no count of steps and "
        f"images, and no position within an epoch. Training goes on at the beginning of epoch {epoch + 1}."
    ]
    notes += [f"{old} has no part to go to here; it is left out." for old, ours in found.items() if ours is None]
    return translated, notes


def _rows(loaded: dict[str, Any], epoch: int) -> list[dict[str, Any]]:
    losses = {"loss_g": loaded.get("g_losses", []), "loss_d": loaded.get("d_losses", [])}
    rows = []
    for index in range(epoch):
        means = {name: float(values[index]) for name, values in losses.items() if index < len(values)}
        rows.append({"epoch": index + 1, "step": 0, **means})
    return rows


def _best(loaded: dict[str, Any], epoch: int) -> dict[str, Any] | None:
    value = float(loaded.get("best_fid", math.inf))
    # Its extractor is unknown, so the name keeps it from being compared with scores of today.
    return {"name": "fid (older script)", "value": value, "epoch": epoch, "step": 0} if math.isfinite(value) else None
