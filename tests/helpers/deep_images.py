"""Image files with more than 8 bits a channel."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def chunk(kind, data, checksum=None):
    """A chunk of a PNG."""
    checksum = zlib.crc32(kind + data) if checksum is None else checksum
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def deep_png(values):
    """A PNG with 16 bits a channel of (H, W, C) values; Pillow writes none in colour."""
    height, width, channels = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def gray(values, kind="PNG", **options):
    """A PNG or TIFF of (H, W) values of any type."""
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, kind, **options)
    return buffer.getvalue()


def ramp(highest, dtype=np.uint16, size=32):
    """(size, size) values from 0 to ``highest``."""
    return np.linspace(0, highest, size * size).reshape(size, size).astype(dtype)


def class_folders(folder, contents, suffix=".png"):
    """The files ``contents`` in turn in two class folders; returns ``folder``."""
    for index, content in enumerate(contents):
        path = folder / "ab"[index % 2] / f"{index}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder
