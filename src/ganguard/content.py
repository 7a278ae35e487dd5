"""What a checkpoint's body holds beside the parts, and what each of these must be to be believed.

It is looked at once, where a body comes in, so that whoever uses it later may rely on its shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ganguard import streams
from ganguard.errors import UnreadableCheckpoint
from ganguard.store.plain import (
    Check,
    all_of,
    having,
    is_count,
    is_json,
    is_number,
    is_score,
    is_text,
    list_of,
    or_none,
    record,
    table_of,
)

_MOST_THREADS = 1024
_SEEDS = 1 << 64
_LARGEST_STATE = 1 << 20  # bytes of one random stream
_COUNTS = ("epoch", "batch", "samples", "step", "images")


def check(loaded: Mapping[str, Any], path: Path) -> None:
    """Look at all that is not a part's own.

    Raises:
        UnreadableCheckpoint: something there is not what ganguard writes.
    """
    wrong = next((key for key, is_right in _KEYS.items() if key in loaded and not is_right(loaded[key])), None)
    if wrong is not None:
        raise UnreadableCheckpoint(
            f"{path} was not written by ganguard, or was changed since: what it holds as {wrong!r} makes no sense. "
            "Name another checkpoint, or start afresh: --no-checkpoint."
        )


def _is_seed(value: Any) -> bool:
    return type(value) is int and abs(value) < _SEEDS


def _is_threads(value: Any) -> bool:
    return type(value) is int and 1 <= value <= _MOST_THREADS


def _is_option(value: Any) -> bool:
    """An optimizer's, as the code made it: a number, or several (betas); a tensor was one where the code had it so."""
    return or_none(is_number)(value) or list_of(lambda item: or_none(is_number)(item) or _is_number_in_a_tensor(item))(
        value
    )


def _is_number_in_a_tensor(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout is torch.strided and value.numel() == 1 and not value.is_quantized


def _are_streams(value: Any) -> bool:
    """Whether random streams can be put back: those of this process are, for a moment."""
    if not table_of(lambda _: True)(value):
        return False
    try:
        with streams.kept():
            streams.restore_host(value)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        return False
    return all(map(_are_states, (states for name, states in value.items() if name not in streams.OF_THE_HOST)))


def _are_states(states: Any) -> bool:
    """Whether these may be streams of accelerators, one a device."""
    return (
        isinstance(states, list)
        and len(states) > 0
        and all(
            isinstance(state, Tensor) and state.dtype is torch.uint8 and state.nbytes <= _LARGEST_STATE
            for state in states
        )
    )


def _is_row(value: Any) -> bool:
    """Of the epochs' means."""
    return (
        isinstance(value, dict)
        and all(is_count(value.get(key)) for key in ("epoch", "step"))
        and all(is_number(item) for key, item in value.items() if key != "about")
        and is_json(value)
    )


def _is_sum(value: Any) -> bool:
    """A sum and how many there are of it."""
    return list_of(is_number)(value) and len(value) == 2


_KEYS: dict[str, Check] = {
    "progress": all_of(
        record(**dict.fromkeys(_COUNTS, is_count), seed=or_none(_is_seed), fingerprint=or_none(is_text)), is_json
    ),
    "history": all_of(
        having("epochs", "sums"),
        record(
            epochs=list_of(_is_row),
            sums=table_of(_is_sum),
            scores=table_of(is_number),
            about=table_of(is_json),
        ),
    ),
    "best": or_none(all_of(is_score, having("epoch", "step"))),
    "config": or_none(all_of(table_of(is_json), is_json)),
    "constructed": table_of(list_of(table_of(_is_option))),
    "random": or_none(_are_streams),
    "ganguard": all_of(
        record(run=is_text, branch=is_count, threads=or_none(_is_threads), versions=table_of(is_text)), is_json
    ),
}
