"""TensorBoard's event files: reading them up to a tear, taking them back to a position, appending whole records.

TensorFlow's record format: length (8 bytes, little-endian), its masked CRC-32C, the event as protocol buffer, its CRC.
TensorBoard reads every file of a folder whose name holds ``tfevents``, in the order of the names.
"""

from __future__ import annotations

import io
import re
import struct
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganguard.store import durable

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event

_LENGTH = struct.Struct("<Q")
_CRC_SIZE = 4
_CUT = ".cut.tmp"


def framed(event: Event) -> bytes:
    """An event as a record."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    record = io.BytesIO()
    RecordWriter(record).write(event.SerializeToString())
    return record.getvalue()


def scalars(step: int, values: Mapping[str, float]) -> bytes:
    """A record of numbers."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    numbers = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
    return framed(Event(wall_time=time.time(), step=step, summary=Summary(value=numbers)))


def image(step: int, tag: str, encoded: bytes, *, width: int, height: int, channels: int) -> bytes:
    """A record of a picture: the bytes of a PNG or JPEG file."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    picture = Summary.Image(width=width, height=height, colorspace=channels, encoded_image_string=encoded)
    summary = Summary(value=[Summary.Value(tag=tag, image=picture)])
    return framed(Event(wall_time=time.time(), step=step, summary=summary))


def beginning(step: int) -> bytes:
    """The records that a file begins with: what a TensorBoard has read from other files from ``step`` on is void."""
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog

    now = time.time()
    version = Event(wall_time=now, step=step, file_version="brain.Event:2")
    start = Event(wall_time=now, step=step, session_log=SessionLog(status=SessionLog.START))
    return framed(version) + framed(start)


def events(path: Path) -> Iterator[tuple[bytes, Event]]:
    """Every whole record and the event in it, up to a tear. Contents' CRCs are left to TensorBoard: 0.2 s a MB here."""
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.event_pb2 import Event

    with path.open("rb") as file:
        while len(record := _record(file)) > 0:
            try:
                event = Event.FromString(record[_LENGTH.size + _CRC_SIZE : -_CRC_SIZE])
            except DecodeError:
                return
            yield record, event


def _record(file: io.BufferedReader) -> bytes:
    """The next record; nothing at the end or where it is torn."""
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    head = file.read(_LENGTH.size + _CRC_SIZE)
    if len(head) < _LENGTH.size + _CRC_SIZE:
        return b""
    length = head[: _LENGTH.size]
    if int.from_bytes(head[_LENGTH.size :], "little") != masked_crc32c(length):
        return b""
    size = _LENGTH.unpack(length)[0] + _CRC_SIZE
    body = file.read(size)
    return head + body if len(body) == size else b""


def in_order(folder: Path) -> list[Path]:
    """The folder's event files as TensorBoard reads them."""
    return sorted(folder.glob("*tfevents*")) if folder.is_dir() else []


def next_name(folder: Path) -> str:
    """A name that TensorBoard reads after all that are there, whatever the clock says."""
    numbers = [int(found[1]) for p in in_order(folder) if (found := re.search(r"tfevents\.(\d{1,10})\.", p.name))]
    return f"events.out.tfevents.{max([int(time.time()), *(n + 1 for n in numbers)]):010d}.ganguard"


def cut_back(path: Path, step: int, aside: Path) -> dict[str, int]:
    """Take the events after a step out of a file, and append them to ``aside``.

    A file that has none is left as it is. The file is replaced in one rename, its new content being on the medium by
    then: whatever comes between, no other event is lost or doubled.

    Returns:
        The last step of each tag that stays.

    Raises:
        OSError: the file is as it was.
    """
    last: dict[str, int] = {}
    has_later = False
    for _, event in events(path):
        if _is_later(event, step):
            has_later = True
        else:
            last |= {value.tag: event.step for value in event.summary.value}
    if has_later:
        _split(path, step, aside)
    return last


def _split(path: Path, step: int, aside: Path) -> None:
    temporary = path.with_name(_CUT)
    try:
        with aside.open("ab") as later, temporary.open("wb") as kept:
            for record, event in events(path):
                (later if _is_later(event, step) else kept).write(record)
            kept.flush()
            durable.sync_file(kept.fileno())
        durable.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _is_later(event: Any, step: int) -> bool:
    """Only what has values counts: a file's own beginning names the step that comes next."""
    return bool(event.summary.value) and event.step > step
