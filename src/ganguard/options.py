"""Optimizer options that a person edits between two runs.

The options as the code constructs them are stored. Where the code's differ at resume, the code wins and it is said;
otherwise the restored, scheduled value stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ganguard.state import unwrap
from ganguard.store.plain import is_number

# What schedulers of the cyclic kind write into a group: its other values are then theirs, not the code's.
_CYCLIC = {"max_lr", "max_momentum"}
_DERIVED = {"params", "param_names", "initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum"}


def constructed(parts: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Each optimizer's options, group by group, as the code made them; to be called before anything is restored."""
    found = {}
    for name, part in parts.items():
        optimizer = unwrap(part)
        if isinstance(optimizer, torch.optim.Optimizer):
            found[name] = [_options(group) for group in optimizer.param_groups]
    return found


def _options(group: Mapping[str, Any]) -> dict[str, Any]:
    if _CYCLIC & set(group):
        return {}
    options = {key: _plain(value) for key, value in group.items() if key not in _DERIVED}
    if "initial_lr" in group:  # a scheduler has begun: its first factor may be 0
        options["lr"] = _plain(group["initial_lr"])
    return {key: value for key, value in options.items() if all(map(_is_stored, _several(value)))}


def _plain(value: Any) -> Any:
    """The numbers in one-element tensors, alone or within a tuple; a stored tuple may have become a list."""
    if isinstance(value, list | tuple):
        return tuple(map(_plain, value))
    return value.item() if isinstance(value, torch.Tensor) and value.numel() == 1 else value


def _several(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _is_stored(value: Any) -> bool:
    return value is None or is_number(value)


def apply_edits(
    parts: Mapping[str, Any], now: dict[str, list[dict[str, Any]]], then: Mapping[str, list[dict[str, Any]]]
) -> list[str]:
    """Let options that the code constructs differently now win over the restored ones; returns which, in words."""
    told = []
    for name, groups in now.items():
        stored = then.get(name, [])
        restored = unwrap(parts[name]).param_groups
        for new, old, group in zip(groups, stored, restored, strict=False):
            for key in sorted(set(new) & set(old)):
                before = _plain(old[key])
                if new[key] != before:
                    _edit(parts, group, key, new[key], before)
                    told.append(f"{name}: {key} is {new[key]} now, it was {before}")
    return told


def _edit(parts: Mapping[str, Any], group: dict[str, Any], key: str, new: Any, old: Any) -> None:
    if key != "lr" or not (is_number(new) and is_number(old)):
        group[key] = new
        return
    factor = new / old if old else None
    scheduled = _plain(group["lr"])
    value = scheduled * factor if factor is not None and "initial_lr" in group else new
    if isinstance(group["lr"], torch.Tensor):
        group["lr"].fill_(value)
    else:
        group["lr"] = value
    if "initial_lr" in group:
        group["initial_lr"] = new
        _tell_schedulers(parts, group, new)


def _tell_schedulers(parts: Mapping[str, Any], group: Mapping[str, Any], new: float) -> None:
    """Schedulers compute from base rates of their own, those inside a chain or a sequence too."""
    schedulers = [unwrap(part) for part in parts.values()]
    while schedulers:
        scheduler = schedulers.pop()
        groups = getattr(getattr(scheduler, "optimizer", None), "param_groups", [])
        for index, scheduled in enumerate(groups):
            if scheduled is group and hasattr(scheduler, "base_lrs"):
                scheduler.base_lrs[index] = new
        schedulers += getattr(scheduler, "_schedulers", [])
