"""The training of the conditional GAN: a loop like anybody's, under the public guard."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ganguard import restoring
from ganguard.clock import Stopwatch
from ganguard.data import LabelledImages
from ganguard.data.sketch import Sketch
from ganguard.data.sources import Listing, Source
from ganguard.guard import Guard
from ganguard.metrics import Fid, find_extractor
from ganguard.networks.cgan import build_critic, build_generator
from ganguard.networks.cgan_spec import CganSpec
from ganguard.networks.ema import GeneratorAverage
from ganguard.networks.presets import default_width
from ganguard.protection import early
from ganguard.reports import console
from ganguard.reports.training_line import TrainingLine
from ganguard.store.resume import Request
from ganguard.store.scheduled import plan_of
from ganguard.store.shelf import Shelf
from ganguard.training import failing, run_names, runs_beside
from ganguard.training.before import range_to_use, settings_before, sketch_to_record
from ganguard.training.cgan_config import NOT_OF_THE_RUN, STRUCTURAL, CganConfig
from ganguard.training.cgan_data import open_data
from ganguard.training.cgan_reports import CganReports
from ganguard.training.cgan_samples import FixedLatents, grid_columns
from ganguard.training.cgan_step import CganStep, make_optimizers, scale_learning_rates
from ganguard.training.devices import choose_device
from ganguard.training.objectives import make_objective
from ganguard.training.parts import parts_of
from ganguard.training.run_reports import where_newest
from ganguard.training.schedules import linear_decay


class CganTraining:
    """One start of the trainer: builds everything, then ``run``.

    Args:
        config: the settings, checkpoint's values filled in.
        request: what to go on from.
        say: prints a line.
        check: given the sketch of the images before anything is decoded; may refuse them.

    Raises:
        UsageError, DataError: it cannot be trained like that.
        DoesNotFit: not with these settings. That is seen before anything is decoded.
    """

    def __init__(
        self,
        config: CganConfig,
        request: Request,
        say: Callable[[str], None],
        check: Callable[[Sketch], None] | None = None,
    ) -> None:
        self._request = request
        self._check = check
        self._preset = config.preset
        self._root = Path(config.run_dir)
        self._folder = Path(config.checkpoint_dir or self._root / "checkpoints")
        self._before = settings_before(self._folder, request, asdict(config), STRUCTURAL)
        self._config = config = replace(config, pixel_range=range_to_use(config.pixel_range, self._before))
        with early.preparing(frozenset()):
            self._device = choose_device(config.device, say)
            self._images = open_data(
                config, cache_dir=self._root / "cache", say=say, before=self._before, listed=self._listed
            )
            self._fid = self._make_fid(say)
            self._build()

    def _listed(self, source: Source, listing: Listing) -> None:
        """Refuse, before anything is decoded, other images and networks that do not fit."""
        self._sketch = sketch_to_record(source, listing, self._check)
        self._build_networks(listing)
        restoring.require_older_fits(Shelf(self._folder), self._request, self._parts)

    def _make_fid(self, say: Callable[[str], None]) -> Fid | None:
        config = self._config
        if not config.fid_every:
            return None
        return Fid(
            self._images.as_stored(),
            find_extractor(config.fid_weights, say=say),
            samples=config.fid_samples,
            cache_dir=self._root / "cache",
            seed=config.seed,
            device=self._device,
            say=say,
        )

    def _build_networks(self, listing: Listing) -> None:
        config, preset = self._config, self._preset
        torch.manual_seed(config.seed)
        self._spec = CganSpec(
            image_size=config.image_size,
            channels=config.data_channels,
            width=config.width or default_width(self._device.type),
            latent_size=config.latent_size,
            label_names=listing.label_names,
            multi_label=bool(listing.entries[0].attributes),
        )
        self._generator = build_generator(self._spec).to(self._device)
        self._critic = build_critic(self._spec, spectral=preset.spectral).to(self._device)
        self._average = GeneratorAverage(self._generator)
        self._optimizers = make_optimizers(self._generator, self._critic, preset)
        self._parts = parts_of(self._generator, self._critic, self._optimizers, self._average)

    def _build(self) -> None:
        config, preset = self._config, self._preset
        self._fixed = FixedLatents(grid_columns(self._images), latent_size=config.latent_size, seed=config.seed)
        self._parts["fixed"] = self._fixed
        self._step = CganStep(
            generator=self._generator,
            critic=self._critic,
            average=self._average,
            generator_optimizer=self._optimizers[0],
            critic_optimizer=self._optimizers[1],
            objective=make_objective(config.loss, penalty=preset.penalty),
            critic_steps=preset.critic_steps,
            part_size=config.batch_size if config.accumulation > 1 else None,
            precision=getattr(torch, config.precision),
        )

    def _guard(self, line: TrainingLine) -> Guard:
        config = self._config
        recorded = {k: v for k, v in asdict(config).items() if k not in NOT_OF_THE_RUN}
        recorded |= {
            "data": run_names.place(config.data),
            runs_beside.SKETCH: self._sketch,
            **self._spec.to_config(),
            "learning_rate": self._preset.learning_rate,
            "critic_steps": self._preset.critic_steps,
            "penalty": self._preset.penalty,
            "pixel_range": self._images.pixel_range,
            "deterministic": self._device.type == "cpu" if config.deterministic is None else config.deterministic,
        }
        return Guard(
            self._folder,
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
            backups=plan_of(config.backup_every, config.keep_backups, config.backup_dir, self._folder),
            say=line.say,
        )

    def _loader(self) -> DataLoader[Any]:
        return DataLoader(
            self._images,  # type: ignore[arg-type]  # a map-style data set, without importing torch for the name
            batch_size=self._config.batch_size * self._config.accumulation,
            shuffle=True,
            num_workers=self._config.workers,
            persistent_workers=self._config.workers > 0,
            pin_memory=self._device.type == "cuda",
            collate_fn=LabelledImages.collate,
        )

    def run(self) -> None:
        """Train to the last epoch.

        Raises:
            Stopped, NotSaved: see ``ganguard.errors``.
        """
        with early.preparing(frozenset()) as guarded:
            self._train(guarded)

    def _train(self, guarded: Callable[[], None]) -> None:
        loader, config = self._loader(), self._config
        with TrainingLine(len(self._images), config.epochs) as line:
            guard = self._guard(line)
            with failing.in_words(), guard, contextlib.closing(self._reports(guard, line)) as reports:
                guarded()
                self._tell_learning_rate(guard, line)
                for epoch in guard.epochs(config.epochs):
                    self._train_epoch(guard, loader, line, reports)
                    reports.epoch_ended(epoch)
        console.say(f"Finished: {console.counted(guard.epoch - 1, 'epoch')}; {where_newest(guard)}")

    def _reports(self, guard: Guard, line: TrainingLine) -> CganReports:
        return CganReports(
            guard,
            line,
            root=self._root,
            spec=self._spec,
            generator=self._average.module,
            critic=self._critic,
            fixed=self._fixed,
            fid=self._fid,
            sample_every=self._config.sample_every,
            fid_every=self._config.fid_every,
            epochs=self._config.epochs,
            device=self._device,
            images=self._images,
        )

    def _train_epoch(self, guard: Guard, loader: DataLoader[Any], line: TrainingLine, reports: CganReports) -> None:
        latest: dict[str, Tensor] = {}
        watch, seen_before = Stopwatch(), guard.images
        for images, labels in guard.batches(loader):
            self._set_learning_rates(guard.images)
            losses = self._step(images, labels, step=guard.step, images_seen=guard.images)
            guard.log(**losses)
            latest |= losses
            reports.step(guard.step + 1, losses)
            if line.advance(len(labels)):
                done = min(guard.images - (guard.epoch - 1) * len(self._images) + len(labels), len(self._images))
                line.show(epoch=guard.epoch, done=done, losses=latest, saved_s_ago=guard.seconds_since_save)
        if "learning_rate" in guard.means:
            return  # this tail runs again
        values = {"learning_rate": self._preset.learning_rate * self._decay(guard.images)}
        if seen := guard.images - seen_before:
            float(latest["loss_d"])  # waits for the device
            values["images_per_second"] = seen / watch.seconds
        guard.log(**values)

    def _decay(self, images_seen: int, *, settings: Mapping[str, Any] | None = None) -> float:
        """The factor of the learning rates, under these settings or others."""
        settings = settings or asdict(self._config)
        return linear_decay(
            images_seen=images_seen,
            images_an_epoch=len(self._images),
            epochs=settings["epochs"],
            decay_epochs=settings["decay_epochs"],
        )

    def _set_learning_rates(self, images_seen: int) -> None:
        rate = self._preset.learning_rate
        rates = (rate, rate * self._preset.critic_learning_rate_factor)
        scale_learning_rates(self._optimizers, rates, self._decay(images_seen))

    def _tell_learning_rate(self, guard: Guard, line: TrainingLine) -> None:
        """Say where another number of epochs moved the decay, and with it the rate at this position."""
        if not {"epochs", "decay_epochs"} <= set(self._before):
            return
        now, then = self._decay(guard.images), self._decay(guard.images, settings=self._before)
        if now != then:
            rate, config, before = self._preset.learning_rate, self._config, self._before
            line.say(
                f"The learning rate is {rate * now:.4g} now, it was {rate * then:.4g}: its decay ends with epoch "
                f"{config.epochs} and takes {console.counted(config.decay_epochs, 'epoch')}; before, it was to end "
                f"with epoch {before['epochs']} and to take {before['decay_epochs']}."
            )
