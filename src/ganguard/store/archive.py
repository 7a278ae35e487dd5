"""The zip archive around a checkpoint's body: stored records only, which cannot be larger than their file."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import BinaryIO

_END = struct.Struct("<4s4H2LH")  # end of central directory
_END_SIGNATURE = b"PK\x05\x06"
_LOCATOR = struct.Struct("<4sLQL")  # where zip64's longer one is
_LOCATOR_SIGNATURE = b"PK\x06\x07"
_END_64 = struct.Struct("<4sQ2H2L4Q")
_END_64_SIGNATURE = b"PK\x06\x06"
_RECORD = struct.Struct("<4s6H3L5H2L")  # an entry of the central directory
_RECORD_SIGNATURE = b"PK\x01\x02"
_EXTRA = struct.Struct("<2H")
_LONG = struct.Struct("<Q")
_ZIP64 = 1
_IN_ZIP64 = 0xFFFFFFFF
_STORED = 0
_LONGEST_COMMENT = 0xFFFF


def is_zip(file: BinaryIO) -> bool:
    file.seek(0)
    return file.read(4) == b"PK\x03\x04"


def stored(file: BinaryIO) -> dict[str, int]:
    """How many bytes lie under each name, in small letters, within the archive's one folder.

    The directory is found as torch's own reader finds it, which takes capitals for small letters.

    Raises:
        ValueError: a record is compressed, or they take more than the file holds; or it is no whole archive.
        OSError: it cannot be read.
    """
    size = file.seek(0, io.SEEK_END)
    sizes: dict[str, int] = {}
    for name, method, packed, unpacked in _records(_directory(file, size)):
        if method != _STORED or packed != unpacked:
            raise ValueError("its records are compressed, which torch never does: it could fill the memory")
        if name in sizes:
            raise ValueError(f"it holds {name} twice")
        sizes[name] = unpacked
    if sum(sizes.values()) > size:
        raise ValueError("its records are larger than the file")
    return sizes


def _directory(file: BinaryIO, size: int) -> bytes:
    """The bytes of the central directory."""
    start = max(0, size - _LONGEST_COMMENT - _END.size - _LOCATOR.size)
    file.seek(start)
    tail = file.read(size - start)
    end = tail.rfind(_END_SIGNATURE, 0, len(tail) - _END.size + len(_END_SIGNATURE))
    if end < 0:
        raise ValueError("it is no whole zip archive")
    _, _, _, _, _, length, offset, _ = _END.unpack_from(tail, end)
    located = tail[max(0, end - _LOCATOR.size) : end]
    if len(located) == _LOCATOR.size and located.startswith(_LOCATOR_SIGNATURE):
        file.seek(min(_LOCATOR.unpack(located)[2], size))
        longer = file.read(_END_64.size)
        if len(longer) == _END_64.size and longer.startswith(_END_64_SIGNATURE):
            length, offset = _END_64.unpack(longer)[-2:]
    if offset + length > size:
        raise ValueError("its directory lies outside the file")
    file.seek(offset)
    return file.read(length)


def _records(directory: bytes) -> Iterator[tuple[str, int, int, int]]:
    """Name, compression, packed and unpacked size of each record."""
    at = 0
    while at < len(directory):
        if len(directory) - at < _RECORD.size or not directory.startswith(_RECORD_SIGNATURE, at):
            raise ValueError("its directory is damaged")
        fields = _RECORD.unpack_from(directory, at)
        method, packed, unpacked, name, extra, comment = fields[4], *fields[8:13]
        begin = at + _RECORD.size + name
        at = begin + extra + comment
        longer = _of_zip64(directory[begin : begin + extra])  # in this order, each where the short one is full
        unpacked = next(longer, unpacked) if unpacked == _IN_ZIP64 else unpacked
        packed = next(longer, packed) if packed == _IN_ZIP64 else packed
        inside = directory[begin - name : begin].partition(b"/")[2]
        yield inside.decode(errors="replace").lower(), method, packed, unpacked


def _of_zip64(extra: bytes) -> Iterator[int]:
    """The long numbers in an entry's extra fields."""
    at = 0
    while at + _EXTRA.size <= len(extra):
        kind, length = _EXTRA.unpack_from(extra, at)
        at += _EXTRA.size
        if kind == _ZIP64:
            yield from (number for (number,) in _LONG.iter_unpack(extra[at : at + length // 8 * 8]))
        at += length
