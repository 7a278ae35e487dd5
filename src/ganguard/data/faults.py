"""Why a file cannot be used as an image, in words; and PNGs of which only what lies beside the pixels is broken."""

from __future__ import annotations

import zlib

from PIL import UnidentifiedImageError

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_LOOK_BYTES = 1024
_POINTER = b"version https://git-lfs.github.com/spec/"
_OTHER_KINDS = (  # where, what
    (4, b"ftyphei", "HEIC"),
    (4, b"ftyphevc", "HEIC"),
    (4, b"ftypmif1", "HEIF"),
    (128, b"DICM", "DICOM"),
    (0, b"%PDF", "PDF"),
    (0, b"PK\x03\x04", "a zip"),
    (0, b"\x1f\x8b", "gzip"),
    (0, b"\x89HDF", "HDF5"),
    (0, b"\x93NUMPY", "a numpy array"),
    (0, b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"8BPS", "Photoshop"),
)
_READ_KINDS = (
    (_JPEG, "JPEG"),
    (_PNG, "PNG"),
    (b"GIF8", "GIF"),
    (b"RIFF", "WebP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"BM", "BMP"),
)


def reason(content: bytes, error: Exception) -> str:
    """A few words, for ``content`` that raised ``error`` when it was decoded."""
    start = content[:_LOOK_BYTES].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if content.startswith(_POINTER):
        return "a pointer of Git LFS, not the image: fetch it with git lfs pull"
    if b"<html" in start or start.startswith(b"<!doctype html"):
        return "a web page, not an image: download it again"
    if start.startswith(b"<svg") or (start.startswith(b"<?xml") and b"<svg" in start):
        return "SVG, which is not read: save it as PNG"
    if not content[:_LOOK_BYTES].strip(b"\0") and not content.strip(b"\0"):
        return f"{len(content):,} zeros, no image: copy it again"
    for offset, mark, kind in _OTHER_KINDS:
        if content.startswith(mark, offset):
            return f"{kind}, which is not read: save it as PNG or JPEG"
    kind = next((kind for mark, kind in _READ_KINDS if content.startswith(mark)), "")
    text = str(error).strip()[:120] or type(error).__name__
    if kind and _cut_off(content):
        return f"truncated {kind}, its end is missing: copy it again"
    if isinstance(error, UnidentifiedImageError):
        return f"{kind} of a kind that is not read, or damaged in its first bytes" if kind else _NO_IMAGE
    return text


_NO_IMAGE = "not an image, or damaged in its first bytes"


def _cut_off(content: bytes) -> bool:
    """Whether the mark of a file's end is missing; False for kinds that have none."""
    end = content[-_LOOK_BYTES:]
    if content.startswith(_PNG):
        return b"IEND" not in end
    if content.startswith(_JPEG):
        return b"\xff\xd9" not in end
    if content.startswith(b"RIFF"):
        return len(content) < 8 + int.from_bytes(content[4:8], "little")
    return content.startswith(b"GIF8") and not end.rstrip(b"\0").endswith(b";")


def bare_png(content: bytes) -> bytes | None:
    """A PNG without what lies beside its pixels: texts, profiles, times, later frames; an EXIF block is kept if whole.

    None where there is nothing to leave out. Pillow refuses images for texts that are long or broken, though no pixel
    depends on them.
    """
    if not content.startswith(_PNG):
        return None
    view, kept, at = memoryview(content), [content[: len(_PNG)]], len(_PNG)
    while (end := at + 12 + int.from_bytes(view[at : at + 4], "big")) <= len(content):
        kind, checksum = bytes(view[at + 4 : at + 8]), int.from_bytes(view[end - 4 : end], "big")
        pixels_need_it = kind[:1].isupper() or kind == b"tRNS"
        if pixels_need_it or (kind == b"eXIf" and zlib.crc32(view[at + 4 : end - 4]) == checksum):
            kept.append(bytes(view[at:end]))
        at = end
    bare = b"".join((*kept, view[at:]))
    return bare if len(bare) < len(content) else None
