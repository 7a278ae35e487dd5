"""What a person sees of a conditional GAN's run: grids, curves, TensorBoard, scores. None of it fails the training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ganguard.data import LabelledImages
from ganguard.errors import SaveFailed
from ganguard.guard import Guard
from ganguard.metrics import Fid, Score
from ganguard.networks.cgan_spec import CganSpec
from ganguard.reports.curves import value_names
from ganguard.reports.grids import save_grid, save_once
from ganguard.reports.training_line import TrainingLine
from ganguard.store.durable import why
from ganguard.training.best import BestPair
from ganguard.training.cgan_samples import FixedLatents, make_images, real_images
from ganguard.training.run_reports import RunReports, own_run


class _BrokenOff(Exception):
    """A stop was asked for while the generator was scored."""


class CganReports:
    """Use within the guard, whose run and position it takes over.

    Args:
        root: everything is written below it.
        generator: the averaged one; samples and scores are its.
        fid: None where the run is not scored.
        sample_every, fid_every: epochs; the last one has both in any case. 0: never.
        images: that are trained on; some are shown beside the samples.
    """

    def __init__(
        self,
        guard: Guard,
        line: TrainingLine,
        *,
        root: Path,
        spec: CganSpec,
        generator: nn.Module,
        critic: nn.Module,
        fixed: FixedLatents,
        fid: Fid | None,
        sample_every: int,
        fid_every: int,
        epochs: int,
        device: torch.device,
        images: LabelledImages,
    ) -> None:
        self._guard, self._line, self._root = guard, line, root
        self._spec, self._generator, self._critic = spec, generator, critic
        self._fixed, self._fid, self._device = fixed, fid, device
        self._sample_every, self._fid_every, self._epochs = sample_every, fid_every, epochs
        logs = root / "logs" / f"cgan_{own_run(guard.run)}"
        self._shown = RunReports(guard, logs, say=line.say, encoding=line.encoding)
        self._told_no_turn = False
        self._best = BestPair(root / "models" / f"cgan_{guard.run}")
        for text in self._best.mend():
            line.say(text)
        if sample_every:
            self._show_real(images)

    def _show_real(self, images: LabelledImages) -> None:
        """Once a run, so that all its samples have one picture beside them."""
        fixed = self._fixed
        save_once(
            self._samples / "real.png",
            lambda: real_images(images, fixed.labels[: fixed.columns]),
            columns=fixed.columns,
            class_names=fixed.names(self._spec),
            say=self._line.say,
        )

    @property
    def _samples(self) -> Path:
        return self._root / "samples" / f"cgan_{self._guard.run}"

    def step(self, step: int, losses: Mapping[str, Tensor]) -> None:
        """Once a batch; ``step`` counts it."""
        self._shown.step(step, losses)

    def epoch_ended(self, epoch: int) -> None:
        """In an epoch's tail: samples and score where they are due, then curves."""
        row = self._shown.row(epoch)
        self._tell_no_turn(epoch, row)
        if self._due(epoch, self._fid_every) and self._fid is not None:
            score = self._score(self._fid, epoch)
            row |= {"fid": score.value, "about": score.about}
        if self._due(epoch, self._sample_every):
            self._sample(epoch)
        self._shown.epoch_ended(row, draw=epoch == self._epochs)
        shown = ", ".join(f"{name} {row[name]:.4g}" for name in value_names([row]))
        self._line.say(f"epoch {epoch}: {shown}")

    def close(self) -> None:
        """Draw what was not drawn yet, and the chart."""
        self._shown.close()

    def _tell_no_turn(self, epoch: int, row: Mapping[str, Any]) -> None:
        """Say once where an epoch has fewer batches than the critic has steps."""
        if "loss_d" in row and "loss_g" not in row and not self._told_no_turn:
            self._told_no_turn = True
            self._line.say(
                f"In epoch {epoch} the generator took no step: the critic takes more steps before one of the generator "
                "than an epoch has batches. Lower --critic-steps or --batch-size."
            )

    def _due(self, epoch: int, every: int) -> bool:
        return every > 0 and (epoch % every == 0 or epoch == self._epochs)

    def _sample(self, epoch: int) -> None:
        path = self._samples / f"epoch_{epoch:04d}.png"
        fixed = self._fixed
        images = make_images(self._generator, fixed.latents, fixed.labels, device=self._device)
        try:
            save_grid(images, path, columns=fixed.columns, class_names=fixed.names(self._spec))
        except OSError as error:
            self._line.say(f"The samples of epoch {epoch} were not written: {why(error)}. Training goes on.")
            return
        self._shown.samples(path)
        self._line.say(f"Samples in {path}")

    def _score(self, fid: Fid, epoch: int) -> Score:
        def sample(labels: Tensor, generator: torch.Generator) -> Tensor:
            latents = torch.randn(len(labels), self._spec.latent_size, generator=generator)
            return make_images(self._generator, latents, labels, device=self._device)

        try:
            score = fid.score(sample, between=self._break_off_if_stopping)
        except _BrokenOff:
            self._line.say(f"The FID of epoch {epoch} was broken off; it is measured when the run goes on.")
            self._guard.leave()
            raise
        if self._guard.score(fid=score.value, about=score.about):
            self._keep_best(epoch)
        return score

    def _break_off_if_stopping(self) -> None:
        if self._guard.stopping:
            raise _BrokenOff

    def _keep_best(self, epoch: int) -> None:
        step, score = self._guard.step, self._guard.best or {}
        try:
            told = self._best.write(self._generator, self._critic, spec=self._spec, epoch=epoch, step=step, score=score)
        except SaveFailed as error:
            told = [f"The best pair of epoch {epoch} was not written: {error}. Training goes on."]
        for text in told:
            self._line.say(text)
