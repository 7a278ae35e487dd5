"""The settings of a progressive GAN's training: plain data, no torch needed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self, get_args, get_type_hints

from ganguard.errors import UsageError
from ganguard.reports.console import counted
from ganguard.store.pair import HISTORY, Pair
from ganguard.store.scheduled import interval
from ganguard.training.ranges import checked_range
from ganguard.training.run_names import name_for

SMALLEST, LARGEST = 4, 1024
SIZES = tuple(SMALLEST << level for level in range(9))
_GB = 1e9


class Numbers(tuple[int, ...]):
    """Whole numbers, one for each level from 4 px on; on the command line with commas: 16,16,12."""

    def __new__(cls, values: str | Iterable[Any]) -> Self:
        words = values.replace(",", " ").split() if isinstance(values, str) else list(values)
        if not all(isinstance(word, str) or (isinstance(word, int) and not isinstance(word, bool)) for word in words):
            raise ValueError(f"{words} are not whole numbers")
        return super().__new__(cls, [int(word) for word in words])

    def __str__(self) -> str:
        return ",".join(map(str, self))


_BATCH_SIZES = Numbers([16, 16, 12, 8, 6, 4, 3, 2, 1])
_EPOCHS = Numbers([20] * 9)


def _option(default: Any, help: str, *, metavar: str | None = None, choices: tuple[Any, ...] = ()) -> Any:
    return field(default=default, metadata={"help": help, "metavar": metavar, "choices": choices})


@dataclass(frozen=True, kw_only=True)
class ProganConfig:
    """Every field is a command-line option of the same name, a key of ``--config FILE``, and, in capitals, a constant
    of ``progan_local.py``.

    Raises:
        UsageError: a value that cannot be.
    """

    data_dir: str = _option("emoji", "a folder (or .zip) of images, or the built-in emoji", metavar="DIR")
    run_name: str | None = _option(
        None, "what the run's files are called (default: after DATA_DIR: cats/train is cats)", metavar="NAME"
    )
    weights_dir: str = _option("weights", "where the checkpoints go", metavar="DIR")
    output_dir: str = _option("samples", "where grids and generated images go", metavar="DIR")
    logs_dir: str = _option("logs", "where curves, TensorBoard and the journal go", metavar="DIR")
    cache_dir: str = _option("cache", "where the decoded images go", metavar="DIR")
    start_train_at_img_size: int = _option(4, "the first size that is trained, in px", choices=SIZES)
    img_size: int | None = _option(
        None, "the last size, in px (default: as many levels as there are PROGRESSIVE_EPOCHS)", choices=SIZES
    )
    batch_sizes: Numbers = _option(  # noqa: RUF009  # a tuple: nothing that instances share can change
        _BATCH_SIZES, "images that are worked on at once, of each size from 4 px on", metavar="N,N,…"
    )
    progressive_epochs: Numbers = _option(  # noqa: RUF009  # likewise
        _EPOCHS, "epochs of each size from 4 px on; it fades in over the first half", metavar="N,N,…"
    )
    stabilize_kimg: float | None = _option(
        None, "count in thousands of images instead of epochs: each size is stabilized for so many (the paper: 600)"
    )
    fade_kimg: float | None = _option(None, "and fades in over so many (default: as STABILIZE_KIMG)")
    learning_rate: float = _option(1e-3, "of both networks")
    z_dim: int = _option(256, "numbers in a latent (the paper: 512)")
    in_channels: int = _option(256, "feature channels at 4 to 32 px; above they halve at each size (the paper: 512)")
    channels_img: int = _option(3, "1 for grayscale, 3 for RGB", choices=(1, 3))
    critic_iterations: int = _option(1, "batches for the critic per batch for the generator")
    lambda_gp: float = _option(10.0, "weight of the gradient penalty")
    gradient_accumulation_steps: int = _option(2, "so many times the batch size make one step of the optimizers")
    auto_save_every_n_batches: int = _option(100, "save within an epoch, every so many batches; 0: only at its end")
    autosave_minutes: float | None = _option(None, "save within an epoch at least every so many minutes too")
    backup_every: str | None = _option(
        None, "make a verified copy of a checkpoint so often: 12h, 1d (default: never)", metavar="TIME"
    )
    keep_backups: int = _option(7, "how many of these copies stay; those made by hand always do")
    backup_dir: str | None = _option(
        None, "where they go, another disk say (default: checkpoint_backups beside WEIGHTS_DIR)", metavar="DIR"
    )
    on_usr1: str = _option(
        "stop", "what SIGUSR1 does, a cluster's warning: save and leave, or save and go on", choices=("stop", "save")
    )
    save_model: bool = _option(True, "save regularly; without it, only at a size's end, a stop and the end")
    load_model: bool | None = _option(
        None, "demand a checkpoint, or start afresh and set the old run aside (default: go on where there is one)"
    )
    checkpoint_gen: str | None = _option(None, "go on from this generator file", metavar="FILE")
    checkpoint_critic: str | None = _option(
        None, "and this critic file, where the first is an older one", metavar="FILE"
    )
    checkpoint_gen_save: str | None = _option(
        None, "fixed name of the newest generator (default: generator_NAME_local.pth)", metavar="NAME"
    )
    checkpoint_critic_save: str | None = _option(
        None, "fixed name of the newest critic (default: critic_NAME_local.pth)", metavar="NAME"
    )
    sample_every: int = _option(1, "write a grid of samples every so many epochs; 0: only at each size's end")
    limit_images: int | None = _option(None, "train on at most so many images")
    flip: bool = _option(False, "mirror each image with probability 1/2")
    pixel_range: str = _option(
        "auto",
        "what becomes black and white in images with more than 8 bits a channel, such as 0:4095 "
        "(--pixel-range=-1024:3071 with a sign); full: the upper 8 of 16 bits; auto: what they hold",
        metavar="LOW:HIGH",
    )
    max_pixels: int = _option(10**9, "images with more pixels are left out")
    cache_limit: float = _option(20.0, "gigabytes; a larger data set is decoded while training")
    workers: int = _option(0, "processes that prepare data; 0 is fastest where the images are cached")
    seed: int = _option(0, "start of all random numbers: the same seed, the same training")
    device: str = _option("auto", "cpu, cuda, cuda:1, mps …; auto takes a GPU where torch sees one")
    threads: int | None = _option(None, "CPU threads (default: those that the run began with)")
    deterministic: bool | None = _option(None, "make every operation reproducible (default: on a CPU)")

    def __post_init__(self) -> None:
        self._check_kinds()
        for name in ("batch_sizes", "progressive_epochs"):
            self._check_list(name, least=1 if name == "batch_sizes" else 0)
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise UsageError(f"{_named(name)} must be at least {least}, not {value}.")
        for item in fields(self):
            choices, value = item.metadata["choices"], getattr(self, item.name)
            if choices and value is not None and value not in choices:
                raise UsageError(f"{_named(item.name)} is one of {', '.join(map(str, choices))}, not {value}.")
        if not 0 < self.learning_rate <= 1:
            raise UsageError(f"{_named('learning_rate')} must be above 0 and at most 1, not {self.learning_rate}.")
        object.__setattr__(self, "pixel_range", checked_range(self.pixel_range, _named("pixel_range")))
        if self.backup_every is not None:
            interval(self.backup_every)
        if self.fade_kimg is not None and self.stabilize_kimg is None:
            raise UsageError(f"{_named('fade_kimg')} needs STABILIZE_KIMG: count both in thousands of images.")
        self._check_levels()

    def _check_kinds(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            if hint is not Numbers:
                object.__setattr__(self, name, _of_kind(name, getattr(self, name), get_args(hint) or (hint,)))

    def _check_list(self, name: str, *, least: int) -> None:
        try:
            numbers = Numbers(getattr(self, name))
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"{_named(name)} takes a list of whole numbers, one a size, such as [16, 16, 12], "
                f"not {getattr(self, name)!r}."
            ) from error
        if not numbers or min(numbers) < least or len(numbers) > len(SIZES):
            raise UsageError(
                f"{_named(name)} takes 1 to {len(SIZES)} numbers of at least {least}, one for each size from 4 px on, "
                f"not {numbers}."
            )
        object.__setattr__(self, name, numbers)

    def _check_levels(self) -> None:
        if len(self.batch_sizes) < self.levels:
            raise UsageError(
                f"{_named('batch_sizes')} has {counted(len(self.batch_sizes), 'number')} for the {self.levels} "
                f"sizes up to {SIZES[self.levels - 1]} px: give one for each size from 4 px on."
            )
        if self.first_level >= self.levels:
            raise UsageError(
                f"{_named('start_train_at_img_size')} is {self.start_train_at_img_size}, but the last size is "
                f"{SIZES[self.levels - 1]} px."
            )
        if self.stabilize_kimg is None and not any(self.progressive_epochs[self.first_level : self.levels]):
            raise UsageError(
                f"{_named('progressive_epochs')} is {self.progressive_epochs}, which trains nothing from "
                f"{self.start_train_at_img_size} px on: give at least one size an epoch."
            )

    @property
    def layout(self) -> Pair:
        """How the checkpoints of this run are called, apart from those of others in the folder."""
        return Pair(
            name=self.run_name or name_for(self.data_dir),
            head_alias=self._in_weights(self.checkpoint_gen_save),
            companion_alias=self._in_weights(self.checkpoint_critic_save),
        )

    def _in_weights(self, name: str | None) -> str:
        """A fixed name; people write the folder of the weights before it as well."""
        path = Path(name or "")
        return path.name if path.parent == Path(self.weights_dir) else name or ""

    def named_file(self, name: str | None) -> Path | None:
        """A file to go on from; a bare name is looked for in the folder of the weights and in its history too."""
        if not name:
            return None
        path, weights = Path(name), Path(self.weights_dir)
        if len(path.parts) == 1 and not path.exists():
            path = next((p for p in (weights / path, weights / HISTORY / path) if p.exists()), weights / path)
        return path

    @property
    def image_size(self) -> int:
        """The side of the largest images that the networks can make, in px."""
        if self.img_size is not None:
            return self.img_size
        return LARGEST if self.stabilize_kimg is not None else SIZES[len(self.progressive_epochs) - 1]

    @property
    def levels(self) -> int:
        """How many sizes from 4 px on the training goes up to."""
        possible = SIZES.index(self.image_size) + 1
        return possible if self.stabilize_kimg is not None else min(possible, len(self.progressive_epochs))

    @property
    def pieces(self) -> list[int]:
        """Images that are worked on at once, of every level that the networks have."""
        given = list(self.batch_sizes)
        return (given + given[-1:] * len(SIZES))[: SIZES.index(self.image_size) + 1]

    @property
    def first_level(self) -> int:
        return SIZES.index(self.start_train_at_img_size)

    @property
    def cache_bytes(self) -> int:
        return int(self.cache_limit * _GB)


_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "True or False"}


def _of_kind(name: str, value: Any, kinds: tuple[Any, ...]) -> Any:
    """``value`` as the type of its setting; a constant in a file may be anything.

    Raises:
        UsageError: it cannot be.
    """
    kind, *others = kinds
    if value is None and others:
        return None
    if kind is bool and type(value) is int and value in (0, 1):
        return bool(value)
    if kind is float and type(value) is int:
        value = float(value)
    if kind is int and type(value) is float and value.is_integer():
        value = int(value)
    if kind is str and isinstance(value, Path):
        value = str(value)
    if type(value) is not kind or value == "" or (kind is float and not math.isfinite(value)):
        raise UsageError(f"{_named(name)} takes {_WORDS[kind]}, not {value!r}.")
    return value


def _named(name: str) -> str:
    """A setting as people know it: its constant and its option."""
    return f"{name.upper()} (--{name.replace('_', '-')})"


_LEAST = {
    "keep_backups": 1,
    "stabilize_kimg": 0.001,
    "fade_kimg": 0,
    "z_dim": 1,
    "in_channels": 1,
    "critic_iterations": 1,
    "lambda_gp": 0,
    "gradient_accumulation_steps": 1,
    "auto_save_every_n_batches": 0,
    "autosave_minutes": 0,
    "sample_every": 0,
    "limit_images": 1,
    "max_pixels": 1,
    "cache_limit": 0,
    "workers": 0,
    "seed": 0,
    "threads": 1,
}

STRUCTURAL = ("img_size", "channels_img", "in_channels", "z_dim", "seed", "pixel_range")
"""What must be the same at resume; the rest may change, and is printed where it does."""

NOT_OF_THE_RUN = (
    "run_name",
    "weights_dir",
    "output_dir",
    "logs_dir",
    "cache_dir",
    "data_dir",
    "load_model",
    "save_model",
    "checkpoint_gen",
    "checkpoint_critic",
    "checkpoint_gen_save",
    "checkpoint_critic_save",
    "on_usr1",
    "backup_dir",
    "device",
    "threads",
    "deterministic",
)
"""What belongs to one start of the command, and is not taken over from a checkpoint."""
