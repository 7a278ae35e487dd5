"""Images of several checkpoints in one picture: a block each, with what is known of it beside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ganguard.reports import grids
from ganguard.reports.grids import GAP, tile_scale
from ganguard.reports.pictures import save_png, to_pictures

if TYPE_CHECKING:
    from PIL import Image
    from PIL.ImageFont import FreeTypeFont, ImageFont
    from torch import Tensor

    Font = FreeTypeFont | ImageFont

MARGIN = 10  # px around everything and between blocks
FONT_SIZE = 13
TITLE_SIZE = 17
LINE_HEIGHT = 18
TITLE_HEIGHT = 24
HEADING_HEIGHT = 20  # of the class names
TEXT_WIDTH = 190


@dataclass(frozen=True, kw_only=True)
class Block:
    """One checkpoint."""

    title: str
    lines: Sequence[str]
    """What stands below the title."""
    images: Tensor
    """(N, C, H, W) in [-1, 1]; image i in row i // columns."""


def save_comparison(blocks: Sequence[Block], path: Path, *, columns: int, names: Sequence[str] = ()) -> None:
    """Write the blocks one below the other as a PNG; all have images of the same number and size.

    Args:
        names: of the columns.

    Raises:
        OSError: it can't be written.
    """
    from PIL import Image, ImageDraw, ImageFont

    small, font, large = (ImageFont.load_default(size) for size in (grids.FONT_SIZE, FONT_SIZE, TITLE_SIZE))
    tiles = [_tiled(to_pictures(block.images), columns) for block in blocks]
    heights = [
        max(tile.height, TITLE_HEIGHT + LINE_HEIGHT * len(block.lines))
        for tile, block in zip(tiles, blocks, strict=True)
    ]
    left, top = TEXT_WIDTH + 2 * MARGIN, HEADING_HEIGHT if names else 0
    size = (left + tiles[0].width + MARGIN, top + MARGIN + sum(height + MARGIN for height in heights))
    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    step = (tiles[0].width - GAP) // columns
    for column, name in enumerate(names):
        caption = _fitting(name, small, step - GAP)
        draw.text((left + column * step + (step - small.getlength(caption)) / 2, MARGIN), caption, "black", small)
    top += MARGIN
    for block, tile, height in zip(blocks, tiles, heights, strict=True):
        draw.text((MARGIN, top), _fitting(block.title, large, TEXT_WIDTH), "black", large)
        for number, line in enumerate(block.lines):
            place = (MARGIN, top + TITLE_HEIGHT + number * LINE_HEIGHT)
            draw.text(place, _fitting(line, font, TEXT_WIDTH), "#444444", font)
        picture.paste(tile, (left, top))
        top += height + MARGIN
    save_png(picture, path)


def _tiled(pictures: Sequence[Image.Image], columns: int) -> Image.Image:
    """Small images enlarged by a whole factor, in rows."""
    from PIL import Image

    scale = tile_scale(pictures[0].height, pictures[0].width)
    width, height = pictures[0].width * scale, pictures[0].height * scale
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (GAP + columns * (width + GAP), GAP + rows * (height + GAP)), "white")
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        place = (GAP + column * (width + GAP), GAP + row * (height + GAP))
        sheet.paste(picture.resize((width, height), Image.Resampling.NEAREST), place)
    return sheet


def _fitting(text: str, font: Font, width: int) -> str:
    """The text on one line, its end cut off where it is longer than ``width`` px."""
    line = " ".join(text.split())
    if font.getlength(line) <= width:
        return line
    while line and font.getlength(line + "...") > width:
        line = line[:-1]
    return line + "..."
