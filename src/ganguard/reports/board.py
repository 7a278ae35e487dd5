"""TensorBoard's numbers and pictures: one value per position, whatever stopped the run and wherever it went back to.

Not torch's ``SummaryWriter``: it writes in a thread of its own, which on a full disk prints a traceback and never
writes again. Here records are written in the caller's thread, whole, before a call returns.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganguard.reports import event_files
from ganguard.reports.console import counted
from ganguard.reports.curves import NO_VALUES
from ganguard.store.durable import why, write_all

if TYPE_CHECKING:
    from torch import Tensor

_MOST_KEPT_BACK = 64_000_000  # bytes held in memory while the disk takes none


class Board:
    """Event files in ``folder`` that go on from a position. Never fails a training; tells once what is wrong.

    What earlier starts wrote after the position is taken out and appended to ``<folder>_after_step_<step>.events``
    beside the folder. A value at or before the last step of its tag is left out, so that what a resume repeats stands
    there once. Without the package ``tensorboard`` every call does nothing. Draws no random numbers, starts no thread
    and holds no file open.

    Args:
        folder: made when the first value is written; of one run only.
        step: iterations done.
        say: prints a line.
    """

    def __init__(self, folder: Path, *, step: int, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._say = say
        self._begin_at = step + 1
        self._file: Path | None = None  # of this start, from its first value on
        self._last: dict[str, int] = {}  # tag → its last step
        self._waiting: list[bytes] = []
        self._failing = False
        self._there = _package_is_there(say)
        if self._there:
            self._cut_back(step)

    def _cut_back(self, step: int) -> None:
        aside = self._folder.with_name(f"{self._folder.name}_after_step_{step}.events")
        try:
            for path in event_files.in_order(self._folder):
                for tag, last in event_files.cut_back(path, step, aside).items():
                    self._last[tag] = max(last, self._last.get(tag, 0))
        except OSError as error:
            self._say(f"TensorBoard's files in {self._folder} could not be cut back to step {step}: {why(error)}.")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write numbers of a position, each under its tag; ``step`` is iterations done."""
        new = {tag: float(value) for tag, value in values.items() if self._is_new(tag, step)}
        if self._there and new:
            self._write(event_files.scalars(step, new))
            self._last |= dict.fromkeys(new, step)

    def epochs(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write the rows of a run's history that aren't there yet, under ``epoch/<name>``.

        Called with the whole history each time, it also brings what an earlier start could not write. Rows of an older
        script, which counted no steps, are left out.
        """
        for row in rows:
            if not row.get("step"):
                continue
            numbers = {f"epoch/{n}": v for n, v in row.items() if n not in NO_VALUES and isinstance(v, int | float)}
            self.scalars(int(row["step"]), numbers)

    def image(self, step: int, name: str, picture: Path | Tensor) -> None:
        """Write a picture: a PNG or JPEG file, or a uint8 tensor (C, H, W) with C = 1 or 3."""
        if not self._there or not self._is_new(name, step):
            return
        from PIL import Image

        try:
            encoded = picture.read_bytes() if isinstance(picture, Path) else _as_png(picture)
            with Image.open(io.BytesIO(encoded)) as opened:
                width, height, channels = *opened.size, len(opened.getbands())
        except OSError as error:
            self._say(f"The picture {picture} is not shown in TensorBoard: {why(error)}.")
            return
        self._write(event_files.image(step, name, encoded, width=width, height=height, channels=channels))
        self._last[name] = step

    def close(self) -> None:
        """Write what still waits; tell where that fails."""
        if self._there:
            self._write(b"")
        if self._waiting:
            self._say(
                "The disk took no more of TensorBoard's values: "
                f"{counted(len(self._waiting), 'write is', 'writes are')} lost."
            )
        self._waiting = []

    def _is_new(self, tag: str, step: int) -> bool:
        return step > self._last.get(tag, -1)

    def _write(self, record: bytes) -> None:
        """Append a record, and those that have waited. What has been written survives the death of the process."""
        self._waiting += [record] if record else []
        if not self._waiting:
            return
        try:
            self._append(b"".join(self._waiting))
            self._waiting = []
            self._failing = False
        except OSError as error:
            if not self._failing:
                self._say(f"TensorBoard's files in {self._folder} cannot be written: {why(error)}. It tries again.")
            self._failing = True
            while sum(map(len, self._waiting)) > _MOST_KEPT_BACK:
                del self._waiting[0]

    def _append(self, records: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._file is None:
            self._file = self._folder / event_files.next_name(self._folder)
        with self._file.open("ab", buffering=0) as file:
            size = file.tell()
            try:
                write_all(file, records if size else event_files.beginning(self._begin_at) + records)
            except OSError:
                file.truncate(size)  # TensorBoard reads nothing behind half a record
                raise


def _package_is_there(say: Callable[[str], None]) -> bool:
    try:
        import tensorboard.compat.proto.event_pb2
        import tensorboard.summary.writer.record_writer  # noqa: F401  # asked for here, used in event_files
    except ImportError:
        say("TensorBoard is not installed, so nothing is written for it: pip install tensorboard")
        return False
    except Exception as error:  # protobuf of another generation: TypeError and others
        say(f"TensorBoard cannot be loaded, so nothing is written for it: {error}")
        return False
    return True


def _as_png(picture: Tensor) -> bytes:
    from torchvision.transforms.functional import to_pil_image

    encoded = io.BytesIO()
    to_pil_image(picture).save(encoded, format="PNG")
    return encoded.getvalue()
