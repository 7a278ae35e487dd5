"""``progan_local.py generate``: images, a grid, and a strip that leads from latent to latent."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch

from ganguard import older
from ganguard.errors import DoesNotFit, UsageError
from ganguard.networks.latents import draw_latents
from ganguard.networks.loaded import GeneratorOrigin
from ganguard.networks.loading import load_generator
from ganguard.networks.progressive_loaded import LoadedProgressive, between, of_weights
from ganguard.reports.grids import save_grid
from ganguard.store import body
from ganguard.store.durable import why

_BATCH = 16


def open_generator(path: Path, *, say: Callable[[str], None]) -> LoadedProgressive:
    """The generator of a checkpoint, or of a file of an older script with ``state_dict`` or bare weights.

    Raises:
        CheckpointError, UsageError: there is none, it is damaged, or it is of another kind.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder. Name a generator's file, or leave --checkpoint out for the newest one.")
    weights = _older(path, say)
    if weights is not None:
        generator = of_weights(weights, GeneratorOrigin(file=path))
        say(
            f"{path} carries no digest, no average of the generator and no level: its last weights are shown as they "
            f"are, at {generator.image_size} px. Choose a smaller --size where those were not trained."
        )
        return generator
    loaded = load_generator(path)
    if not isinstance(loaded, LoadedProgressive):
        raise DoesNotFit(f"{path} holds no progressive generator. gan.py generate shows those of gan.py.")
    return loaded


def _older(path: Path, say: Callable[[str], None]) -> dict[str, torch.Tensor] | None:
    """The weights in a file that no ganguard wrote; None where it is one of ours, or none that can be opened."""
    if not path.is_file():
        return None
    loaded = body.load_file(path)
    if "progress" in loaded:
        return None
    weights = loaded.get("state_dict", loaded)
    for note in older.without_prefixes({"state_dict": weights}, path):
        say(note)
    return weights if isinstance(weights, dict) and "to_image.0.weight" in weights else None


def write_strip(
    generator: LoadedProgressive,
    path: Path,
    *,
    stops: int,
    steps: int,
    seed: int,
    truncation: float | None,
    say: Callable[[str], None],
) -> None:
    """Write a picture of ``stops`` - 1 rows, each leading in ``steps`` images from one latent to the next.

    Raises:
        UsageError: it cannot be written.
    """
    latents = draw_latents(stops, generator.latent_size, seed=seed, truncation=truncation)
    way = torch.cat([between(first, last, steps) for first, last in pairwise(latents)])
    images = [generator.images_of(some, torch.zeros(len(some), 0)) for some in torch.split(way, _BATCH)]
    try:
        save_grid(torch.cat(images), path, columns=steps)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {why(error)}.") from error
    say(f"A strip of {stops} latents, {steps} images from one to the next, is in {path}")
