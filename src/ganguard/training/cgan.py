"""The training of the conditional GAN: a loop like anybody's, under the public guard."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ganguard.data import LabelledImages, open_images
from ganguard.errors import UsageError
from ganguard.guard import Guard
from ganguard.networks.cgan import build_critic, build_generator
from ganguard.networks.cgan_spec import CganSpec
from ganguard.networks.ema import GeneratorAverage
from ganguard.networks.presets import CGAN_DEFAULTS, DEFAULT_LOSS, LOSS_PRESETS, default_width
from ganguard.protection import cards
from ganguard.reports import console
from ganguard.reports.grids import save_grid
from ganguard.reports.training_line import TrainingLine
from ganguard.store.durable import why
from ganguard.store.resume import Request
from ganguard.streams import derive
from ganguard.training.cgan_config import NOT_OF_THE_RUN, STRUCTURAL, CganConfig
from ganguard.training.cgan_step import CganStep, make_optimizers, to_label_vectors
from ganguard.training.objectives import make_objective

_ROWS = 8  # of a sample grid
_DEVICES = ("cpu", "cuda", "mps", "xpu")


class FixedLatents:
    """The latents and labels of the sample grids: the same through the whole run, whatever else is drawn."""

    def __init__(self, *, classes: int, latent_size: int, seed: int) -> None:
        own = torch.Generator().manual_seed(derive(seed, "fixed latents"))
        self.latents = torch.randn(_ROWS * classes, latent_size, generator=own)
        self.labels = torch.arange(classes).repeat(_ROWS)

    def state_dict(self) -> dict[str, Tensor]:
        return {"latents": self.latents, "labels": self.labels}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.latents, self.labels = state["latents"], state["labels"]


class CganTraining:
    """One start of the trainer: builds everything, then ``run``.

    Args:
        config: the settings, checkpoint's values filled in.
        request: what to go on from.
        say: prints a line.

    Raises:
        UsageError, DataError: it cannot be trained like that.
    """

    def __init__(self, config: CganConfig, request: Request, say: Callable[[str], None]) -> None:
        self._config = config
        self._request = request
        self._device = _choose_device(config.device, say)
        self._root = Path(config.run_dir)
        self._images = open_images(
            config.data,
            image_size=config.image_size,
            channels=config.data_channels,
            cache_dir=self._root / "cache",
            cache_limit=config.cache_bytes,
            limit=config.limit_images,
            say=say,
        )
        self._build()

    def _build(self) -> None:
        config, classes = self._config, len(self._images.label_names)
        torch.manual_seed(config.seed)
        self._width = config.width or default_width(self._device.type)
        preset = LOSS_PRESETS[DEFAULT_LOSS]
        self._spec = CganSpec(
            image_size=config.image_size,
            channels=config.data_channels,
            width=self._width,
            latent_size=CGAN_DEFAULTS.latent_size,
            label_names=self._images.label_names,
            multi_label=False,
        )
        generator = build_generator(self._spec).to(self._device)
        critic = build_critic(self._spec, spectral=preset.spectral).to(self._device)
        self._average = GeneratorAverage(generator)
        opt_g, opt_d = make_optimizers(generator, critic, preset, learning_rate=config.learning_rate)
        self._fixed = FixedLatents(classes=classes, latent_size=CGAN_DEFAULTS.latent_size, seed=config.seed)
        self._step = CganStep(
            generator=generator,
            critic=critic,
            average=self._average,
            generator_optimizer=opt_g,
            critic_optimizer=opt_d,
            objective=make_objective(DEFAULT_LOSS),
            critic_steps=preset.critic_steps,
        )
        self._parts = {
            "generator": generator,
            "critic": critic,
            "opt_g": opt_g,
            "opt_d": opt_d,
            "ema": self._average,
            "fixed": self._fixed,
        }

    def _guard(self, line: TrainingLine) -> Guard:
        config = self._config
        recorded = {k: v for k, v in asdict(config).items() if k not in NOT_OF_THE_RUN}
        recorded |= {
            "data": str(Path(config.data).resolve()) if Path(config.data).exists() else config.data,
            **self._spec.to_config(),
        }
        return Guard(
            config.checkpoint_dir or self._root / "checkpoints",
            self._parts,
            config=recorded,
            may_change=set(recorded) - set(STRUCTURAL),
            seed=config.seed,
            save_every_epochs=config.checkpoint_interval,
            save_every_batches=config.autosave_batches,
            save_budget=config.save_budget,
            resume=self._request,
            journal=self._root / "logs" / "cgan_{run}" / "journal.jsonl",
            threads=config.threads,
            deterministic=config.deterministic,
            say=line.say,
        )

    def run(self) -> None:
        """Train to the last epoch.

        Raises:
            Stopped, NotSaved: see ``ganguard.errors``.
        """
        loader: DataLoader[Any] = DataLoader(
            self._images,  # type: ignore[arg-type]  # a map-style data set, without importing torch for the name
            batch_size=self._config.batch_size,
            shuffle=True,
            num_workers=self._config.workers,
            persistent_workers=self._config.workers > 0,
            pin_memory=self._device.type == "cuda",
            collate_fn=LabelledImages.collate,
        )
        with TrainingLine(len(self._images), self._config.epochs) as line, self._guard(line) as guard:
            for epoch in guard.epochs(self._config.epochs):
                losses = self._train_epoch(guard, loader, line)
                self._sample(guard, epoch, losses, line)
        console.say(f"Finished: {self._config.epochs} epochs; the newest checkpoint is in {guard.folder}.")

    def _train_epoch(self, guard: Guard, loader: DataLoader[Any], line: TrainingLine) -> dict[str, Tensor]:
        """Returns the epoch's last losses."""
        latest: dict[str, Tensor] = {}
        for images, labels in guard.batches(loader):
            losses = self._step(images, labels, step=guard.step, images_seen=guard.images)
            guard.log(**losses)
            latest |= losses
            if line.advance(len(labels)):
                done = min((guard.batch + 1) * self._config.batch_size, len(self._images))
                line.show(epoch=guard.epoch, done=done, losses=latest, saved_s_ago=guard.seconds_since_save)
        return latest

    def _sample(self, guard: Guard, epoch: int, losses: Mapping[str, Tensor], line: TrainingLine) -> None:
        every = self._config.sample_every
        if not every or (epoch % every and epoch != self._config.epochs):
            return
        path = self._root / "samples" / f"cgan_{guard.run}" / f"epoch_{epoch:04d}.png"
        names = self._images.label_names
        try:
            save_grid(self.samples(), path, columns=len(names), class_names=names)
        except OSError as error:
            line.say(f"The samples of epoch {epoch} were not written: {why(error)}. Training goes on.")
            return
        shown = "".join(f"{name} {float(value):.3f}, " for name, value in losses.items())
        line.say(f"epoch {epoch}: {shown}{line.images_per_second:.0f} images/s, samples in {path}")

    @torch.no_grad()
    def samples(self) -> Tensor:
        """The grid's images (rows x classes, C, S, S) in [-1, 1], from the averaged generator."""
        labels = to_label_vectors(self._fixed.labels.to(self._device), len(self._images.label_names))
        pictures: Tensor = self._average.module(self._fixed.latents.to(self._device), labels)
        return pictures.cpu()


def _choose_device(name: str, say: Callable[[str], None]) -> torch.device:
    if not torch.cuda.is_available() and (unused := cards.seen_by_driver()):
        say(
            f"The driver sees {', '.join(unused)}, but this PyTorch cannot use it: training would run on the CPU. "
            "Install the build for your card: https://pytorch.org/get-started/locally/"
        )
    device = torch.device(_best_device()) if name == "auto" else _named_device(name)
    say(f"Training on {device}.")
    return device


def _named_device(name: str) -> torch.device:
    kind = name.split(":")[0]
    if kind not in _DEVICES:
        raise UsageError(
            f"--device {name} is none that can be trained on. Use one of {', '.join(_DEVICES)}, or leave it out."
        )
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(
            f"--device {name}: this PyTorch sees no such device. Use --device cpu, or leave it out."
        ) from error
    return device


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
