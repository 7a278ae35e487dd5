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
    from PIL import Image, ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont
    from torch import Tensor

    Font = FreeTypeFont | ImageFont

MARGIN = 10  # px around everything and between blocks
FONT_SIZE = 13
TITLE_SIZE = 17
LINE_HEIGHT = 18
TITLE_HEIGHT = 24
HEADING_HEIGHT = 15  # of a line above a column
HEADING_LINES = 5
TEXT_WIDTH = 190


@dataclass(frozen=True, kw_only=True)
class Block:
    """One checkpoint."""

    title: str
    lines: Sequence[str]
    """What stands below the title."""
    images: Tensor
    """(N, C, H, W) in [-1, 1]; image i in row i // columns."""


def save_comparison(
    blocks: Sequence[Block], path: Path, *, columns: int, headings: Sequence[Sequence[str]] = ()
) -> None:
    """Write the blocks one below the other as a PNG; all have images of the same number and size.

    Args:
        headings: lines above each column.

    Raises:
        OSError: it can't be written.
    """
    from PIL import Image, ImageDraw

    sheets = [_tiled(to_pictures(block.images), columns) for block in blocks]
    heights = [
        max(sheet.height, TITLE_HEIGHT + LINE_HEIGHT * len(block.lines))
        for sheet, block in zip(sheets, blocks, strict=True)
    ]
    above = HEADING_HEIGHT * max((min(len(lines), HEADING_LINES) for lines in headings), default=0)
    left, top = TEXT_WIDTH + 2 * MARGIN, MARGIN + above
    picture = Image.new("RGB", (left + sheets[0].width + MARGIN, top + sum(heights) + MARGIN * len(blocks)), "white")
    draw = ImageDraw.Draw(picture)
    step = (sheets[0].width - GAP) // columns
    for column, lines in enumerate(headings):
        _write_heading(draw, lines, left=left + column * step, bottom=top, width=step)
    for block, sheet, height in zip(blocks, sheets, heights, strict=True):
        _write_text(draw, block, top)
        picture.paste(sheet, (left, top))
        top += height + MARGIN
    save_png(picture, path)


def _write_heading(draw: ImageDraw.ImageDraw, lines: Sequence[str], *, left: int, bottom: int, width: int) -> None:
    """Centred lines that end at ``bottom``; what is too much is counted."""
    from PIL import ImageFont

    font = ImageFont.load_default(grids.FONT_SIZE)
    if len(lines) > HEADING_LINES:
        lines = [*lines[: HEADING_LINES - 1], f"+ {len(lines) - HEADING_LINES + 1}"]
    for number, line in enumerate(reversed(lines), 1):
        caption = _fitting(line, font, width - GAP)
        place = (left + (width - font.getlength(caption)) / 2, bottom - number * HEADING_HEIGHT)
        draw.text(place, caption, "black", font)


def _write_text(draw: ImageDraw.ImageDraw, block: Block, top: int) -> None:
    from PIL import ImageFont

    font, large = ImageFont.load_default(FONT_SIZE), ImageFont.load_default(TITLE_SIZE)
    draw.text((MARGIN, top), _fitting(block.title, large, TEXT_WIDTH), "black", large)
    for number, line in enumerate(block.lines):
        place = (MARGIN, top + TITLE_HEIGHT + number * LINE_HEIGHT)
        draw.text(place, _fitting(line, font, TEXT_WIDTH), "#444444", font)


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
