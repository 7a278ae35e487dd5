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

import numpy as np
import torch
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present as strip

from ganguard import state
from ganguard.errors import DoesNotFit
from ganguard.store import body
from ganguard.store.pair import Pair

Content = dict[str, Any]

# What older scripts call a part → what it may be called here.
_CALLED = {
    "netG_state_dict": ("generator", "netG", "G"),
    "netD_state_dict": ("discriminator", "critic", "netD", "D"),
    "optimizerG_state_dict": ("opt_g", "opt_generator", "optimizerG"),
    "optimizerD_state_dict": ("opt_d", "opt_discriminator", "opt_critic", "optimizerD"),
}
_MOST_EPOCHS = 1_000_000_000
_PREFIXES = ("module.", "_orig_mod.")  # of nn.DataParallel and of torch.compile


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
    notes = [note for file, content in files for note in without_prefixes(content, file)]
    if any(key in loaded for key in _CALLED):
        translated, more = _single(loaded, path, parts)
        return translated, [*notes, *more]
    owners = [pair.head_parts, pair.companion_parts] if pair else [None] * len(files)
    translated = {}
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


def without_prefixes(content: Content, path: Path) -> list[str]:
    """Take from the names of weights what wrappers put before them; returns what was done, in words."""
    notes = []
    for key, weights in (("", content), *content.items()):
        if taken := _taken(weights):
            of = f" of {key}" if key else ""
            notes.append(f"{path.name}: all names{of} begin with {taken}, which a wrapper added; it is left out.")
    return notes


def _taken(weights: Any) -> str:
    """The prefixes that all names of a state dict shared."""
    if not isinstance(weights, dict) or not weights or not all(isinstance(name, str) for name in weights):
        return ""
    taken = ""
    while prefix := next((p for p in _PREFIXES if all(name.startswith(p) for name in weights)), ""):
        strip(weights, prefix)
        taken += prefix
    return taken


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
    if owner is not None:
        _require_not_another(weights, path, parts, owner[0])
    module, optimizer = owner or (_fitting(weights, path, parts), "")
    found = {module: weights}
    return {**found, optimizer: content["optimizer"]} if optimizer and "optimizer" in content else found


def _require_not_another(weights: Content, path: Path, parts: Mapping[str, Any], owner: str) -> None:
    """Raises DoesNotFit where a file holds another network than the one that it was named for."""
    if not state.differences({owner: parts[owner]}, {owner: weights}):
        return
    fits = (n for n in _modules(parts) if n != owner and not state.differences({n: parts[n]}, {n: weights}))
    if other := next(fits, None):
        raise DoesNotFit(f"{path} holds the weights of {other}, and was named as those of {owner}. Swap the two names.")


def _modules(parts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: part for name, part in parts.items() if isinstance(state.unwrap(part), torch.nn.Module)}


def _fitting(weights: Content, path: Path, parts: Mapping[str, Any]) -> str:
    """The network that has these names and shapes.

    Raises:
        DoesNotFit: none has; the message tells what differs from the one that is closest.
    """
    unfit = {name: state.differences({name: part}, {name: weights}) for name, part in _modules(parts).items()}
    closest = min(unfit, key=lambda name: len(unfit[name]), default=None)
    if closest is None:
        raise DoesNotFit(f"{path} holds the weights of a network, and there is none among the parts of this run.")
    if unfit[closest]:
        raise DoesNotFit(*mismatch(parts, {closest: weights}, str(path)))
    return closest


def mismatch(parts: Mapping[str, Any], translated: Content, source: str) -> list[str]:
    """How an older file differs and what helps: other settings, unless the networks have no name in common."""
    lines, advice = state.differences(parts, translated), "Use the settings it was trained with."
    if not any(_names(part) & set(translated[name]) for name, part in _modules(parts).items() if name in translated):
        lines = [line for line in lines if line.endswith("only in the checkpoint")]
        advice = "Its networks are built otherwise, so no setting makes it fit: go on with the script that wrote it."
    return state.mismatch(lines, source, f"{advice} To train without it, do not name it.")


def _names(module: Any) -> set[str]:
    return set(state.unwrap(module).state_dict())


