"""What a Fréchet distance needs of the real images: sums of their features, kept in a file.

The file holds plain tensors, the key that they belong to and a digest of all of it. One that is damaged, cut off or
made for something else is computed again, not believed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import torch
import xxhash
from torch import Tensor

from ganguard.store import body, durable

_FORMAT = 1
_NAME_DIGITS = 16

Key = Mapping[str, str | int]


class Metric(Protocol):
    """The part of torchmetrics' FrechetInceptionDistance that is used here."""

    real_features_sum: Tensor
    real_features_cov_sum: Tensor
    real_features_num_samples: Tensor
    fake_features_cov_sum: Tensor

    def update(self, imgs: Tensor, real: bool) -> None: ...

    def compute(self) -> Tensor: ...


@dataclass(frozen=True)
class Sums:
    """Over the features of ``count`` images, of ``channels`` and ``size`` px a side.

    ``features`` (F,) is their sum, ``products`` (F, F) that of their outer products, both float64;
    ``pixels`` is a digest of the images.
    """

    features: Tensor
    products: Tensor
    count: int
    pixels: str
    channels: int
    size: int

    @classmethod
    def of(cls, metric: Metric, *, pixels: str, channels: int, size: int) -> Self:
        """Those of the real images that ``metric`` was shown."""
        count = int(metric.real_features_num_samples)
        return cls(metric.real_features_sum, metric.real_features_cov_sum, count, pixels, channels, size)

    def give_to(self, metric: Metric) -> None:
        """As if ``metric`` had been shown these images."""
        metric.real_features_sum = self.features
        metric.real_features_cov_sum = self.products
        metric.real_features_num_samples = torch.tensor(self.count)

    @property
    def shape(self) -> dict[str, str | int]:
        """Size and channels of the images."""
        return {"size": self.size, "channels": self.channels}


def path_for(folder: Path, name: str, key: Key) -> Path:
    """Where the sums of ``key`` lie."""
    return folder / f"{name}-fid-{xxhash.xxh3_128_hexdigest(_bytes(key))[:_NAME_DIGITS]}.pt"


def read(path: Path, key: Key, features: int) -> Sums | None:
    """The sums of ``key`` where the file holds them whole, else None."""
    try:
        content = body.load_file(path)
        found = Sums(**content["sums"])
        whole = content["digest"] == _digest(key, found) and found.products.shape == (features, features)
    except Exception:  # whatever is wrong with it, it can be made again
        return None
    return found if whole else None


def write(path: Path, key: Key, sums: Sums, say: Callable[[str], None]) -> None:
    """Keep the sums; where they can't be, the next start computes them again."""
    content: dict[str, Any] = {"sums": vars(sums), "key": dict(key), "digest": _digest(key, sums)}
    try:
        durable.make_folder(path.parent)
        with durable.written_atomically(path, "metrics") as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:  # RuntimeError: torch's own for a disk that filled up
        reason = durable.why(error) if isinstance(error, OSError) else str(error).splitlines()[0]
        say(f"What was taken in for FID can't be kept in {path}: {reason}. The next start takes it in again.")


def _digest(key: Key, sums: Sums) -> str:
    digest = xxhash.xxh3_128(_bytes({**key, "count": sums.count, "pixels": sums.pixels, **sums.shape}))
    for tensor in (sums.features, sums.products):
        digest.update(str((tensor.dtype, tuple(tensor.shape))).encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()


def _bytes(key: Key) -> bytes:
    return json.dumps({"format": _FORMAT, **key}, sort_keys=True).encode()
