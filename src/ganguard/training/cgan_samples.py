"""What is looked at while a conditional GAN trains: fixed latents and label vectors, and images made from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ganguard.data import LabelledImages
from ganguard.networks.cgan_spec import CganSpec
from ganguard.state import rows_like
from ganguard.streams import derive
from ganguard.training.cgan_step import to_label_vectors

_ROWS = 8  # of a sample grid
_MOST_COMBINATIONS = 10  # of attributes in a grid


class FixedLatents:
    """The latents and label vectors of the sample grids: the same through the whole run, whatever else is drawn.

    A part for the guard. Image i stands in column i % ``columns``; a column has one label vector.
    """

    def __init__(self, columns: Tensor, *, latent_size: int, seed: int) -> None:
        own = torch.Generator().manual_seed(derive(seed, "fixed latents"))
        self.latents = torch.randn(_ROWS * len(columns), latent_size, generator=own)
        self.labels = columns.float().repeat(_ROWS, 1)

    @property
    def columns(self) -> int:
        return len(self.labels) // _ROWS

    def names(self, spec: CganSpec) -> list[str]:
        """What the label vector of each column means."""
        return [spec.describe(vector) for vector in self.labels[: self.columns].tolist()]

    def state_dict(self) -> dict[str, Tensor]:
        return {"latents": self.latents, "labels": self.labels}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        latents, labels = rows_like(self.latents, state["latents"]), state["labels"]
        if self._are_class_numbers(labels):
            labels = torch.eye(self.labels.shape[1])[labels]
        labels = rows_like(self.labels, labels)
        if len(latents) != len(labels) or len(labels) % _ROWS:
            raise ValueError(f"{len(latents)} latents and {len(labels)} labels")
        self.latents, self.labels = latents, labels

    def _are_class_numbers(self, labels: Any) -> bool:
        """What earlier checkpoints hold in place of label vectors."""
        whole = isinstance(labels, Tensor) and labels.ndim == 1 and labels.dtype is torch.int64
        return whole and bool(((labels >= 0) & (labels < self.labels.shape[1])).all())


def grid_columns(images: LabelledImages) -> Tensor:
    """The label vectors (columns, labels) of a grid: every class, or the attributes' most frequent combinations."""
    if not images.attributes:
        return torch.eye(len(images.label_names))
    combinations, counts = np.unique(images.labels, axis=0, return_counts=True)
    frequent = np.sort(np.argsort(-counts, kind="stable")[:_MOST_COMBINATIONS])
    return torch.from_numpy(combinations[frequent]).float()


def real_images(images: LabelledImages, columns: Tensor) -> Tensor:
    """Real images (rows · columns, C, S, S) in [-1, 1] for a grid like the samples', a column a label vector.

    Of those with a column's labels some are taken, evenly from first to last; the column ends white where there are
    no more. Nothing is drawn at random.
    """
    plain = images.as_stored()
    grid = torch.ones(_ROWS, len(columns), *plain[0][0].shape)
    for column, vector in enumerate(columns):
        having = _having(images, vector)
        for row, place in enumerate(sorted({row * len(having) // _ROWS for row in range(_ROWS)})[: len(having)]):
            grid[row, column] = plain[int(having[place])][0] / 127.5 - 1
    return grid.flatten(0, 1)


def _having(images: LabelledImages, vector: Tensor) -> NDArray[np.int64]:
    """The images with the labels of a label vector."""
    if images.attributes:
        return np.flatnonzero((images.labels == vector.numpy()).all(1))
    return np.flatnonzero(images.labels == int(vector.argmax()))


@torch.no_grad()
def make_images(generator: nn.Module, latents: Tensor, labels: Tensor, *, device: torch.device) -> Tensor:
    """Images (B, C, S, S) in [-1, 1] on the CPU, of latents (B, Z) and label vectors (B, L), or class numbers (B,)."""
    vectors = to_label_vectors(labels.to(device), generator.labels)  # type: ignore[arg-type]  # nn.Module hides its type
    images: Tensor = generator(latents.to(device), vectors)
    return images.float().cpu()
