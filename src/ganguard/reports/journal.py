"""The journal: one JSON object a line, one line a training step, one at each epoch's end."""

from __future__ import annotations

import json
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

    def cut_back(self, step: int, epoch: int) -> Path | None:
        """Take out the lines after a position, so that nothing overlaps; they are kept in a file beside it.

        Args:
            step: iterations done.
            epoch: epochs finished; the lines of a tail that is to be repeated go too.
        """
        try:
            later = self._later(step, epoch)
            if not later:
                return None
            aside = self.path.with_name(f"{self.path.stem}_after_step_{step}.jsonl")
            with aside.open("ab") as file:
                file.writelines(later)
            with self.path.open("rb+") as file:
                file.truncate(self.path.stat().st_size - sum(map(len, later)))
        except OSError as error:
            self._warn(f"The journal could not be cut back to step {step}: {why(error)}.")
            return None
        return aside

    def _later(self, step: int, epoch: int) -> list[bytes]:
        """The lines from the first on that is later than the position, or torn."""
        if not self.path.exists():
            return []
        later: list[bytes] = []
        with self.path.open("rb") as file:
            for line in file:
                if later or _is_later(line, step, epoch):
                    later.append(line)
        return later

    def write(self, rows: Iterable[dict[str, Any]]) -> None:
        """Append rows, and those that have waited. Never fails."""
        self._waiting += [json.dumps(row, separators=(",", ":")) for row in rows]
        if not self._waiting:
            return
        try:
            self._append("".join(f"{line}\n" for line in self._waiting).encode())
            self._waiting = []
            self._failing = False
        except OSError as error:
            if not self._failing:
                self._warn(f"The journal {self.path} cannot be written: {why(error)}. Its lines wait in memory.")
            self._failing = True
            del self._waiting[:-_MOST_KEPT_BACK]

    def _append(self, text: bytes) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab", buffering=0) as file:
            size = file.tell()
            done = 0
            try:
                while done < len(text):
                    done += file.write(text[done:])
            except OSError:
                file.truncate(size)  # half of it would stand there twice once the disk takes it again
                raise


def _is_later(line: bytes, step: int, epoch: int) -> bool:
    """A torn line counts as later than everything."""
    try:
        row = json.loads(line)
        in_later_tail = ("tail" in row or "epoch_end" in row) and int(row["epoch"]) > epoch
        return not line.endswith(b"\n") or int(row["step"]) > step or in_later_tail
    except (ValueError, KeyError, TypeError):
        return True


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
