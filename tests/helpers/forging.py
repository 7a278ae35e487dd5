"""Checkpoints as a forger writes them: any content, under a digest that is right."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterator
from operator import getitem
from pathlib import Path
from typing import Any

import torch
from systems import remove

from ganguard.store import envelope

_LIST_ITEMS = 2  # of a list that are looked into


def forge(path: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
    """Put another checkpoint at ``path``: its body and its summary, both as ``change`` leaves them."""
    body = torch.load(path, weights_only=True)
    summary = envelope.verify(path)
    change(body, summary)
    content = io.BytesIO()
    torch.save(body, content)
    seal(path, content.getvalue(), summary)


def seal(path: Path, data: bytes, summary: dict[str, Any]) -> Path:
    """Bytes and a summary under a digest of their own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    remove(path, missing_ok=True)
    with path.open("wb", buffering=0) as file:
        hashed = envelope.HashingFile(file)
        hashed.write(data)
        envelope.seal(file, hashed, summary)
    return path


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something lies within nested dicts and lists."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:_LIST_ITEMS]) if _is_list(value) else ()
    for key, inner in items:
        yield (*at, key)
        yield from places(inner, (*at, key))


def tables(value: Any) -> list[tuple[Any, ...]]:
    """Where a dict lies within nested dicts and lists."""
    return [place for place in ((), *places(value)) if isinstance(functools.reduce(getitem, place, value), dict)]


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 0


def put(value: Any, place: tuple[Any, ...], new: Any) -> None:
    *way, last = place
    for key in way:
        value = value[key]
    value[last] = new


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


def wrong_values() -> dict[str, Any]:
    """One of each kind that a place may not expect."""
    quantized = torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8)
    return {
        "nothing": None,
        "text": "x\n\x1b[31m",
        "negative": -1,
        "zero": 0,
        "huge": 10**400,
        "wide": 1 << 62,
        "nan": float("nan"),
        "infinite": float("inf"),
        "fraction": 1.5,
        "list": [],
        "table": {},
        "odd keys": {1: 2, None: "x", (1, 2): 3},
        "deep": nested(5000),
        "rather deep": nested(60),
        "set": {1, 2},
        "tensor": torch.zeros(3),
        "empty tensor": torch.zeros(0),
        "complex": torch.zeros(2, 2, dtype=torch.complex64),
        "without values": torch.empty(2, 2, device="meta"),
        "sparse": torch.sparse_coo_tensor(torch.zeros(2, 1, dtype=torch.long), torch.ones(1), (1 << 20, 1 << 20)),
        "quantized": quantized,
        "repeated": torch.zeros(1).expand(1 << 40),
        "float8": torch.zeros(2, 2).to(torch.float8_e4m3fn),
    }
