"""Sample grids: many small images in one PNG, a column a class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ganguard.errors import UsageError
from ganguard.store import durable

if TYPE_CHECKING:
    from PIL import Image
    from PIL.ImageFont import FreeTypeFont, ImageFont
    from torch import Tensor

GAP = 2  # px around every tile
SHOWN_SIDE = 64  # px; smaller images are enlarged by a whole factor, or eyes and captions have no room
CAPTION_HEIGHT = 16  # px
FONT_SIZE = 11


def save_grid(images: Tensor, path: str | Path, *, columns: int, class_names: Sequence[str] = ()) -> None:
    """Write images (N, C, H, W) in [-1, 1], C = 1 or 3, as a PNG at ``path``.

    Image i stands in row i // columns and column i % columns; so with labels 0, 1, … columns - 1, 0, 1, …
    each column is a class, and ``class_names`` are written above. The file appears whole or not at all; it is not
    flushed to the disk, since it can be made again. Draws no random numbers. Raises OSError where it can't
    be written.
    """
    if images.ndim != 4 or len(images) == 0 or images.shape[1] not in (1, 3) or columns < 1:
        raise UsageError(
            f"a grid takes at least one image of 1 or 3 channels in at least one column, "
            f"not a tensor of {tuple(images.shape)} in {columns}"
        )
    picture = _with_captions(_tiled(images, columns), columns, class_names)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with durable.appearing(path) as temporary:
        picture.save(temporary, format="PNG")


def tile_scale(height: int, width: int) -> int:
    """How many picture pixels an image pixel gets on each side."""
    return max(1, SHOWN_SIDE // max(height, width))


def _tiled(images: Tensor, columns: int) -> Image.Image:
    """A white picture with the images in rows of ``columns``."""
    import torch
    from torchvision.transforms.functional import to_pil_image
    from torchvision.utils import make_grid

    pixels = ((images.detach().cpu().float() + 1) * 127.5).round().clamp(0, 255).byte()
    scale = tile_scale(*pixels.shape[2:])
    enlarged = pixels.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    if len(enlarged) == 1:  # make_grid leaves a single image without its frame
        framed: Image.Image = to_pil_image(torch.nn.functional.pad(enlarged[0], (GAP,) * 4, value=255))
        return framed
    picture: Image.Image = to_pil_image(make_grid(enlarged, nrow=columns, padding=GAP, pad_value=255))
    return picture.convert("L") if images.shape[1] == 1 else picture


def _with_captions(grid: Image.Image, columns: int, class_names: Sequence[str]) -> Image.Image:
    """The grid below a line of names, each centred over its column; as it is where there are none."""
    if not class_names:
        return grid
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(FONT_SIZE)
    picture = Image.new(grid.mode, (grid.width, grid.height + CAPTION_HEIGHT), "white")
    picture.paste(grid, (0, CAPTION_HEIGHT))
    draw = ImageDraw.Draw(picture)
    step = (grid.width - GAP) // columns
    for column, name in enumerate(class_names[:columns]):
        caption = _fitting(name, font, step - GAP)
        left = GAP + column * step + (step - GAP - font.getlength(caption)) / 2
        draw.text((left, GAP), caption, fill="black", font=font)
    return picture


def _fitting(name: str, font: FreeTypeFont | ImageFont, width: int) -> str:
    """As much of the name as fits into ``width`` px, on one line."""
    caption = " ".join(name.split())
    while caption and font.getlength(caption) > width:
        caption = caption[:-1]
    return caption
