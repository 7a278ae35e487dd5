"""The settings of a conditional GAN's training: plain data, no torch needed."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

from ganguard.errors import UsageError
from ganguard.networks.presets import CGAN_DEFAULTS, DEFAULT_LOSS, GPU_WIDTH, LOSS_PRESETS, LossPreset
from ganguard.store.scheduled import interval
from ganguard.training.ranges import checked_range

IMAGE_SIZES = (32, 64, 128)
PRECISIONS = ("float32", "bfloat16")
_GB = 1e9


def _option(default: Any, help: str, *, metavar: str | None = None, choices: tuple[Any, ...] = ()) -> Any:
    return field(default=default, metadata={"help": help, "metavar": metavar, "choices": choices})


def _by_loss(setting: str) -> str:
    """The presets' values of a setting, in words."""
    return ", ".join(f"{getattr(preset, setting):g} {name}" for name, preset in LOSS_PRESETS.items())


@dataclass(frozen=True, kw_only=True)
class CganConfig:
    """Every field is a command-line option of the same name, and a key of ``--config FILE``.

    Raises:
        UsageError: a value that cannot be.
    """

    data: str = _option(
        "fashion-mnist-mini",
        "what to train on: fashion-mnist-mini, emoji, a folder (or .zip) with a folder of images for each class, "
        "an IDX folder, or what torchvision knows: mnist, fashion-mnist, cifar10, celeba",
    )
    attributes: str | None = _option(
        None,
        "labels are binary attributes: a table in CelebA's form with a row for each image, -1 and 1 or 0 and 1",
        metavar="CSV",
    )
    attribute_names: str | None = _option(
        None, "which columns of the table, with commas: Smiling,Male (default: all)", metavar="NAMES"
    )
    image_size: int = _option(32, "width and height of the images in pixels", choices=IMAGE_SIZES)
    channels: int | None = _option(
        None, "1 for grayscale, 3 for RGB (default: 1 for the MNISTs, else 3)", choices=(1, 3)
    )
    width: int | None = _option(
        None, f"feature channels of the networks (default: {CGAN_DEFAULTS.width} on a CPU, {GPU_WIDTH} on a GPU)"
    )
    latent_size: int = _option(CGAN_DEFAULTS.latent_size, "numbers in a latent")
    flip: bool = _option(False, "mirror each image with probability 1/2")
    loss: str = _option(DEFAULT_LOSS, "what the networks minimize", choices=tuple(LOSS_PRESETS))
    critic_steps: int | None = _option(
        None, f"batches for the critic per batch for the generator (default: {_by_loss('critic_steps')})"
    )
    penalty: float | None = _option(None, f"weight of the critic's gradient penalty (default: {_by_loss('penalty')})")
    batch_size: int = _option(CGAN_DEFAULTS.batch_size, "images that are worked on at once")
    accumulation: int = _option(1, "so many times the batch size make one step, in the memory of one batch size")
    precision: str = _option("float32", "of forward passes; weights stay float32", choices=PRECISIONS)
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
    backup_every: str | None = _option(
        None, "make a verified copy of a checkpoint so often: 12h, 1d (default: never)", metavar="TIME"
    )
    keep_backups: int = _option(7, "how many of these copies stay; those made by hand always do")
    backup_dir: str | None = _option(
        None, "where they go, another disk say (default: checkpoint_backups beside the checkpoints)", metavar="DIR"
    )
    save_budget: float = _option(
        0.05, "saves that no interval asks for take at most this share of the time: 0.05 is 5 %%"
    )
    sample_every: int = _option(1, "write a grid of samples every so many epochs; 0: never")
    learning_rate: float | None = _option(
        None,
        f"learning rate of the generator (default: {_by_loss('learning_rate')}); the critic's is its multiple "
        f"({_by_loss('critic_learning_rate_factor')})",
    )
    decay_epochs: int = _option(0, "let the learning rate fall to 0 over so many epochs at the end")
    fid_every: int = _option(5, "score the generator by FID every so many epochs and keep the best; 0: never")
    fid_samples: int = _option(2000, "generated images in a FID")
    fid_weights: str | None = _option(
        None,
        "weights of Inception-v3, or the word download (default: those in torch's cache, else EfficientNet-Lite0)",
        metavar="FILE",
    )
    pixel_range: str = _option(
        "auto",
        "what becomes black and white in images with more than 8 bits a channel, such as 0:4095 "
        "(--pixel-range=-1024:3071 with a sign); full: the upper 8 of 16 bits; auto: what they hold",
        metavar="LOW:HIGH",
    )
    max_pixels: int = _option(10**9, "images with more pixels are left out")
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
        if self.learning_rate is not None and not 0 < self.learning_rate <= 1:
            raise UsageError(f"--learning-rate must be above 0 and at most 1, not {self.learning_rate}.")
        object.__setattr__(self, "pixel_range", checked_range(self.pixel_range, "--pixel-range"))
        if self.backup_every is not None:
            interval(self.backup_every)
        if self.save_budget > 1:
            raise UsageError(f"--save-budget is a share, at most 1, not {self.save_budget}.")

    @property
    def preset(self) -> LossPreset:
        """What the loss is trained with: its own settings where nothing else was asked for."""
        preset = LOSS_PRESETS[self.loss]
        asked = {name: getattr(self, name) for name in ("learning_rate", "critic_steps", "penalty")}
        if asked["penalty"] and not preset.penalty:
            raise UsageError(f"--penalty: the loss {self.loss} has none. Leave it out, or choose another --loss.")
        return replace(preset, **{name: value for name, value in asked.items() if value is not None})

    @property
    def data_channels(self) -> int:
        from ganguard.data import default_channels

        return self.channels or default_channels(self.data)

    @property
    def cache_bytes(self) -> int:
        return int(self.cache_limit * _GB)


_LEAST = {
    "width": 4,
    "latent_size": 1,
    "critic_steps": 1,
    "penalty": 0,
    "batch_size": 1,
    "accumulation": 1,
    "decay_epochs": 0,
    "fid_every": 0,
    "fid_samples": 2,
    "epochs": 1,
    "limit_images": 1,
    "workers": 0,
    "seed": 0,
    "threads": 1,
    "checkpoint_interval": 1,
    "autosave_batches": 0,
    "keep_backups": 1,
    "save_budget": 0,
    "sample_every": 0,
    "max_pixels": 1,
    "cache_limit": 0,
}

STRUCTURAL = (
    "image_size",
    "channels",
    "width",
    "latent_size",
    "label_names",
    "multi_label",
    "loss",
    "seed",
    "pixel_range",
)
"""What must be the same at resume; the rest may change, and is printed where it does."""

NOT_OF_THE_RUN = ("run_dir", "checkpoint_dir", "backup_dir", "device", "threads", "deterministic")
"""What belongs to one start of the command, and is not taken over from a checkpoint."""
