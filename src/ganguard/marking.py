"""The mark in every picture that ganguard writes, by which it is known again wherever it is copied.

It is the PNG format's own: a ``tEXt`` chunk with the keyword ``Software`` (PNG specification, 11.3.4.2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.PngImagePlugin import PngInfo

SOFTWARE = {"Software": "ganguard"}
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHUNK = b"tEXtSoftware\0ganguard"


def png_info() -> PngInfo:
    """What Pillow's ``save`` takes as ``pnginfo``."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for keyword, text in SOFTWARE.items():
        info.add_text(keyword, text)
    return info


def is_marked(head: bytes) -> bool:
    """Whether a file that begins like this is a picture of ganguard's; some hundred bytes are enough."""
    return head.startswith(_SIGNATURE) and _CHUNK in head