def _single(loaded: Content, path: Path, parts: Mapping[str, Any]) -> tuple[Content, list[str]]:
    """One file that holds everything."""
    found = {old: next((n for n in called if n in parts), None) for old, called in _CALLED.items() if old in loaded}
    translated = {ours: loaded[old] for old, ours in found.items() if ours is not None}
    told = told_by(loaded)
    epoch = told.get("epoch", 0)
    translated["progress"] = {"epoch": epoch, "batch": 0, "samples": 0, "step": 0, "images": 0}
    translated["history"] = {"epochs": _rows(loaded, epoch), "sums": {}}
    translated["best"] = _best(told, epoch)
    notes = [
        f"{path.name} was written by an older script: it holds no digest, no random states, no count of steps and "
        f"images, and no position within an epoch. Training goes on at the beginning of epoch {epoch + 1}."
    ]
    notes += [f"{old} has no part to go to here; it is left out." for old, ours in found.items() if ours is None]
    return translated, notes


def about(path: Path) -> dict[str, Any]:
    """What ``told_by`` finds in a file, and what it ``holds``, in words.

    Raises:
        CheckpointError: it cannot be opened safely, or is another file.
    """
    loaded = body.load_file(path)
    tables = {str(key): value for key, value in loaded.items() if isinstance(value, dict) and key != "hyperparameters"}
    bare = sum(isinstance(value, torch.Tensor) for value in loaded.values())
    holds = [f"{key} ({_tensors_in(value)} tensors)" for key, value in tables.items()]
    return {**told_by(loaded), "holds": ", ".join([f"{bare} tensors"] * bool(bare) + holds)}


def _tensors_in(value: Any) -> int:
    if isinstance(value, dict):
        return sum(map(_tensors_in, value.values()))
    return int(isinstance(value, torch.Tensor))


def told_by(loaded: Mapping[str, Any]) -> dict[str, Any]:
    """What an older file says about itself: ``epoch``, ``loss_g``, ``loss_d``, ``best_fid``, ``hyperparameters``.

    What is not there, or is no number, is left out.
    """
    told: dict[str, Any] = {"epoch": _count(loaded.get("epoch")), "best_fid": _number(loaded.get("best_fid"))}
    for name, values in _losses(loaded).items():
        told[name] = next((value for value in reversed(values) if value is not None), None)
    settings = loaded.get("hyperparameters")
    if isinstance(settings, dict):
        plain = ((str(k), v if isinstance(v, str | int | float) else str(v)) for k, v in settings.items())
        told["hyperparameters"] = dict(plain)
    return {name: value for name, value in told.items() if value is not None}


def _rows(loaded: Mapping[str, Any], epoch: int) -> list[dict[str, Any]]:
    """A row for each epoch that has losses."""
    losses = _losses(loaded)
    rows = []
    for index in range(min(epoch, max(map(len, losses.values())))):
        means = {name: values[index] for name, values in losses.items() if index < len(values)}
        rows.append({"epoch": index + 1, "step": 0, **{name: mean for name, mean in means.items() if mean is not None}})
    return rows


def _losses(loaded: Mapping[str, Any]) -> dict[str, list[float | None]]:
    """One number an epoch; lists, arrays and tensors serve."""
    found = {}
    for name, key in (("loss_g", "g_losses"), ("loss_d", "d_losses")):
        values = loaded.get(key)
        values = values.flatten().tolist() if isinstance(values, torch.Tensor | np.ndarray) else values
        found[name] = [_number(value) for value in values] if isinstance(values, list | tuple) else []
    return found


def _best(told: Mapping[str, Any], epoch: int) -> dict[str, Any] | None:
    # Its extractor is unknown, so the name keeps it from being compared with scores of today.
    best = told.get("best_fid")  # inf, which stands for none, is left out there
    return None if best is None else {"name": "fid (older script)", "value": best, "epoch": epoch, "step": 0}


def _count(value: Any) -> int | None:
    number = _number(value)
    return int(number) if number is not None and 0 <= number < _MOST_EPOCHS else None


def _number(value: Any) -> float | None:
    """A finite number, whether kept as such, as text, as a tensor or as numpy's; None where it is none."""
    try:
        number = float(value.detach() if isinstance(value, torch.Tensor) else value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None
    return number if math.isfinite(number) else None
