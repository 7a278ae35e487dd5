"""The training of the progressive GAN: a loop like anybody's, under the public guard."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ganguard import restoring
from ganguard.clock import Stopwatch
from ganguard.data import Pyramid, open_pyramid
from ganguard.data.sketch import Sketch
from ganguard.data.sources import Listing, Source
from ganguard.guard import Guard
from ganguard.networks.ema import GeneratorAverage
from ganguard.networks.progressive import ProgressiveCritic, ProgressiveGenerator, size_of
from ganguard.protection import early
from ganguard.reports import console
from ganguard.reports.grids import save_once
from ganguard.reports.training_line import TrainingLine
from ganguard.session import ON_USR1
from ganguard.store import durable
from ganguard.store.durable import why
from ganguard.store.resume import Request
from ganguard.store.scheduled import plan_of
from ganguard.store.shelf import Shelf
from ganguard.training import failing, progan_start, run_names, runs_beside
from ganguard.training.before import range_to_use, settings_before, sketch_to_record
from ganguard.training.devices import choose_device
from ganguard.training.parts import parts_of
from ganguard.training.progan_config import NOT_OF_THE_RUN, STRUCTURAL, ProganConfig
from ganguard.training.progan_samples import FixedLatents, grid_shape, real_images, save_samples
from ganguard.training.progan_schedule import Phase, Schedule, Stage, frozen, in_epochs, in_images
from ganguard.training.progan_step import HALF_LIFE_IMAGES, Growth, ProgressiveStep, Weights, make_optimizers
from ganguard.training.progan_trial import Trials
from ganguard.training.run_reports import RunReports, own_run, where_newest


def schedule_of(config: ProganConfig, growth: Growth, *, images: int, seen: int) -> Schedule:
    """The schedule from here on: what has begun as it was, the rest as the settings say now.

    Args:
        growth: what has begun.
        images: in an epoch.
        seen: so far.
    """
    start = growth.begun[0] if growth.begun else None
    first = start.level if start else config.first_level
    begins = start.fades_from if start else seen
    if config.stabilize_kimg is None:
        epochs = config.progressive_epochs[: config.levels]
        asked = in_epochs(epochs, images=images, first_level=first, begins=begins)
    else:
        fade = config.stabilize_kimg if config.fade_kimg is None else config.fade_kimg
        asked = in_images(
            levels=config.levels,
            stabilize=round(1000 * config.stabilize_kimg),
            fade=round(1000 * fade),
            first_level=first,
            begins=begins,
        )
    return frozen(asked, growth.begun, seen)


def _open_data(config: ProganConfig, say: Callable[[str], None], listed: Callable[[Source, Listing], None]) -> Pyramid:
    return open_pyramid(
        config.data_dir,
        largest=config.image_size,  # the same as long as the run lives: smaller sizes are means of it
        channels=config.channels_img,
        cache_dir=Path(config.cache_dir),
        cache_limit=config.cache_bytes,
        limit=config.limit_images,
        flip=config.flip,
        pixel_range=config.pixel_range,
        max_pixels=config.max_pixels,
        say=say,
        listed=listed,
    )


class ProganTraining:
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
        config: ProganConfig,
        request: Request,
        say: Callable[[str], None],
        check: Callable[[Sketch], None] | None = None,
    ) -> None:
        shelf = Shelf(Path(config.weights_dir), config.layout)
        self._config = config
        before = settings_before(shelf, request, self._settings, {*STRUCTURAL, "network"})
        self._config = config = replace(config, pixel_range=range_to_use(config.pixel_range, before))
        self._request = request
        self._say = say
        self._speed = 0.0  # images a second in the latest epoch
        self._check = check
        self._saving_signals = ON_USR1[config.on_usr1]
        with early.preparing(self._saving_signals):
            self._device = choose_device(config.device, say)
            self._build()
            restoring.require_older_fits(shelf, request, self._parts)
            self._pyramid = _open_data(config, say, self._listed)

    def _listed(self, source: Source, listing: Listing) -> None:
        self._sketch = sketch_to_record(source, listing, self._check)

    def _build(self) -> None:
        config = self._config
        torch.manual_seed(config.seed)
        shape = {"image_size": config.image_size, "channels": config.channels_img, "width": config.in_channels}
        self._generator = ProgressiveGenerator(**shape, latent_size=config.z_dim).to(self._device)
        self._critic = ProgressiveCritic(**shape).to(self._device)
        self._average = GeneratorAverage(self._generator, half_life_images=HALF_LIFE_IMAGES)
        self._optimizers = make_optimizers(self._generator, self._critic, learning_rate=config.learning_rate)
        self._fixed = FixedLatents(latent_size=config.z_dim, seed=config.seed)
        self._growth = Growth()
        self._step = ProgressiveStep(
            generator=self._generator,
            critic=self._critic,
            average=self._average,
            generator_optimizer=self._optimizers[0],
            critic_optimizer=self._optimizers[1],
            weights=Weights(penalty=config.lambda_gp),
            critic_steps=config.critic_iterations,
            piece=1,
            fewer=self._fewer,
        )
        self._parts = parts_of(self._generator, self._critic, self._optimizers, self._average)
        self._parts |= {"fixed": self._fixed, "growth": self._growth}

    @property
    def _settings(self) -> dict[str, Any]:
        """What a checkpoint holds of the settings, known before the images are."""
        config = self._config
        recorded = {k: v for k, v in asdict(config).items() if k not in NOT_OF_THE_RUN}
        return recorded | {"network": "progan", "img_size": config.image_size, "data": run_names.place(config.data_dir)}

    @property
    def _recorded(self) -> dict[str, Any]:
        """The settings that a checkpoint holds."""
        return self._settings | {"pixel_range": self._pyramid.pixel_range, runs_beside.SKETCH: self._sketch}

    @property
    def _may_change(self) -> set[str]:
        return {*self._settings, runs_beside.SKETCH} - {*STRUCTURAL, "network"}

    def _guard(self) -> Guard:
        config = self._config
        return Guard(
            config.weights_dir,
            self._parts,
            config=self._recorded,
            may_change=self._may_change,
            seed=config.seed,
            layout=config.layout,
            save_every_epochs=int(config.save_model),
            save_every_batches=config.auto_save_every_n_batches if config.save_model else 0,
            save_every_minutes=config.autosave_minutes if config.save_model else None,
            backups=plan_of(config.backup_every, config.keep_backups, config.backup_dir, Path(config.weights_dir)),
            on_usr1="save" if config.on_usr1 == "save" else "stop",
            resume=self._request,
            journal=Path(config.logs_dir) / f"progan_{config.layout.name}_{{run}}" / "journal.jsonl",
            threads=config.threads,
            deterministic=config.deterministic,
            say=lambda text: self._say(text),
        )

    def run(self) -> None:
        """Train to the end of the last level.

        Raises:
            Stopped, NotSaved: see ``ganguard.errors``.
        """
        with early.preparing(self._saving_signals) as guarded:
            self._train(guarded)

    def _train(self, guarded: Callable[[], None]) -> None:
        plain, images = self._say, len(self._pyramid)
        with failing.in_words(), self._guard() as guard:
            guarded()
            schedule = schedule_of(self._config, self._growth, images=images, seen=guard.images)
            self._growth.adjust(schedule)
            for text in progan_start.sizes_left_out(self._config):
                plain(text)
            if guard.images >= schedule.total:
                plain(f"The training is finished, up to {size_of(schedule.last_level)} px; nothing is left to do.")
                return
            self._pieces = self._config.pieces
            self._tell(schedule, guard.images)
            with contextlib.closing(self._reports(guard)) as self._shown:
                while guard.images < schedule.total:
                    phase = schedule.phase(guard.images)
                    last = guard.epoch - 1 + phase.passes_left(guard.images, images)
                    with TrainingLine(images, last) as line:
                        self._say = line.say
                        self._train_level(guard, schedule, phase, last, line)
                    self._say = plain
        console.say(f"Finished: {size_of(schedule.last_level)} px; {where_newest(guard)}")

    def _reports(self, guard: Guard) -> RunReports:
        logs = Path(self._config.logs_dir) / f"progan_{self._config.layout.name}_{own_run(guard.run)}"
        return RunReports(guard, logs, say=lambda text: self._say(text))

    def _tell(self, schedule: Schedule, seen: int) -> None:
        """What is to come; levels are tried and measured for that."""
        levels = [p.level for p in schedule.phases if p.ends > seen]
        trials = Trials(self._step, levels, self._pieces)
        trials.run(self._say)
        for level, fitting in trials.fitting.items():
            self._pieces[level] = max(1, fitting)
        pairs = {p.level: progan_start.pair_bytes(self._generator, self._critic, p.level) for p in schedule.phases}
        weights = Path(self._config.weights_dir)
        copies = not durable.read_only_protects(weights, "trial")
        lines = progan_start.table(
            schedule,
            images=len(self._pyramid),
            batch_sizes=self._config.pieces,
            accumulation=self._config.gradient_accumulation_steps,
            seconds=trials.seconds,
            pairs=pairs,
            kept=progan_start.largest_in_all(schedule, pairs, aliases_are_copies=copies),
            free=durable.free_bytes(weights),
            seen=seen,
        )
        for line in lines:
            self._say(line)

    def _train_level(self, guard: Guard, schedule: Schedule, phase: Phase, last: int, line: TrainingLine) -> None:
        """What is left of a level: passes through the images, up to epoch ``last``."""
        begins = self._growth.enter(phase, *self._optimizers)
        verb = "begins" if begins else "goes on"
        line.say(f"{size_of(phase.level)} px {verb}: epochs {guard.epoch} to {last}.")
        fitting = self._growth.fitting
        self._step.piece = min(self._pieces[phase.level], fitting or self._pieces[phase.level])
        self._show_real(guard, size_of(phase.level), line)
        loader = self._loader(phase.level)
        for epoch in guard.epochs(last):
            self._train_epoch(guard, schedule, phase, loader, line)
            level_ends = guard.images >= phase.ends
            if level_ends:
                guard.save(milestone=True)
            self._sample(guard, phase, epoch, line, level_ends=level_ends)
            self._shown.epoch_ended(self._shown.row(epoch), draw=level_ends)

    def _train_epoch(
        self, guard: Guard, schedule: Schedule, phase: Phase, loader: DataLoader[Any], line: TrainingLine
    ) -> None:
        latest: dict[str, Tensor] = {}
        count = len(self._pyramid)
        watch, seen_before = Stopwatch(), guard.images
        for batch in guard.batches(loader):
            stage = Stage(phase.level, phase.alpha(guard.images))
            losses = self._step(batch, stage, step=guard.step, images_seen=guard.images)
            guard.log(**losses)
            latest |= losses
            self._shown.step(guard.step + 1, losses)
            if line.advance(len(batch)):
                done = (guard.images - phase.fades_from) % count + len(batch)
                line.show(epoch=guard.epoch, done=done, losses=latest, saved_s_ago=guard.seconds_since_save)
            seen = guard.images + len(batch)
            if seen >= schedule.total or schedule.phase(seen) is not phase:
                break  # a level that is counted in images ends within a pass
        if latest:
            float(latest["loss_d"])  # waits for the device
            self._speed = (guard.images - seen_before) / watch.seconds
            guard.log(images_per_second=self._speed, image_size=size_of(phase.level))

    def _loader(self, level: int) -> DataLoader[Any]:
        config, images = self._config, self._pyramid.level(size_of(level))
        return DataLoader(
            images,  # type: ignore[arg-type]  # a map-style data set, without importing torch for the name
            batch_size=config.pieces[level] * config.gradient_accumulation_steps,
            shuffle=True,
            num_workers=config.workers,
            persistent_workers=config.workers > 0,
            pin_memory=self._device.type == "cuda",
            collate_fn=images.collate,
        )

    def _fewer(self, piece: int) -> None:
        self._growth.fitting = piece
        self._say(
            f"Out of memory: from now on {console.counted(piece, 'image')} at once, and more of them to a step. "
            "Nothing is lost; the step is made again."
        )

    def _samples(self, guard: Guard) -> Path:
        return Path(self._config.output_dir) / f"progan_{self._config.layout.name}_{guard.run}"

    def _show_real(self, guard: Guard, size: int, line: TrainingLine) -> None:
        """Once a run and size, so that all its samples have one picture beside them."""
        path = self._samples(guard) / f"real_{size:04d}px.png"
        columns, _ = grid_shape(size)
        save_once(path, lambda: real_images(self._pyramid.level(size), size), columns=columns, say=line.say)

    def _sample(self, guard: Guard, phase: Phase, epoch: int, line: TrainingLine, *, level_ends: bool) -> None:
        every = self._config.sample_every
        if not level_ends and (not every or epoch % every):
            return
        path = self._samples(guard) / f"epoch_{epoch:04d}_{size_of(phase.level):04d}px.png"
        stage = Stage(phase.level, phase.alpha(guard.images))
        try:
            save_samples(self._average.module, self._fixed, stage, path, piece=self._step.piece)
        except OSError as error:
            line.say(f"The samples of epoch {epoch} were not written: {why(error)}. Training goes on.")
            return
        self._shown.samples(path)
        line.say(f"epoch {epoch}: alpha {stage.alpha:.2f}, {self._speed:.0f} images/s, samples in {path}")
