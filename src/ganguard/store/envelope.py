"""The summary and digest that a checkpoint carries in its zip comment.

A ``.pth`` file is a zip archive, and a zip archive may end in a comment of at most 65,535 bytes, which
``torch.load`` ignores. Ours is

    JSON summary  "\\n"  "ganguard" " " length of the JSON (5 digits) " " xxh3-128 of the JSON (32 hex digits)

The summary holds the digest (xxh3-128) of all other bytes, that is of the archive as it was before the comment
was added, and its length. So one short read at the end of a file tells what it is, and one pass over the file
whether it is still what was written. The digest finds damage; it is no protection against a forger, who is
met by loading plain types and tensors only.
"""

from __future__ import annotations

import enum
import json
import struct
from pathlib import Path
from typing import Any, BinaryIO

import xxhash

from ganguard.errors import DamagedCheckpoint, UnreadableCheckpoint
from ganguard.store import foreign, interruption
from ganguard.store.durable import why, write_all
from ganguard.store.reading import open_regular, parse_json

FORMAT = 1
MAGIC = b"ganguard"
_FOOTER_SIZE = 1 + len(MAGIC) + 1 + 5 + 1 + 32
_END_RECORD = struct.Struct("<4s4H2LH")  # zip's end of central directory; the last field is the comment's length
_END_SIGNATURE = b"PK\x05\x06"
_MAX_COMMENT = 0xFFFF
_USUAL_TAIL = 8192
_CHUNK = 1 << 20
_REQUIRED = {"format": int, "bytes": int, "digest": str}
MAX_SUMMARY = 48 * 1024  # some readers fail on the longest comments that the format allows


class State(enum.StrEnum):
    """What the end of a file says about it. Only a pass over all its bytes makes a WHOLE one good."""

    WHOLE = "whole"
    OLDER = "older"  # a torch file without a digest: an older script's, or one that lost it
    INCOMPLETE = "incomplete"  # cut off, or its end is not what was written
    NEWER = "newer"  # written by a newer ganguard
    UNREADABLE = "unreadable"  # a permission or a read error: nothing is proven


class HashingFile:
    """What ``torch.save`` writes to: passes everything on and keeps the digest of it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = xxhash.xxh3_128()
        self.size = 0
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self._hash.update(view)
        self.size += len(view)
        try:
            write_all(self._file, view)
        except OSError as error:
            self.error = error  # torch's writer reports it as something else
            raise
        return len(view)

    def flush(self) -> None:
        self._file.flush()

    @property
    def digest(self) -> str:
        return str(self._hash.hexdigest())


def seal(file: BinaryIO, hashed: HashingFile, summary: dict[str, Any]) -> dict[str, Any]:
    """Append the comment to the archive that was written through ``hashed``; returns the summary as stored."""
    summary = {**summary, "format": FORMAT, "bytes": hashed.size, "digest": hashed.digest}
    text = _to_json(summary)
    footer = b"\n%s %05d %s" % (MAGIC, len(text), xxhash.xxh3_128_hexdigest(text).encode())
    file.seek(hashed.size - 2)
    write_all(file, struct.pack("<H", len(text) + len(footer)) + text + footer)
    return summary


def _to_json(summary: dict[str, Any]) -> bytes:
    # ASCII only, so that the text cannot hold a zip signature. What JSON has no word for is shown, not stored.
    return json.dumps(summary, ensure_ascii=True, separators=(",", ":"), default=str, skipkeys=True).encode()


def fits(summary: dict[str, Any]) -> bool:
    """Whether the summary is short enough for a comment."""
    return len(_to_json(summary)) <= MAX_SUMMARY


def peek_into(file: BinaryIO) -> tuple[State, dict[str, Any] | None]:
    """What an open file's last bytes say: its state, and its summary where one is intact. Raises OSError."""
    size = file.seek(0, 2)
    tail = _read_tail(file, size, _USUAL_TAIL)
    found = _parse(tail, size)
    if found[0] is not State.WHOLE and len(tail) < size:
        found = _parse(_read_tail(file, size, _MAX_COMMENT + _END_RECORD.size), size)
    if found[0] is State.INCOMPLETE:
        file.seek(0)
        if file.read(len(foreign.LEGACY_TORCH)) == foreign.LEGACY_TORCH:
            return State.OLDER, None
    return found


def _read_tail(file: BinaryIO, size: int, length: int) -> bytes:
    file.seek(max(0, size - length))
    tail: bytes = file.read(length)
    return tail


