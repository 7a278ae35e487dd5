"""The images of a conditional GAN's run, as its settings ask for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ganguard.data import AttributeTable, LabelledImages, open_images
from ganguard.data.sources import Listing, Source
from ganguard.errors import DataError
from ganguard.training.cgan_config import CganConfig


def open_data(
    config: CganConfig,
    *,
    cache_dir: Path,
    say: Callable[[str], None],
    before: Mapping[str, Any],
    listed: Callable[[Source, Listing], None],
) -> LabelledImages:
    """Open them, decoding them into the cache where they are not there.

    Args:
        before: the settings of the checkpoint that training goes on from; none where it begins.
        listed: given all of them before anything is decoded; may refuse them.

    Raises:
        DataError: they cannot be trained on.
        DoesNotFit: their labels are others than the checkpoint's. That is seen before anything is decoded.
    """
    recorded = before.get("data")
    if (
        recorded is not None
        and recorded == config.data
        and Path(recorded).is_absolute()
        and not Path(recorded).exists()
    ):
        raise DataError(
            f"This run's images were in {recorded}, and nothing is there now. Where they lie elsewhere, go on with: "
            f"--data NEWPATH"
        )
    names = tuple(name.strip() for name in (config.attribute_names or "").split(",") if name.strip())
    table = None
    if config.attributes or names:
        table = AttributeTable(Path(config.attributes) if config.attributes else None, names)
    return open_images(
        config.data,
        image_size=config.image_size,
        channels=config.data_channels,
        cache_dir=cache_dir,
        cache_limit=config.cache_bytes,
        limit=config.limit_images,
        attributes=table,
        flip=config.flip,
        pixel_range=config.pixel_range,
        max_pixels=config.max_pixels,
        label_names=before.get("label_names") or (),
        say=say,
        listed=listed,
    )
