"""Pictures of how a progressive GAN is doing: the same latents through the whole run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ganguard.data import UnlabelledImages
from ganguard.networks.latents import draw_latents
from ganguard.networks.progressive import size_of
from ganguard.reports.grids import save_grid
from ganguard.state import rows_like
from ganguard.streams import derive
from ganguard.training.progan_schedule import Stage

_COLUMNS, _ROWS = 8, 4
_WIDEST = 2048  # px; of larger images a grid shows fewer


class FixedLatents:
    """The latents of the sample grids: a part for the guard."""

    def __init__(self, *, latent_size: int, seed: int) -> None:
        self.latents = draw_latents(_COLUMNS * _ROWS, latent_size, seed=derive(seed, "fixed latents"))

    def state_dict(self) -> dict[str, Tensor]:
        return {"latents": self.latents}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.latents = rows_like(self.latents, state["latents"])


def grid_shape(size: int) -> tuple[int, int]:
    """Columns and rows of a grid of images of ``size`` px."""
    columns = max(2, min(_COLUMNS, _WIDEST // size))
    return columns, max(2, min(_ROWS, columns))


@torch.no_grad()
def pictures(generator: nn.Module, latents: Tensor, stage: Stage, *, piece: int) -> Tensor:
    """Images (B, C, S, S) on the CPU of latents (B, Z), ``piece`` at a time, from a ``ProgressiveGenerator``."""
    device = next(generator.parameters()).device
    made = [
        generator(some.to(device), level=stage.level, alpha=stage.alpha).cpu() for some in torch.split(latents, piece)
    ]
    return torch.cat(made)


def real_images(images: UnlabelledImages, size: int) -> Tensor:
    """Real images (B, C, S, S) in [-1, 1] for a grid like that of the samples, evenly from first to last.

    Where there are fewer, the grid ends white. Nothing is drawn at random.
    """
    columns, rows = grid_shape(size)
    cells = columns * rows
    chosen = images.as_stored().__getitems__(sorted({cell * len(images) // cells for cell in range(cells)}))
    grid = torch.ones(cells, *chosen.shape[1:])
    grid[: len(chosen)] = chosen / 127.5 - 1
    return grid


def save_samples(generator: nn.Module, fixed: FixedLatents, stage: Stage, path: Path, *, piece: int) -> None:
    """Write the grid of a stage. Raises OSError where it cannot be written."""
    columns, rows = grid_shape(size_of(stage.level))
    save_grid(pictures(generator, fixed.latents[: columns * rows], stage, piece=piece), path, columns=columns)
