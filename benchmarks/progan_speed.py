"""Training's images a second at each level: fed from the pyramid, and from a folder of 512 px JPEGs.

    python benchmarks/progan_speed.py --largest 64 --width 256

Both train the same networks with the same step; the folder is read by torchvision in two workers that decode and resize
each image each time. One run, interleaved, medians; the first round warms up. What the data room gives alone is in
delivery.py.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from delivery import BATCH_SIZES, cache_loader, guarded, jpeg_loader, make_jpegs
from ganguard.data import open_pyramid
from ganguard.networks.ema import GeneratorAverage
from ganguard.networks.progressive import ProgressiveCritic, ProgressiveGenerator, level_of
from ganguard.training.progan_schedule import Stage
from ganguard.training.progan_step import ProgressiveStep, Weights, make_optimizers

ACCUMULATION = 2
STEPS = 4  # at least, of a measurement
LEAST_S = 2.0


def make_step(size: int, width: int) -> ProgressiveStep:
    torch.manual_seed(0)
    generator = ProgressiveGenerator(image_size=size, channels=3, width=width, latent_size=width)
    critic = ProgressiveCritic(image_size=size, channels=3, width=width)
    of_generator, of_critic = make_optimizers(generator, critic, learning_rate=1e-3)
    return ProgressiveStep(
        generator=generator,
        critic=critic,
        average=GeneratorAverage(generator),
        generator_optimizer=of_generator,
        critic_optimizer=of_critic,
        weights=Weights(),
        critic_steps=1,
        piece=BATCH_SIZES[size],
        fewer=print,
    )


def endless(epochs: Iterable[Any]) -> Iterator[torch.Tensor]:
    for batches in epochs:
        for batch in batches:
            yield batch[0] if isinstance(batch, list | tuple) else batch


def images_a_second(step: ProgressiveStep, batches: Iterator[torch.Tensor], stage: Stage) -> float:
    seen, began = 0, time.perf_counter()
    while (took := time.perf_counter() - began) < LEAST_S or not seen:
        for images in islice(batches, STEPS):
            step(images, stage, step=0, images_seen=100_000)
            seen += len(images)
    return seen / took


def repeated(loader: Iterable[Any]) -> Iterator[Any]:
    while True:
        yield loader


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=448)
    parser.add_argument("--largest", type=int, default=64)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        jpegs = Path(folder) / "jpegs"
        make_jpegs(jpegs, asked.images)
        pyramid = open_pyramid(
            str(jpegs), largest=512, channels=3, cache_dir=Path(folder) / "cache", say=lambda _line: None
        )
        print(f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, width {asked.width}, images a second:")
        for size in (s for s in pyramid.sizes if s <= asked.largest):
            level, count = pyramid.level(size), BATCH_SIZES[size] * ACCUMULATION
            step, stage = make_step(size, asked.width), Stage(level_of(size), 1.0)
            ways = {
                "pyramid": endless(guarded(cache_loader(level, count, level.collate))),
                "JPEGs": endless(repeated(jpeg_loader(jpegs, size, count))),
            }
            rates: dict[str, list[float]] = {name: [] for name in ways}
            for turn in range(asked.rounds + 1):
                for name, batches in ways.items():
                    rate = images_a_second(step, batches, stage)
                    if turn:
                        rates[name].append(rate)
            medians = {name: statistics.median(several) for name, several in rates.items()}
            print(f"{size:>5} px  " + "  ".join(f"{name} {rate:8.1f}" for name, rate in medians.items()), flush=True)


if __name__ == "__main__":
    main()
