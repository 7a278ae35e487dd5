"""What a file is that is no checkpoint, told by its first bytes: people name what they downloaded, and disks forget.

No torch and no unpickling.
"""

from __future__ import annotations

import os
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ganguard.errors import UnreadableCheckpoint
from ganguard.store.reading import open_regular

_HEAD = 4096
_CHUNK = 1 << 20
_TAR_MAGIC_AT = 257
LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # what files of torch before 1.6 begin with


@dataclass(frozen=True)
class Foreign:
    """What a file is."""

    name: str
    """In a word or two, for a list."""
    what: str
    """Completes "the file is …"."""
    cure: str

    def __str__(self) -> str:
        return f"{self.what}. {self.cure}"


def _of_another_program(name: str, what: str) -> Foreign:
    return Foreign(name, what, "ganguard reads files that torch.save wrote")


def _packed(name: str, what: str) -> Foreign:
    return Foreign(name, what, "Unpack it first")


_PICTURE = _of_another_program("picture", "a picture")
_BY_MAGIC = {
    b"\x89HDF\r\n\x1a\n": _of_another_program("HDF5", "an HDF5 file, such as Keras writes"),
    b"\x93NUMPY": _of_another_program("numpy", "an array of numpy"),
    b"GGUF": _of_another_program("GGUF", "a GGUF file"),
    b"\x89PNG": _PICTURE,
    b"\xff\xd8\xff": _PICTURE,
    b"version https://git-lfs": Foreign(
        "LFS pointer", "a pointer of Git LFS in place of the file", "Fetch the file itself with git lfs pull"
    ),
    b"\x1f\x8b": _packed("gzip", "packed by gzip"),
    b"BZh": _packed("bzip2", "packed by bzip2"),
    b"\xfd7zXZ\x00": _packed("xz", "packed by xz"),
    b"7z\xbc\xaf\x27\x1c": _packed("7z", "a 7z archive"),
    b"Rar!": _packed("rar", "a RAR archive"),
}
_EMPTY = Foreign("empty", "empty", "There is nothing in it to restore; copy or download it again")
_ZEROS = Foreign(
    "zeros", "nothing but zeros, as what never reached the disk", "There is nothing in it to restore; take another copy"
)
_PAGE = Foreign("web page", "a web page in place of the file", "Download it again, by the link of the file itself")
_SAFETENSORS = Foreign(
    "safetensors",
    "a safetensors file",
    "Write it anew once, torch.save(safetensors.torch.load_file('FILE'), 'weights.pth'), and name weights.pth",
)
_PICKLE = Foreign(
    "pickle",
    "a Python pickle that torch.save did not write, such as NVIDIA's networks",
    "It was not opened, since that could run code from it. Where it comes from, save its state_dict with torch.save",
)
_TAR = Foreign(
    "tar",
    "a tar archive, which only PyTorch's first releases wrote",
    "Where it comes from, save its state_dict with torch.save; any other archive, unpack first",
)
_ONNX = Foreign("ONNX", "an ONNX model, which cannot be trained on", "Name the checkpoint that it was exported from")
_SCRIPT = Foreign(
    "TorchScript",
    "a TorchScript archive, which holds code beside its weights",
    "It was not opened. Write the weights anew once, torch.save(torch.jit.load('FILE').state_dict(), 'weights.pth'), "
    "and name weights.pth",
)
_ARRAYS = _of_another_program("numpy", "an archive of numpy's arrays")
_ZIP = Foreign("zip", "a zip archive, but none of torch.save", "If a .pth file is in it, unpack that and name it")
_JSON = _of_another_program("JSON", "a JSON text")
_TEXT = _of_another_program("text", "a text")


def of(path: Path) -> Foreign | None:
    """``look`` at a path; None too where it cannot be read, which whoever opens it next tells better."""
    try:
        with open_regular(path) as file:
            return look(file)
    except OSError:
        return None


def require_none(path: Path) -> None:
    """Raise UnreadableCheckpoint where a file is what torch.save cannot have written."""
    if other := of(path):
        raise UnreadableCheckpoint(f"{path} is {other}.")


def look(file: BinaryIO) -> Foreign | None:
    """What an open file is; None where torch.save may have written it. Raises OSError."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(_HEAD)
    if not size:
        return _EMPTY
    if not any(head):
        return None if _any_byte_left(file) else _ZEROS
    if head.startswith(b"PK\x03\x04"):
        return _of_zip(file)
    return _of_head(head, size)


def _any_byte_left(file: BinaryIO) -> bool:
    while chunk := file.read(_CHUNK):
        if any(chunk):
            return True
    return False


def _of_head(head: bytes, size: int) -> Foreign | None:
    if head.startswith(LEGACY_TORCH):
        return None
    for magic, foreign in _BY_MAGIC.items():
        if head.startswith(magic):
            return foreign
    if 2 <= int.from_bytes(head[:8], "little") <= size - 8 and re.match(rb'\{\s*["}]', head[8:16]):
        return _SAFETENSORS
    if re.match(rb"\x80[\x02-\x05]", head):
        return _PICKLE
    if head[_TAR_MAGIC_AT:].startswith(b"ustar"):
        return _TAR
    if head[:1] == b"\x08" and re.search(rb"onnx|pytorch", head[:200]):
        return _ONNX
    return _of_text(head)


def _of_text(head: bytes) -> Foreign | None:
    whole_letters = head[: _HEAD - 3].decode("utf-8-sig", errors="replace").lstrip()
    if not all(c.isprintable() or c.isspace() for c in whole_letters) or "\ufffd" in whole_letters[:-1]:
        return None
    if re.match(r"<(!doctype|html|\?xml|head|body|script)", whole_letters, re.IGNORECASE):
        return _PAGE
    return _JSON if whole_letters.startswith(("{", "[")) else _TEXT


def _of_zip(file: BinaryIO) -> Foreign | None:
    try:
        with zipfile.ZipFile(file) as archive:
            names = [name.rpartition("/")[2] for name in archive.namelist()]
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return None  # cut off, which says nothing of what it was
    if "constants.pkl" in names:
        return _SCRIPT
    if "data.pkl" in names:
        return None
    return _ARRAYS if names and all(name.endswith(".npy") for name in names) else _ZIP
