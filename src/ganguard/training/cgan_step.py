"""One training step of the conditional GAN."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim import Adam

from ganguard.networks.cgan import ConditionalGenerator, ProjectionCritic
from ganguard.networks.ema import GeneratorAverage
from ganguard.networks.presets import LossPreset
from ganguard.training.objectives import Objective


def unit_images(images: Tensor) -> Tensor:
    """uint8 images of any shape, 0 to 255, as float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


def to_label_vectors(labels: Tensor, count: int) -> Tensor:
    """Class numbers (B,) one-hot, or attributes (B, count) of 0 and 1 as they are: float (B, count)."""
    if labels.ndim == 2:
        return labels.float()
    return (labels[:, None] == torch.arange(count, device=labels.device)).float()


def generator_turn(step: int, critic_steps: int) -> bool:
    """Whether the batch after ``step`` finished ones trains the generator: every ``critic_steps``-th does."""
    return (step + 1) % critic_steps == 0


def make_optimizers(generator: nn.Module, critic: nn.Module, preset: LossPreset) -> tuple[Adam, Adam]:
    """Adam for the generator, and for the critic at its multiple of the learning rate."""
    rate = preset.learning_rate
    return (
        Adam(generator.parameters(), rate, betas=preset.betas),
        Adam(critic.parameters(), rate * preset.critic_learning_rate_factor, betas=preset.betas),
    )


def scale_learning_rates(optimizers: Sequence[torch.optim.Optimizer], rates: Sequence[float], factor: float) -> None:
    """Set each optimizer's learning rate to ``factor`` times its own of ``rates``."""
    for optimizer, rate in zip(optimizers, rates, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate * factor


class CganStep:
    """Trains the critic on every batch, the generator on every ``critic_steps``-th, and moves the average.

    Latents come from torch's global random stream of the networks' device and labels from the batch, so that
    asked-for labels are distributed as in the data. Nothing waits for the device.

    Args:
        objective: what the networks minimize.
        critic_steps: batches for the critic per batch for the generator.
        part_size: a batch is worked through in parts of so many images (gradient accumulation), so that a large batch
            needs the memory of a part; None: at once.
        precision: of forward passes; losses, penalties and weights are float32 in any case.
    """

    def __init__(
        self,
        *,
        generator: ConditionalGenerator,
        critic: ProjectionCritic,
        average: GeneratorAverage,
        generator_optimizer: torch.optim.Optimizer,
        critic_optimizer: torch.optim.Optimizer,
        objective: Objective,
        critic_steps: int = 1,
        part_size: int | None = None,
        precision: torch.dtype = torch.float32,
    ) -> None:
        self.generator = generator
        self.critic = critic
        self.average = average
        self.generator_optimizer = generator_optimizer
        self.critic_optimizer = critic_optimizer
        self.objective = objective
        self.critic_steps = critic_steps
        self.part_size = part_size
        self.precision = precision
        self.device = generator.to_image.weight.device

    def __call__(self, images: Tensor, labels: Tensor, *, step: int, images_seen: int) -> dict[str, Tensor]:
        """Train on images (B, C, S, S) uint8 with class numbers (B,) or attributes (B, A); either may be elsewhere.

        ``step`` and ``images_seen`` count the whole run's batches and images before this one. Returns scalar
        losses, detached: ``loss_d`` always, ``loss_g`` when the generator had its turn.
        """
        reals = unit_images(images.to(self.device, non_blocking=True))
        vectors = to_label_vectors(labels.to(self.device, non_blocking=True), self.generator.labels)
        size = self.part_size or len(reals)
        parts = list(zip(torch.split(reals, size), torch.split(vectors, size), strict=True))
        losses = self._train_critic(parts, len(reals))
        if generator_turn(step, self.critic_steps):
            losses["loss_g"] = self._train_generator(parts, len(reals))
        self.average.update(self.generator, images_seen=images_seen, batch_size=len(reals))
        return losses

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32)

    def _fakes(self, label_vectors: Tensor) -> Tensor:
        latents = torch.randn(len(label_vectors), self.generator.latent_size, device=self.device)
        fakes: Tensor = self.generator(latents, label_vectors).float()
        return fakes

    def _train_critic(self, parts: Sequence[tuple[Tensor, Tensor]], count: int) -> dict[str, Tensor]:
        self.critic_optimizer.zero_grad(set_to_none=True)
        totals: dict[str, Tensor] = {}
        for reals, vectors in parts:
            with self._autocast():
                with torch.no_grad():
                    fakes = self._fakes(vectors)
                losses = self.objective.critic_losses(self.critic, reals, fakes, vectors)
            share = len(reals) / count
            torch.autograd.backward(losses["loss_d"] * share)
            for name, loss in losses.items():
                totals[name] = totals.get(name, 0) + loss.detach() * share
        self.critic_optimizer.step()
        return totals

    def _train_generator(self, parts: Sequence[tuple[Tensor, Tensor]], count: int) -> Tensor:
        self.critic.requires_grad_(False)  # its gradients would be computed for nothing
        self.generator_optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        for reals, vectors in parts:
            with self._autocast():
                loss = self.objective.generator_loss(self.critic, reals, self._fakes(vectors), vectors)
            share = len(reals) / count
            torch.autograd.backward(loss * share)
            total += loss.detach() * share
        self.generator_optimizer.step()
        self.critic.requires_grad_(True)
        return total
