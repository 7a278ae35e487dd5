"""A checkpoint of two files: what lies in which, and the two as one again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ganguard.errors import DoesNotFit, UsageError
from ganguard.store.pair import Pair

_KEYS = ("state_dict", "optimizer")  # at the top of each file, where the usual snippets look


def check(pair: Pair, parts: Mapping[str, Any]) -> None:
    """Raises UsageError where the layout names a part that is not there, or a part is called like a file's keys."""
    for name in (*pair.head_parts, *pair.companion_parts):
        if name not in parts:
            raise UsageError(
                f"The layout puts a part {name!r} into a file, but there is none among {', '.join(parts)}."
            )
    for name in set(_KEYS) & set(parts):
        raise UsageError(f"A part cannot be called {name!r}: that key of a pair's files is taken. Rename it.")


def split(pair: Pair, body: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The contents of the companion and of the head, which holds all that the companion does not."""
    second = {key: body[name] for key, name in zip(_KEYS, pair.companion_parts, strict=True)}
    first = {key: body[name] for key, name in zip(_KEYS, pair.head_parts, strict=True)}
    taken = {*pair.companion_parts, *pair.head_parts}
    rest = {key: value for key, value in body.items() if key not in taken}
    # So that two files can be told to belong together even where their ends were lost.
    return {**second, "progress": body["progress"], "ganguard": body["ganguard"]}, {**first, **rest}


def join(pair: Pair, head: Mapping[str, Any], companions: Sequence[Mapping[str, Any]], path: Path) -> dict[str, Any]:
    """The inverse of ``split``.

    Raises:
        DoesNotFit: the companion is not there, or is another checkpoint's.
    """
    if not companions:
        raise DoesNotFit(
            f"{path} is the first file of a pair, and where the second one is it does not tell. Name both."
        )
    (second,) = companions
    if any(second.get(key) != head.get(key) for key in ("progress", "ganguard")):
        raise DoesNotFit(
            f"{path} and the second file that was named were not saved together. Name the two of one save."
        )
    body = {key: value for key, value in head.items() if key not in _KEYS}
    for content, names in ((head, pair.head_parts), (second, pair.companion_parts)):
        body |= {name: content[key] for key, name in zip(_KEYS, names, strict=True) if key in content}
    return body
