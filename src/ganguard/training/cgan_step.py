"""One training step of the conditional GAN."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim import Adam

from ganguard.networks.cgan import ConditionalGenerator, ProjectionCritic
from ganguard.networks.ema import GeneratorAverage
from ganguard.networks.presets import CGAN_DEFAULTS
from ganguard.training.losses import hinge_critic_loss, hinge_generator_loss


def unit_images(images: Tensor) -> Tensor:
    """uint8 images of any shape, 0 to 255, as float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


def one_hot(labels: Tensor, count: int) -> Tensor:
    """Class numbers (B,) int64 as float label vectors (B, count)."""
    return (labels[:, None] == torch.arange(count, device=labels.device)).float()


def generator_turn(step: int, critic_steps: int) -> bool:
    """Whether the batch after ``step`` finished ones trains the generator: every ``critic_steps``-th does."""
    return (step + 1) % critic_steps == 0


def make_optimizers(
    generator: nn.Module, critic: nn.Module, *, learning_rate: float = CGAN_DEFAULTS.learning_rate
) -> tuple[Adam, Adam]:
    """Adam for the generator at ``learning_rate``, and for the critic at its multiple of that."""
    betas = CGAN_DEFAULTS.betas
    return (
        Adam(generator.parameters(), learning_rate, betas=betas),
        Adam(critic.parameters(), learning_rate * CGAN_DEFAULTS.critic_learning_rate_factor, betas=betas),
    )


class CganStep:
    """Trains the critic on every batch, the generator on every ``critic_steps``-th, and moves the average.

    Latents come from torch's global random stream of the networks' device and labels from the batch, so that
    asked-for labels are distributed as in the data. Nothing waits for the device.
    """

    def __init__(
        self,
        *,
        generator: ConditionalGenerator,
        critic: ProjectionCritic,
        average: GeneratorAverage,
        generator_optimizer: torch.optim.Optimizer,
        critic_optimizer: torch.optim.Optimizer,
        critic_steps: int = CGAN_DEFAULTS.critic_steps,
    ) -> None:
        self.generator = generator
        self.critic = critic
        self.average = average
        self.generator_optimizer = generator_optimizer
        self.critic_optimizer = critic_optimizer
        self.critic_steps = critic_steps

    def __call__(self, images: Tensor, labels: Tensor, *, step: int, images_seen: int) -> dict[str, Tensor]:
        """Train on images (B, C, S, S) uint8 with class numbers (B,) int64; either may be on another device.

        ``step`` and ``images_seen`` count the whole run's batches and images before this one. Returns scalar
        losses, detached: ``loss_d`` always, ``loss_g`` when the generator had its turn.
        """
        device = self.generator.to_image.weight.device
        reals = unit_images(images.to(device, non_blocking=True))
        label_vectors = one_hot(labels.to(device, non_blocking=True), self.generator.labels)
        losses = {"loss_d": self._train_critic(reals, label_vectors)}
        if generator_turn(step, self.critic_steps):
            losses["loss_g"] = self._train_generator(label_vectors)
        self.average.update(self.generator, images_seen=images_seen, batch_size=len(labels))
        return losses

    def _fakes(self, label_vectors: Tensor) -> Tensor:
        latents = torch.randn(len(label_vectors), self.generator.latent_size, device=label_vectors.device)
        fakes: Tensor = self.generator(latents, label_vectors)
        return fakes

    def _train_critic(self, reals: Tensor, label_vectors: Tensor) -> Tensor:
        with torch.no_grad():
            fakes = self._fakes(label_vectors)
        scores = self.critic(torch.cat([reals, fakes]), torch.cat([label_vectors, label_vectors]))
        loss = hinge_critic_loss(*scores.chunk(2))
        self.critic_optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.critic_optimizer.step()
        return loss.detach()

    def _train_generator(self, label_vectors: Tensor) -> Tensor:
        self.critic.requires_grad_(False)  # its gradients would be computed for nothing
        loss = hinge_generator_loss(self.critic(self._fakes(label_vectors), label_vectors))
        self.critic.requires_grad_(True)
        self.generator_optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.generator_optimizer.step()
        return loss.detach()
