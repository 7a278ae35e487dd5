"""The Fréchet distance between real and generated images (FID), by torchmetrics.

    d² = |m - m_w|² + Tr(C + C_w - 2 (C C_w)^(1/2))        Heusel et al. 2017, equation 6

with mean m and covariance C (divided by n - 1) of the features of generated images, m_w and C_w of real ones, all in
64-bit floats on the CPU. Images go through in batches; only sums of features and of their products are kept.

Measuring leaves no trace but a file with the real images' sums: the process's random streams stay as they were, and
what breaks a score off leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor

from ganguard import streams
from ganguard.data.progress import Progress
from ganguard.errors import UsageError
from ganguard.metrics import real_sums
from ganguard.metrics.extractors import Extractor
from ganguard.metrics.real_sums import Sums
from ganguard.metrics.samples import Sample, draw
from ganguard.reports import console

REALS_AT_MOST = 50_000
_BATCH = 50
_LEAST = 2  # of which there is a covariance

Say = Callable[[str], None]


class RealImages(Protocol):
    """What is asked of a data set; ``ganguard.data.LabelledImages`` is one."""

    name: str
    fingerprint: str

    @property
    def labels(self) -> NDArray[np.generic]:
        """(N,) or (N, A)."""

    def __len__(self) -> int: ...

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """Images (B, C, S, S) uint8 and their labels."""


@dataclass(frozen=True)
class Score:
    """A Fréchet distance; lower is better. NaN where images, or their distance, are not finite.

    ``about`` says what it was taken with: two scores may be compared where all of it is equal, and only there.
    Its keys: ``extractor``, ``weights``, ``resize``; ``samples`` and ``reals`` (numbers of images); ``size`` (px) and
    ``channels``; ``data`` (a digest of the real images' pixels).
    """

    value: float
    about: dict[str, str | int]


class Fid:
    """Scores generators against the real images of one data set.

    The real images are all of the data set, or ``reals_at_most`` evenly chosen ones. The first score computes their
    sums, or reads them from ``cache_dir``. Each score draws the same latents, from a stream of its own under
    ``seed``, and asks for the same labels, those of evenly chosen real images; so scores of one run differ by
    what the generator learned, and not by luck.

    Args:
        dataset: the real images; the same sizes and channels as the generated ones.
        extractor: from ``find_extractor``; it is moved to ``device``.
        samples: how many images to generate a score.
        cache_dir: for the sums of the real images; made where it isn't there.
        seed: of the run.
        device: where features are extracted.
        reals_at_most: more real images than these are not used.
        batch_size: images at a time.
        say: told what happens, a line at a time.

    Raises:
        UsageError: fewer than two samples or real images.
    """

    def __init__(
        self,
        dataset: RealImages,
        extractor: Extractor,
        *,
        samples: int,
        cache_dir: Path,
        seed: int,
        device: torch.device | str = "cpu",
        reals_at_most: int = REALS_AT_MOST,
        batch_size: int = _BATCH,
        say: Say = console.say,
    ) -> None:
        for number, what in ((samples, "generated"), (min(reals_at_most, len(dataset)), "real")):
            if number < _LEAST:
                raise UsageError(f"FID of {number} {what} images is not defined. Give at least {_LEAST}.")
        self._dataset = dataset
        self._extractor = extractor.to(device)
        self._samples = samples
        self._cache_dir = cache_dir
        self._seed = seed
        self._reals = min(reals_at_most, len(dataset))
        self._batch_size = batch_size
        self._say = say
        self._real: Sums | None = None
        if samples < extractor.features:
            say(
                f"FID of {samples:,} images in {extractor.features:,} features: with fewer images than features it "
                f"comes out too high, and varies more. It still ranks this run's epochs."
            )

    def score(self, sample: Sample, *, between: Callable[[], object] = lambda: None) -> Score:
        """The distance of what ``sample`` generates.

        Args:
            between: called after every batch; what it raises leaves the score.

        Raises:
            UsageError: the images have another shape than the real ones.
        """
        with streams.kept():  # whatever torchmetrics, or a data set that is decoded on the way, may draw
            if self._real is None:
                self._real = self._real_sums(between)
            about = self._about(self._real)
            metric = _metric(self._extractor)
            self._real.give_to(metric)
            finite = self._add_generated(metric, sample, self._real, between)
            return Score(_distance(metric) if finite else float("nan"), about)

    def _about(self, real: Sums) -> dict[str, str | int]:
        return {**self._what_is_real(), "samples": self._samples, **real.shape, "data": real.pixels}

    def _what_is_real(self) -> dict[str, str | int]:
        extractor = self._extractor
        return {
            "extractor": extractor.name,
            "weights": extractor.weights,
            "resize": extractor.resize,
            "reals": self._reals,
        }

    def _real_sums(self, between: Callable[[], object]) -> Sums:
        key = {**self._what_is_real(), "fingerprint": self._dataset.fingerprint}
        path = real_sums.path_for(self._cache_dir, self._dataset.name, key)
        found = real_sums.read(path, key, self._extractor.features)
        if found is None:
            found = self._computed(between)
            real_sums.write(path, key, found, self._say)
        return found

    def _computed(self, between: Callable[[], object]) -> Sums:
        self._say(f"FID: taking in {self._reals:,} real images, once.")
        metric, digest, shape = _metric(self._extractor), xxhash.xxh3_128(), (0, 0)
        with Progress(self._reals, "FID: real images", self._say) as progress:
            for rows in self._batches(self._reals):
                images, _ = self._dataset.__getitems__(rows.tolist())
                metric.update(images, real=True)
                digest.update(images.contiguous().numpy().data)
                shape = (images.shape[1], images.shape[-1])
                progress.advance(len(rows))
                between()
        return Sums.of(metric, pixels=digest.hexdigest()[:16], channels=shape[0], size=shape[1])

    def _add_generated(
        self, metric: real_sums.Metric, sample: Sample, real: Sums, between: Callable[[], object]
    ) -> bool:
        """Whether all images were finite; stops at the first that aren't."""
        generator = torch.Generator().manual_seed(streams.derive(self._seed, "fid"))
        labels = torch.from_numpy(np.array(self._dataset.labels))
        for rows in self._batches(self._samples):
            images = draw(sample, labels[torch.from_numpy(rows)], generator)
            if images is None:
                return False
            if (images.shape[1], *images.shape[2:]) != (real.channels, real.size, real.size):
                raise UsageError(
                    f"Generated images of {tuple(images.shape[1:])} can't be scored against real ones of "
                    f"{(real.channels, real.size, real.size)}. Open the data with the generator's size and channels."
                )
            metric.update(images, real=False)
            between()
        return True

    def _batches(self, count: int) -> Iterator[NDArray[np.int64]]:
        """Rows of the data set, ``count`` in all and evenly spread; some twice where it has fewer."""
        for start in range(0, count, self._batch_size):
            positions = np.arange(start, min(start + self._batch_size, count), dtype=np.int64)
            yield positions * len(self._dataset) // count


def _metric(extractor: Extractor) -> real_sums.Metric:
    from torchmetrics.image.fid import FrechetInceptionDistance

    # Its random probe of a module's features is not needed: the extractor has ``num_features``.
    metric: real_sums.Metric = FrechetInceptionDistance(extractor)
    return metric


def _distance(metric: real_sums.Metric) -> float:
    if not torch.isfinite(metric.fake_features_cov_sum).all():
        return float("nan")
    try:
        return float(metric.compute())
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # public, but imported under another name
        return float("nan")
