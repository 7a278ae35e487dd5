"""Images a second from the cache beside a folder of 512 px JPEGs that is decoded and resized each time.

    python benchmarks/delivery.py --images 448 --rounds 5

The folder is read by torchvision's ImageFolder with Resize and CenterCrop, in two workers that live on; the cache in
the training's own process, plainly and in the guard's order with its seeds. Then each level of the pyramid in the
guard's order, in the progressive GAN's batch sizes. All in one run, interleaved, from files that the system has just
read; medians. The JPEGs are the built-in emoji, enlarged.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import CenterCrop, Compose, PILToTensor, Resize

from ganguard.data import LabelledImages, open_images, open_pyramid
from ganguard.data.finding import find_source
from ganguard.data.listing import balanced_subset, list_classes
from ganguard.order import ExactLoader

LEAST_S = 1.0
LARGEST = 512
BATCH_SIZES = {4: 16, 8: 16, 16: 12, 32: 8, 64: 6, 128: 4, 256: 3, 512: 2}
JPEGS = f"{LARGEST} px JPEGs, ImageFolder, 2 workers"


def make_jpegs(folder: Path, count: int) -> None:
    source = find_source("emoji", root=folder, say=print)
    for entry in balanced_subset(list_classes(source), count).entries:
        path = (folder / entry.name).with_suffix(".jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(io.BytesIO(source.read(entry.name))) as image:
            image.convert("RGB").resize((LARGEST, LARGEST), Image.Resampling.BICUBIC).save(path, quality=90)


def jpeg_loader(folder: Path, size: int, batch: int) -> DataLoader[Any]:
    seen = ImageFolder(str(folder), Compose([Resize(size), CenterCrop(size), PILToTensor()]))
    return DataLoader(seen, batch, shuffle=True, num_workers=2, persistent_workers=True, prefetch_factor=4)


def cache_loader(images: Any, batch: int, collate: Callable[[Any], Any]) -> DataLoader[Any]:
    return DataLoader(images, batch, shuffle=True, collate_fn=collate)


def guarded(loader: DataLoader[Any]) -> Iterable[Any]:
    """The epochs of ``loader`` as a guard's loop is given them."""
    exact = ExactLoader(loader, seed=0)
    epoch = 0
    while True:
        epoch += 1
        exact.start(epoch, samples_done=0, batches_done=0)
        yield iter(exact.next, None)


def plain(loader: DataLoader[Any]) -> Iterable[Any]:
    while True:
        yield loader


def images_a_second(epochs: Iterable[Any], images: int) -> float:
    """Whole epochs until they took long enough to be measured."""
    done, began = 0, time.perf_counter()
    for batches in epochs:
        for _ in batches:
            pass
        done += images
        if (took := time.perf_counter() - began) >= LEAST_S:
            return done / took
    raise AssertionError("epochs do not end")


def median_rates(ways: dict[str, Iterable[Any]], images: int, rounds: int) -> dict[str, float]:
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, epochs in ways.items():
            rate = images_a_second(epochs, images)
            if turn:  # the first warms up
                rates[name].append(rate)
    return {name: statistics.median(several) for name, several in rates.items()}


def show(title: str, rates: dict[str, float]) -> None:
    base = next(iter(rates.values()))
    print(title)
    for name, rate in rates.items():
        print(f"  {name:<44} {rate:12,.0f} images/s {rate / base:8,.0f} x")


def labelled(jpegs: Path, work: Path, asked: argparse.Namespace) -> None:
    cached = open_images(str(jpegs), image_size=64, channels=3, cache_dir=work / "cache", say=lambda _: None)
    loader = cache_loader(cached, asked.batch_size, LabelledImages.collate)
    ways = {
        JPEGS: plain(jpeg_loader(jpegs, 64, asked.batch_size)),
        "cache": plain(loader),
        "cache, in the guard's order": guarded(loader),
    }
    show(
        f"{len(cached):,} images at 64 px, batches of {asked.batch_size}:",
        median_rates(ways, len(cached), asked.rounds),
    )


def by_level(jpegs: Path, work: Path, asked: argparse.Namespace) -> None:
    pyramid = open_pyramid(str(jpegs), largest=LARGEST, channels=3, cache_dir=work / "cache", say=lambda _: None)
    for size in pyramid.sizes:
        level, batch = pyramid.level(size), BATCH_SIZES[size]
        ways = {
            JPEGS: plain(jpeg_loader(jpegs, size, batch)),
            "pyramid, in the guard's order": guarded(cache_loader(level, batch, level.collate)),
        }
        rates = median_rates(ways, len(level), asked.rounds)
        show(f"{len(level):,} images at {size} px, batches of {batch}:", rates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=448)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=64)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        jpegs = Path(folder) / "jpegs"
        make_jpegs(jpegs, asked.images)
        print(f"{os.cpu_count()} cores, median of {asked.rounds}")
        labelled(jpegs, Path(folder), asked)
        by_level(jpegs, Path(folder), asked)


if __name__ == "__main__":
    main()
