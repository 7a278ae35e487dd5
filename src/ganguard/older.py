"""Checkpoints of older scripts, mapped part by part to ours.

- one file of ``netG_state_dict`` and its companions, with epoch, losses and the best FID
- a file for each network, with ``state_dict`` and ``optimizer``
- a bare state dict of one network
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ganguard import state
from ganguard.errors import DoesNotFit
from ganguard.store.pair import Pair

Content = dict[str, Any]

# What older scripts call a part → what it may be called here.
_CALLED = {
    "netG_state_dict": ("generator", "netG", "G"),
    "netD_state_dict": ("discriminator", "critic", "netD", "D"),
    "optimizerG_state_dict": ("opt_g", "opt_generator", "optimizerG"),
    "optimizerD_state_dict": ("opt_d", "opt_discriminator", "opt_critic", "optimizerD"),
}


def translate(
    files: Sequence[tuple[Path, Content]], parts: Mapping[str, Any], pair: Pair | None, begins_at: Mapping[str, int]
) -> tuple[Content, list[str]]:
    """Older files in today's keys, and what they do not hold, in words.

    Args:
        files: the head, or the only one, first.
        parts: of the run that goes on from them.
        pair: its layout, which tells whose network a file holds; without one the network that fits does.
        begins_at: where the run begins if the files do not tell: ``epoch`` (finished ones), ``step``, ``images``.

    Raises:
        DoesNotFit: they are of no layout that is known, or of other networks.
    """
    (path, loaded), *_ = files
    if any(key in loaded for key in _CALLED):
        return _single(loaded, path, parts)
    owners = [pair.head_parts, pair.companion_parts] if pair else [None] * len(files)
    translated: Content = {}
    notes = []
    for (file, content), owner in zip(files, owners, strict=False):
        found = _network(content, file, parts, owner)
        translated |= found
        optimizer = ", no state of its optimizer" if len(found) == 1 else " and the state of its optimizer"
        notes.append(
            f"{file.name} was written by an older script: of {next(iter(found))} it holds the weights{optimizer}. It "
            "holds no digest, no position and no random states."
        )
    position = {"epoch": 0, "batch": 0, "samples": 0, "step": 0, "images": 0, **begins_at}
    notes.append(f"Training begins at epoch {position['epoch'] + 1}, image {position['images']}.")
    return {**translated, "progress": position, "history": {"epochs": [], "sums": {}}, "best": None}, notes


def _network(content: Content, path: Path, parts: Mapping[str, Any], owner: tuple[str, str] | None) -> Content:
    """One network's weights, and its optimizer's state where there is one, under the names of their parts."""
    weights = content.get("state_dict", content)
    if not isinstance(weights, dict) or not weights or not all(isinstance(v, torch.Tensor) for v in weights.values()):
        keys = ", ".join(map(str, list(content)[:6]))
        raise DoesNotFit(
            f"{path} is of no known layout (it begins with the keys {keys}). What can be resumed: a checkpoint of "
            "ganguard, one with netG_state_dict and netD_state_dict, files with state_dict and optimizer, and the "
            "bare state dict of a network."
        )
    module, optimizer = owner or (_fitting(weights, path, parts), "")
    found = {module: weights}
    return {**found, optimizer: content["optimizer"]} if optimizer and "optimizer" in content else found


def _fitting(weights: Content, path: Path, parts: Mapping[str, Any]) -> str:
    """The network that has these names and shapes.

    Raises:
        DoesNotFit: none has; the message tells what differs from the one that is closest.
    """
    modules = {name: part for name, part in parts.items() if isinstance(state.unwrap(part), torch.nn.Module)}
    unfit = {name: state.differences({name: part}, {name: weights}) for name, part in modules.items()}
    closest = min(unfit, key=lambda name: len(unfit[name]), default=None)
    if closest is None or unfit[closest]:
        raise DoesNotFit(*state.mismatch(unfit[closest] if closest else ["there is no network here"], str(path)))
    return closest


def _single(loaded: Content, path: Path, parts: Mapping[str, Any]) -> tuple[Content, list[str]]:
    """One file that holds everything."""
    found = {old: next((n for n in called if n in parts), None) for old, called in _CALLED.items() if old in loaded}
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
