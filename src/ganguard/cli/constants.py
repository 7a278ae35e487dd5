"""The constants at the top of ``progan_local.py``, as settings; those of older scripts work or get a hint."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path, PurePath
from typing import Any

from ganguard.errors import UsageError
from ganguard.training.progan_config import ProganConfig

_FOLDERS = ("DATA_DIR", "WEIGHTS_DIR", "OUTPUT_DIR", "LOGS_DIR", "CHECKPOINT_GEN", "CHECKPOINT_CRITIC")


def edited(constants: Mapping[str, Any]) -> dict[str, Any]:
    """The constants that differ from the defaults, by the names of the settings.

    Raises:
        UsageError: one is no setting; the message tells what takes its place.
    """
    defaults = {item.name: item.default for item in fields(ProganConfig)}
    found = {}
    for name, value in constants.items():
        key = name.lower()
        if key not in defaults:
            if hint := _hint(name, value, constants, list(defaults)):
                raise UsageError(f"{name} at the top of progan_local.py is no setting. {hint}")
            continue
        plain = str(value) if isinstance(value, PurePath) else value
        plain = None if plain == "" and defaults[key] is None else plain
        if _comparable(plain) != _comparable(defaults[key]):
            found[key] = plain
    return found


def _comparable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else value


def _hint(name: str, value: Any, constants: Mapping[str, Any], settings: list[str]) -> str:
    """What to do about a constant that is no setting; empty where nothing has to be done."""
    if name in _OF_OLDER_SCRIPTS:
        return _OF_OLDER_SCRIPTS[name](value, constants)
    close = difflib.get_close_matches(name.lower(), settings, n=1)
    return f"Did you mean {close[0].upper()}?" if close else "Take it out, or write it in small letters."


def _base_dir(value: Any, constants: Mapping[str, Any]) -> str:
    """It does its work where others are written with it."""
    base = Path(str(value))
    others = [Path(str(constants[name])) for name in _FOLDERS if constants.get(name)]
    if any(base in (other, *other.parents) for other in others):
        return ""
    return 'Write the folders with it, such as WEIGHTS_DIR = BASE_DIR / "weights", or take it out.'


def _dataset(value: Any, constants: Mapping[str, Any]) -> str:
    """DATA_DIR was the folder above the one of this name, which held the images."""
    data = Path(str(constants.get("DATA_DIR", "")))
    if data.name == str(value):
        return ""
    return f"DATA_DIR is the folder of the images itself: write one that ends in {str(value)!r}, or take DATASET out."


def _batch_limit(value: Any, constants: Mapping[str, Any]) -> str:
    sizes = constants.get("BATCH_SIZES", ())
    if isinstance(value, int) and isinstance(sizes, list | tuple) and all(size <= value for size in sizes):
        return ""
    return (
        f"Write no number above {value} in BATCH_SIZES. A batch that does not fit into the memory is worked on in "
        "smaller pieces."
    )


def _gpu_monitoring(value: Any, _constants: Mapping[str, Any]) -> str:
    if not value:
        return ""
    return "ganguard does not watch the card's temperature yet: set it to False, and look with nvidia-smi -l 5."


def _fixed_noise(_value: Any, _constants: Mapping[str, Any]) -> str:
    return "The grids show the same latents by themselves, drawn by SEED. Take it out."


_OF_OLDER_SCRIPTS = {
    "BASE_DIR": _base_dir,
    "DATASET": _dataset,
    "MAX_BATCH_SIZE_LIMIT": _batch_limit,
    "ENABLE_GPU_MONITORING": _gpu_monitoring,
    "FIXED_NOISE": _fixed_noise,
}
