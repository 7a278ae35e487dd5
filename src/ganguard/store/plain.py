"""What a file's plain values must be to be believed: a forger writes any, with a digest that is right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Check = Callable[[Any], bool]
_LARGEST = 1 << 63
_DEEPEST = 32
_MOST_BITS = 1024  # of a whole number that only is shown: a float may hold as many


def is_count(value: Any) -> bool:
    """A whole number from 0 on that other systems can hold too."""
    return type(value) is int and 0 <= value < _LARGEST


def is_number(value: Any) -> bool:
    """A number that a float can hold, NaN and infinities among them."""
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < _LARGEST)


def is_text(value: Any) -> bool:
    return isinstance(value, str)


def is_json(value: Any, depth: int = _DEEPEST) -> bool:
    """What JSON can carry, and a person look at."""
    if isinstance(value, dict):
        return depth > 0 and all(is_text(key) and is_json(item, depth - 1) for key, item in value.items())
    if isinstance(value, list | tuple):
        return depth > 0 and all(is_json(item, depth - 1) for item in value)
    if isinstance(value, int):
        return value.bit_length() <= _MOST_BITS
    return value is None or isinstance(value, str | float)


def or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


def list_of(check: Check) -> Check:
    return lambda value: isinstance(value, list | tuple) and all(map(check, value))


def table_of(check: Check) -> Check:
    return lambda value: isinstance(value, dict) and all(map(is_text, value)) and all(map(check, value.values()))


def record(**checks: Check) -> Check:
    """A dict in which each of these keys, where it is there, holds what it should; other keys are a later version's."""
    return lambda value: (
        isinstance(value, dict)
        and all(map(is_text, value))
        and all(check(value[key]) for key, check in checks.items() if key in value)
    )


def all_of(*checks: Check) -> Check:
    return lambda value: all(check(value) for check in checks)


def having(*keys: str) -> Check:
    """A dict that has these keys."""
    return lambda value: isinstance(value, dict) and all(key in value for key in keys)


is_score = all_of(
    having("name", "value"), record(name=is_text, value=is_number, epoch=is_count, step=is_count), is_json
)
"""A score: its name, its value, where it was taken and what it was made with (``about``)."""
