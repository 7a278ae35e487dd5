"""Tensors of images → pictures, and pictures → PNG files that appear whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ganguard import marking
from ganguard.store import durable

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor


def to_pictures(images: Tensor) -> list[Image.Image]:
    """Images (N, C, H, W) in [-1, 1], C = 1 or 3, as pictures of 8 bits a channel."""
    from torchvision.transforms.functional import to_pil_image

    pixels = ((images.detach().cpu().float() + 1) * 127.5).round().clamp(0, 255).byte()
    return [to_pil_image(image) for image in pixels]


def save_png(picture: Image.Image, path: Path) -> None:
    """Marked as ganguard's. Not flushed to the disk: it can be made again. Raises OSError where it can't be written."""
    with durable.appearing(path) as temporary:
        picture.save(temporary, format="PNG", pnginfo=marking.png_info())
