"""``gan.py generate``: images of a trained generator as single files and a grid."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ganguard.errors import UsageError
from ganguard.networks.label_rows import Labels
from ganguard.networks.loaded import LoadedGenerator
from ganguard.reports.console import counted
from ganguard.reports.grids import save_grid
from ganguard.reports.pictures import save_png, to_pictures
from ganguard.store.durable import why

_CHUNK = 64  # images in memory at once
_IN_GRID = 200
_CAPTIONED = 16  # columns: more would not be readable
_NAME_LENGTH = 40


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """What is asked for; see ``LoadedGenerator.sample``."""

    count: int
    labels: Labels
    seed: int
    truncation: float | None


def as_labels(generator: LoadedGenerator, class_: str | None, attributes: list[str] | None) -> Labels:
    """What was typed for a class (a name first, else a number from 0) or for attributes.

    Raises:
        UsageError: the generator knows the other kind.
    """
    names = ", ".join(generator.label_names[:10])
    if class_ is not None and generator.multi_label:
        raise UsageError(f"This generator knows attributes ({names}), not classes: use --attributes.")
    if attributes is not None and not generator.multi_label:
        raise UsageError(f"This generator knows classes ({names}), not attributes: use --class.")
    if class_ is not None and re.fullmatch(r"-?[0-9]+", class_) and class_ not in generator.label_names:
        return int(class_)
    return attributes if class_ is None else class_


def write_pictures(generator: LoadedGenerator, asked: Pictures, out: Path, *, say: Callable[[str], None]) -> None:
    """Write ``00000_<class>.png`` and so on, and ``grid.png``, into ``out``.

    Where ``out`` holds anything, a new folder ``<out>_2``, ``_3``, … is taken: nothing is ever written over.

    Raises:
        UsageError: a number or label that cannot be, or a folder that cannot be written.
    """
    rows = generator.rows(asked.labels)
    _chunk(generator, asked, 0, 1)  # what is wrong with the numbers shows before a folder is made
    folder = new_folder(out)
    shown: list[Tensor] = []
    done = 0
    try:
        while done < asked.count:
            images = _chunk(generator, asked, done, min(_CHUNK, asked.count - done))
            for place, picture in enumerate(to_pictures(images), done):
                save_png(picture, folder / _file_name(place, generator.present(rows[place % len(rows)])))
            if done < _IN_GRID:
                shown.append(images)
            done += len(images)
        grid = torch.cat(shown)[:_IN_GRID]
        columns, names = layout(generator, rows, len(grid))
        save_grid(grid, folder / "grid.png", columns=columns, class_names=names)
    except OSError as error:
        raise UsageError(
            f"{done} of {counted(asked.count, 'image')} are in {folder}, then it failed: {why(error)}."
        ) from error
    some = f" (of the first {len(grid)})" if len(grid) < asked.count else ""
    made = counted(
        asked.count, f"image of {generator.origin.position} is", f"images of {generator.origin.position} are"
    )
    say(f"{made} in {folder}, a grid{some} in {folder / 'grid.png'}")


def _chunk(generator: LoadedGenerator, asked: Pictures, first: int, count: int) -> Tensor:
    return generator.sample(count, labels=asked.labels, seed=asked.seed, truncation=asked.truncation, first=first)


def layout(generator: LoadedGenerator, rows: Tensor, count: int) -> tuple[int, list[str]]:
    """Columns of a grid in which images take ``rows`` in turn, and what stands above them."""
    if 1 < len(rows) <= min(_CAPTIONED, count):
        return len(rows), [", ".join(generator.present(row)) for row in rows]
    return min(math.ceil(math.sqrt(count)), _CAPTIONED), []


def _file_name(place: int, present: list[str]) -> str:
    words = re.sub(r"[^\w-]+", "_", "_".join(present)).strip("_")[:_NAME_LENGTH]
    return f"{place:05d}_{words}.png" if words else f"{place:05d}.png"


def new_folder(out: Path) -> Path:
    """``out`` where it is new or empty, else the same with a number; made.

    Raises:
        UsageError: it cannot be made or written.
    """
    try:
        if out.exists() and not out.is_dir():
            raise UsageError(f"--out {out} is a file. Name a folder.")
        named = out.resolve() if out.name in ("", "..") else out
        folder, number = out, 2
        while folder.exists() and any(folder.iterdir()):
            folder = named.with_name(f"{named.name}_{number}")
            number += 1
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UsageError(f"--out {out} cannot be written: {why(error)}.") from error
    return folder
