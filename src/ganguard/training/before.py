"""What is known before anything is decoded: the settings of the checkpoint to go on from, a sketch of the images."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from ganguard import restoring
from ganguard.data.pixel_range import AUTO, FULL
from ganguard.data.sketch import Sketch
from ganguard.data.sources import Listing, Source
from ganguard.store import resume
from ganguard.store.resume import Request
from ganguard.store.shelf import Shelf


def settings_before(
    shelf: Shelf | Path, request: Request, config: Mapping[str, Any], structural: Collection[str]
) -> dict[str, Any]:
    """Empty where training begins. A checkpoint from before there were pixel ranges was trained with the full one.

    Args:
        config: what is asked for now; None, and the range ``auto``, leave it to the checkpoint.
        structural: the settings that must be the same.

    Raises:
        DoesNotFit: they are not.
    """
    start, settings = resume.settings(shelf, request)
    if start is None or not settings:
        return {}
    before = {"pixel_range": FULL, **settings}
    asked = {k: v for k, v in config.items() if v is not None and (k, v) != ("pixel_range", AUTO)}
    stored = {name: value for name, value in before.items() if name in structural}
    restoring.require_settings(start.path.name, stored, asked, frozenset(), named=request.file is not None)
    return before


def sketch_to_record(source: Source, listing: Listing, check: Callable[[Sketch], None] | None) -> str:
    """The sketch of the images, as a checkpoint holds it; ``check`` may refuse them."""
    sketch = Sketch(source, listing.entries)
    if check is not None:
        check(sketch)
    return sketch.text


def range_to_use(asked: str, before: Mapping[str, Any]) -> str:
    """A run keeps the pixel range that it began with, whatever images were added since."""
    return str(before.get("pixel_range", asked)) if asked == AUTO else asked
