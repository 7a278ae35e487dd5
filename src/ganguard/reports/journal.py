"""The journal: one JSON object a line, one line a training step, one at each epoch's end."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ganguard.reports import console
from ganguard.store import durable
from ganguard.store.durable import why, write_all
from ganguard.store.plain import is_count
from ganguard.store.reading import open_regular, parse_json

OWN_NAMES = frozenset({"step", "epoch", "batch", "tail", "epoch_end", "savings", "about"})
"""What lines and epochs' rows say of themselves; no value that is logged is called like that."""
_MOST_KEPT_BACK = 100_000  # lines held in memory while the disk takes none
_APPENDING = os.O_WRONLY | os.O_APPEND | os.O_CREAT
_LONGEST_LINE = 1 << 20  # bytes; what is longer is none of ours


class Journal:
    """Appends to ``path``. A disk that takes no lines is told once, and the lines wait in memory.

    Args:
        tag: of temporary files, the run's own: other runs may share the folder.
    """

    def __init__(self, path: Path, warn: Callable[[str], None], tag: str) -> None:
        self.path = path
        self._warn = warn
        self._tag = tag
        self._waiting: list[str] = []
        self._failing = set[str]()  # what fails, and was told
        self._unsynced = False

    def cut_back(self, step: int, epoch: int) -> Path | None:
        """Take out the lines after a position, so that nothing overlaps; they are kept in a file beside it.

        Lines before it stay, whatever lies between them: what is damaged there is taken out too, and told.

        Args:
            step: iterations done.
            epoch: epochs finished; the lines of a tail that is to be repeated go too.
        """
        try:
            found = self._survey(step, epoch)
            if not found.later and not found.damaged:
                return None
            aside = self._beside(f"after_step_{step}", found.later)
            if damaged := self._beside("damaged", found.damaged):
                self._warn(
                    f"The journal holds {console.counted(len(found.damaged), 'damaged line')}, by a power cut or the "
                    f"disk: what stood there is missing, and the rest of it was moved to {damaged.name}."
                )
            if found.between:
                with durable.written_atomically(self.path, self._tag) as file:
                    file.writelines(line for line in _lines(self.path) if _belongs(line, step, epoch))
            else:
                with open_regular(self.path, os.O_RDWR) as file:
                    file.truncate(found.end)
        except OSError as error:
            self._warn(f"The journal could not be cut back to step {step}: {why(error)}.")
            return None
        return aside

    def _survey(self, step: int, epoch: int) -> _Survey:
        """What is to be taken out for a position: all that follows the last line before it, and what lies between."""
        found, following, at = _Survey(), list[bytes](), 0
        for line in _lines(self.path):
            at += len(line)
            if not _belongs(line, step, epoch):
                following.append(line)
                continue
            found.between |= bool(following)
            for left in following:
                (found.damaged if _row(left) is None else found.later).append(left)
            following, found.end = [], at
        found.later += following
        return found

    def _beside(self, what: str, lines: list[bytes]) -> Path | None:
        """Append lines to a file beside the journal; returns it, None where there are none."""
        path = self.path.with_name(f"{self.path.stem}_{what}.jsonl")
        if not lines:
            return None
        with open_regular(path, _APPENDING) as file:
            write_all(file, b"".join(lines))
        return path

    def write(self, rows: Iterable[dict[str, Any]]) -> None:
        """Append rows, and those that have waited. Never fails."""
        self._waiting += [json.dumps(row, separators=(",", ":")) for row in rows]
        if not self._waiting:
            return
        try:
            self._append("".join(f"{line}\n" for line in self._waiting).encode())
            self._waiting = []
            self._failing.discard("write")
        except OSError as error:
            self._tell_once("write", f"cannot be written: {why(error)}. Its lines wait in memory.")
            del self._waiting[:-_MOST_KEPT_BACK]

    def _append(self, text: bytes) -> None:
        durable.make_folder(self.path.parent)
        with open_regular(self.path, _APPENDING) as file:
            size = file.seek(0, os.SEEK_END)
            try:
                write_all(file, text)
            except OSError:
                file.truncate(size)  # half of it would stand there twice once the disk takes it again
                raise
        self._unsynced = True

    def sync(self) -> None:
        """Return once what was written survives a power cut. Never fails."""
        if not self._unsynced:
            return
        try:
            with open_regular(self.path, os.O_RDWR) as file:
                durable.sync_file(file.fileno())
            durable.sync_folder(self.path.parent)
            self._unsynced = False
            self._failing.discard("sync")
        except OSError as error:
            self._tell_once("sync", f"may lack lines after a power cut: {why(error)}.")

    def _tell_once(self, what: str, text: str) -> None:
        if what not in self._failing:
            self._warn(f"The journal {self.path} {text}")
        self._failing.add(what)


@dataclass
class _Survey:
    """What a journal holds beside the lines before a position."""

    end: int = 0  # bytes up to the last line before it
    later: list[bytes] = field(default_factory=list)  # with all that follows ``end``
    damaged: list[bytes] = field(default_factory=list)  # before ``end``
    between: bool = False  # some of it lies before ``end``


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a journal; none where there is none. Zeros before one, which a power cut leaves, stand alone."""
    try:
        opened = open_regular(path)
    except FileNotFoundError:
        return
    with io.BufferedReader(opened) as file:
        while line := file.readline(_LONGEST_LINE):
            rest = line.lstrip(b"\0")
            yield from filter(None, (line[: len(line) - len(rest)], rest))


def _row(line: bytes) -> dict[str, Any] | None:
    """What a line says; None where it is damaged."""
    try:
        row = parse_json(line)
    except ValueError:
        return None
    whole = line.endswith(b"\n") and isinstance(row, dict) and is_count(row.get("step"))
    return row if whole and is_count(row.get("epoch", 0)) else None


def _belongs(line: bytes, step: int, epoch: int) -> bool:
    """Whether a line is whole and not later than a position."""
    row = _row(line)
    in_later_tail = row is not None and ("tail" in row or "epoch_end" in row) and row.get("epoch", 0) > epoch
    return row is not None and row["step"] <= step and not in_later_tail


def read(path: Path) -> list[dict[str, Any]]:
    """All whole lines; an empty list where there is no journal."""
    return [row for row in map(_row, _lines(path)) if row is not None]
