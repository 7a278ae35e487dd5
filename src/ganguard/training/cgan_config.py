"""The settings of a conditional GAN's training: plain data, no torch needed."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from ganguard.errors import UsageError
from ganguard.networks.presets import CGAN_DEFAULTS, DEFAULT_LOSS, GPU_WIDTH, LOSS_PRESETS

IMAGE_SIZES = (32, 64)
_GB = 1e9


def _option(default: Any, help: str, *, metavar: str | None = None, choices: tuple[Any, ...] = ()) -> Any:
    return field(default=default, metadata={"help": help, "metavar": metavar, "choices": choices})


@dataclass(frozen=True, kw_only=True)
class CganConfig:
    """Every field is a command-line option of the same name, and a key of ``--config FILE``.

    Raises:
        UsageError: a value that cannot be.
    """

    data: str = _option(
        "fashion-mnist-mini",
        "what to train on: fashion-mnist-mini, emoji, or a folder (or .zip) with a folder of images for each class",
    )
    image_size: int = _option(32, "width and height of the images in pixels", choices=IMAGE_SIZES)
    channels: int | None = _option(
        None, "1 for grayscale, 3 for RGB (default: 1 for fashion-mnist-mini, else 3)", choices=(1, 3)
    )
    width: int | None = _option(
        None, f"feature channels of the networks (default: {CGAN_DEFAULTS.width} on a CPU, {GPU_WIDTH} on a GPU)"
    )
    batch_size: int = _option(CGAN_DEFAULTS.batch_size, "images in a batch")
    epochs: int = _option(100, "how often to go through the images, resumed epochs included")
    limit_images: int | None = _option(None, "train on at most so many images, evenly from all classes")
    workers: int = _option(0, "processes that prepare data; 0 is fastest where the images are cached")
    seed: int = _option(0, "start of all random numbers: the same seed, the same training")
    device: str = _option("auto", "cpu, cuda, cuda:1, mps …; auto takes a GPU where torch sees one")
    threads: int | None = _option(None, "CPU threads (default: those that the run began with)")
    deterministic: bool | None = _option(None, "make every operation reproducible (default: on a CPU)")
    run_dir: str = _option(".", "everything is written below it", metavar="DIR")
    checkpoint_dir: str | None = _option(None, "where the checkpoints go (default: RUN_DIR/checkpoints)", metavar="DIR")
    checkpoint_interval: int | None = _option(None, "save every so many epochs (default: 1)")
    autosave_batches: int | None = _option(None, "save within an epoch, every so many batches (default: 500; 0: not)")
    save_budget: float = _option(
        0.05, "saves that no interval asks for take at most this share of the time: 0.05 is 5 %%"
    )
    sample_every: int = _option(1, "write a grid of samples every so many epochs; 0: never")
    learning_rate: float = _option(
        LOSS_PRESETS[DEFAULT_LOSS].learning_rate, "learning rate of the generator; the critic's is twice that"
    )
    cache_limit: float = _option(20.0, "gigabytes; a larger data set is decoded while training")

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise UsageError(f"--{name.replace('_', '-')} must be at least {least}, not {value}.")
        for item in fields(self):
            choices = item.metadata["choices"]
            value = getattr(self, item.name)
            if choices and value is not None and value not in choices:
                raise UsageError(
                    f"--{item.name.replace('_', '-')} is one of {', '.join(map(str, choices))}, not {value}."
                )
        if not 0 < self.learning_rate <= 1:
            raise UsageError(f"--learning-rate must be above 0 and at most 1, not {self.learning_rate}.")
        if self.save_budget > 1:
            raise UsageError(f"--save-budget is a share, at most 1, not {self.save_budget}.")

    @property
    def data_channels(self) -> int:
        return self.channels or (1 if self.data == "fashion-mnist-mini" else 3)

    @property
    def cache_bytes(self) -> int:
        return int(self.cache_limit * _GB)


_LEAST = {
    "width": 4,
    "batch_size": 1,
    "epochs": 1,
    "limit_images": 1,
    "workers": 0,
    "seed": 0,
    "threads": 1,
    "checkpoint_interval": 1,
    "autosave_batches": 0,
    "save_budget": 0,
    "sample_every": 0,
    "cache_limit": 0,
}

STRUCTURAL = ("image_size", "channels", "width", "latent_size", "label_names", "multi_label", "seed")
"""What must be the same at resume; the rest may change, and is printed where it does."""

NOT_OF_THE_RUN = ("run_dir", "checkpoint_dir", "device", "threads", "deterministic")
"""What belongs to one start of the command, and is not taken over from a checkpoint."""