def _parse(tail: bytes, size: int) -> tuple[State, dict[str, Any] | None]:
    summary, comment = _parse_comment(tail)
    if summary is None:
        return (State.OLDER if _ends_without_comment(tail) else State.INCOMPLETE), None
    if summary.get("format", 0) > FORMAT:
        return State.NEWER, summary
    start = len(tail) - comment - _END_RECORD.size
    if start < 0:
        return State.INCOMPLETE, summary
    signature, *_, length = _END_RECORD.unpack_from(tail, start)
    intact = signature == _END_SIGNATURE and length == comment and summary.get("bytes") == size - comment
    return (State.WHOLE if intact else State.INCOMPLETE), summary


def _parse_comment(tail: bytes) -> tuple[dict[str, Any] | None, int]:
    footer = tail[-_FOOTER_SIZE:]
    if len(footer) < _FOOTER_SIZE or footer[:10] != b"\n%s " % MAGIC or not footer[10:15].isdigit():
        return None, 0
    length = int(footer[10:15])
    text = tail[-_FOOTER_SIZE - length : -_FOOTER_SIZE]
    expected = b" " + xxhash.xxh3_128_hexdigest(text).encode()
    if len(text) != length or footer[15:] != expected:
        return None, 0
    try:
        summary = parse_json(text)
    except ValueError:  # only a forger writes this: the checksum was right
        return None, 0
    well_formed = isinstance(summary, dict) and all(isinstance(summary.get(k), t) for k, t in _REQUIRED.items())
    return (summary if well_formed else None), length + _FOOTER_SIZE


def _ends_without_comment(tail: bytes) -> bool:
    if len(tail) < _END_RECORD.size:
        return False
    signature, *_, length = _END_RECORD.unpack_from(tail, len(tail) - _END_RECORD.size)
    return bool(signature == _END_SIGNATURE and length == 0)


def verify(path: Path) -> dict[str, Any]:
    """Read every byte and compare it with the digest; returns the summary.

    The file is opened once: a fixed name may become that of another file at any moment.

    Raises:
        DamagedCheckpoint: the bytes are not those that were written, or the file carries no digest.
        UnreadableCheckpoint: it cannot be read, or a newer ganguard wrote it: nothing is proven.
    """
    try:
        with open_regular(path) as file:
            return verify_open(file, path)
    except OSError as error:
        raise UnreadableCheckpoint(
            f"{path} cannot be read: {why(error)}; check its permissions and the disk"
        ) from error


def verify_open(file: BinaryIO, path: Path) -> dict[str, Any]:
    """``verify`` of an open file, which is called ``path``. Raises OSError too."""
    state, summary = peek_into(file)
    if state is State.WHOLE and summary is not None and _digest(file, summary["bytes"]) == summary["digest"]:
        return summary
    if state is State.NEWER:
        raise UnreadableCheckpoint(f"{path} was written by a newer ganguard; update with: pip install -U ganguard")
    if state is State.OLDER:
        raise DamagedCheckpoint(f"{path} carries no digest, so nothing vouches for its bytes")
    if state is State.INCOMPLETE:
        raise DamagedCheckpoint(f"{path} is {foreign.look(file) or 'incomplete or its end was changed'}")
    raise DamagedCheckpoint(f"{path} is damaged: its bytes are not those that were written")


def _digest(file: BinaryIO, length: int) -> str:
    """Digest of the archive as it was before the comment: its last two bytes, the comment's length, count as 0."""
    digest = xxhash.xxh3_128()
    buffer = memoryview(bytearray(_CHUNK))
    left = length - 2
    file.seek(0)
    while left > 0 and (count := file.readinto(buffer[: min(left, _CHUNK)])):  # type: ignore[attr-defined]  # opened raw
        digest.update(buffer[:count])
        left -= count
        interruption.ask()
    digest.update(b"\0\0")
    return str(digest.hexdigest()) if left == 0 else ""


def file_digest(path: Path) -> str:
    """xxh3-128 of a whole file: names files that carry no digest of their own."""
    with open_regular(path) as file:
        return open_file_digest(file)


def open_file_digest(file: BinaryIO) -> str:
    """``file_digest`` of an open file. Raises OSError."""
    digest = xxhash.xxh3_128()
    file.seek(0)
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
        interruption.ask()
    return str(digest.hexdigest())
