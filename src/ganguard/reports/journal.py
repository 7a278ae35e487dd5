"""The journal: one JSON object a line, one line a training step, one at each epoch's end."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ganguard.store.durable import why

_MOST_KEPT_BACK = 100_000  # lines held in memory while the disk takes none


class Journal:
    """Appends to ``path``. A disk that takes no lines is told once, and the lines wait in memory."""

    def __init__(self, path: Path, warn: Callable[[str], None]) -> None:
        self.path = path
        self._warn = warn
        self._waiting: list[str] = []
        self._failing = False

    def cut_back(self, step: int) -> Path | None:
        """Drop the lines after ``step``, so that nothing overlaps; what is dropped is kept in a file beside it."""
        if not self.path.exists():
            return None
        keep, later = self._split(step)
        if not later:
            return None
        aside = self.path.with_name(f"{self.path.stem}_after_step_{step}.jsonl")
        try:
            with aside.open("ab") as file:
                file.writelines(later)
            os.truncate(self.path, keep)
        except OSError as error:
            self._warn(f"The journal could not be cut back to step {step}: {why(error)}.")
        return aside

    def _split(self, step: int) -> tuple[int, list[bytes]]:
        keep = 0
        later: list[bytes] = []
        with self.path.open("rb") as file:
            for line in file:
                if not later and _step_of(line) <= step:
                    keep += len(line)
                else:
                    later.append(line)
        return keep, later

    def write(self, rows: Iterable[dict[str, Any]]) -> None:
        self._waiting += [json.dumps(row, separators=(",", ":")) for row in rows]
        if not self._waiting:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write("\n".join(self._waiting) + "\n")
            self._waiting = []
            self._failing = False
        except OSError as error:
            if not self._failing:
                self._warn(f"The journal {self.path} cannot be written: {why(error)}. Its lines wait in memory.")
            self._failing = True
            del self._waiting[:-_MOST_KEPT_BACK]


def _step_of(line: bytes) -> int:
    """A torn last line counts as later than everything."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return 1 << 62


def read(path: Path) -> list[dict[str, Any]]:
    """All whole lines; an empty list where there is no journal."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_bytes().splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows
