"""Paths as people type them."""

from __future__ import annotations

import os
from pathlib import Path


def expanded(text: str) -> Path:
    """``~`` is the home folder; where nothing tells which one is meant, the path stays as it is."""
    return Path(os.path.expanduser(text))  # noqa: PTH111  # Path's own raises there
