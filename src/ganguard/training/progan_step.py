"""One training step of the progressive GAN, worked through in as many pieces as the memory asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam

from ganguard.errors import UsageError
from ganguard.networks.ema import GeneratorAverage
from ganguard.networks.equalized import halved, upsampled
from ganguard.networks.progressive import ProgressiveCritic, ProgressiveGenerator
from ganguard.store import plain
from ganguard.training.cgan_step import generator_turn, unit_images
from ganguard.training.losses import drift, gradient_penalty, wasserstein_critic_loss, wasserstein_generator_loss
from ganguard.training.progan_config import SIZES
from ganguard.training.progan_schedule import Phase, Schedule, Stage

BETAS = (0.0, 0.99)
HALF_LIFE_IMAGES = 11_000  # of the generator's average: 0.999 an iteration at a batch of 16


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Of the terms of the critic's loss (Karras et al. 2018, appendix A.1)."""

    penalty: float = 10.0
    drift: float = 0.001


def make_optimizers(
    generator: ProgressiveGenerator, critic: ProgressiveCritic, *, learning_rate: float
) -> tuple[Adam, Adam]:
    """Adam as in the paper for both. Layers that are not in use get no gradients, and so keep no moments."""
    return (
        Adam(generator.parameters(), learning_rate, betas=BETAS, eps=1e-8),
        Adam(critic.parameters(), learning_rate, betas=BETAS, eps=1e-8),
    )


_IS_PHASE = plain.all_of(
    plain.having(*(item.name for item in fields(Phase))),
    plain.record(**{item.name: plain.is_count for item in fields(Phase)}),
    lambda phase: phase["level"] < len(SIZES),
)
_IS_GROWTH = plain.record(begun=plain.list_of(_IS_PHASE), fitting=plain.or_none(lambda n: plain.is_count(n) and n > 0))


class Growth:
    """Which levels have begun: a part for the guard, so that what happens once at a growth happens once in a run.

    A level begins with Adam's moments reset; the first one with those there are: none, or those of an older file. Its
    phase is kept as it was then, and how many images fitted into the memory at once, where that turned out to be fewer
    than asked for.
    """

    def __init__(self) -> None:
        self.begun: list[Phase] = []
        self.fitting: int | None = None  # at the level under way; None: as many as asked for

    def enter(self, phase: Phase, *optimizers: torch.optim.Optimizer) -> bool:
        """Begin the level of ``phase`` unless it has begun; returns whether it did so now."""
        if self.begun and self.begun[-1].level >= phase.level:
            return False
        if self.begun:
            for optimizer in optimizers:
                optimizer.state.clear()
        self.begun.append(phase)
        self.fitting = None
        return True

    def adjust(self, schedule: Schedule) -> None:
        """Take over the phases of what has begun: the length of the level under way may have been edited."""
        self.begun = [phase for phase in schedule.phases if phase.level in {p.level for p in self.begun}]

    def state_dict(self) -> dict[str, Any]:
        return {"begun": [asdict(phase) for phase in self.begun], "fitting": self.fitting}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if not _IS_GROWTH(state):
            raise ValueError("what has begun is told in levels and images")
        self.begun = [Phase(**phase) for phase in state["begun"]]
        self.fitting = state["fitting"]


def faded(reals: Tensor, alpha: float) -> Tensor:
    """Reals (B, C, S, S) blended with themselves at half the size, as the networks blend their levels."""
    return torch.lerp(upsampled(halved(reals)), reals, alpha) if alpha < 1 else reals


def out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on whichever device."""
    told = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError)
        and any(sign in told for sign in ("not enough memory", "can't allocate memory", "out of memory"))
    )


class ProgressiveStep:
    """Trains the critic on every batch, the generator on every ``critic_steps``-th, and moves the average.

    A batch is one step of the optimizer. It is worked through in pieces of ``piece`` images at most, whose gradients
    are summed, weighted by their sizes. Where one does not fit into the memory, ``piece`` is halved and the same
    update is made again, with the same latents: nothing is lost and nothing is trained twice. Random numbers come
    from torch's global stream of the networks' device, the same ones whatever the pieces. Nothing waits for the
    device.

    Args:
        fewer: told the new size of a piece where it had to be halved.
    """

    def __init__(
        self,
        *,
        generator: ProgressiveGenerator,
        critic: ProgressiveCritic,
        average: GeneratorAverage,
        generator_optimizer: torch.optim.Optimizer,
        critic_optimizer: torch.optim.Optimizer,
        weights: Weights,
        critic_steps: int,
        piece: int,
        fewer: Callable[[int], None],
    ) -> None:
        self.generator = generator
        self.critic = critic
        self.average = average
        self.generator_optimizer = generator_optimizer
        self.critic_optimizer = critic_optimizer
        self.weights = weights
        self.critic_steps = critic_steps
        self.piece = piece
        self._fewer = fewer

    def __call__(self, images: Tensor, stage: Stage, *, step: int, images_seen: int) -> dict[str, Tensor]:
        """Train on images (B, C, S, S) uint8 of the stage's level; they may be on another device.

        ``step`` and ``images_seen`` count the whole run's batches and images before this one. Returns scalar
        losses, detached: ``loss_d`` always, ``loss_g`` when the generator had its turn.
        """
        device = self.generator.base.weight.device
        reals = faded(unit_images(images.to(device, non_blocking=True)), stage.alpha)
        losses = {"loss_d": self._train_critic(reals, stage)}
        if generator_turn(step, self.critic_steps):
            losses["loss_g"] = self._train_generator(len(reals), stage)
        self.average.update(self.generator, images_seen=images_seen, batch_size=len(reals))
        return losses

    def _latents(self, count: int) -> Tensor:
        return torch.randn(count, self.generator.latent_size, device=self.generator.base.weight.device)

    def _train_critic(self, reals: Tensor, stage: Stage) -> Tensor:
        latents = self._latents(len(reals))
        mix = torch.rand(len(reals), 1, 1, 1, device=reals.device)
        return self._update(
            self.critic_optimizer,
            len(reals),
            lambda part: self.critic_loss(reals[part], latents[part], mix[part], stage),
        )

    def _train_generator(self, count: int, stage: Stage) -> Tensor:
        latents = self._latents(count)
        self.critic.requires_grad_(False)  # its gradients would be computed for nothing
        try:
            return self._update(self.generator_optimizer, count, lambda part: self.generator_loss(latents[part], stage))
        finally:
            self.critic.requires_grad_(True)

    def critic_loss(self, reals: Tensor, latents: Tensor, mix: Tensor, stage: Stage) -> Tensor:
        """WGAN-GP with drift, of as many reals as latents (B, Z) and mixing weights (B, 1, 1, 1)."""
        with torch.no_grad():
            fakes = self.generator(latents, level=stage.level, alpha=stage.alpha)

        def scores_of(images: Tensor) -> Tensor:
            scores: Tensor = self.critic(images, level=stage.level, alpha=stage.alpha)
            return scores

        real_scores = scores_of(reals)
        loss = wasserstein_critic_loss(real_scores, scores_of(fakes)) + self.weights.drift * drift(real_scores)
        with torch.autocast(reals.device.type, enabled=False):  # squared gradients leave the range of half precision
            penalty = gradient_penalty(scores_of, reals.float(), fakes.float(), mix.float())
        return loss + self.weights.penalty * penalty

    def generator_loss(self, latents: Tensor, stage: Stage) -> Tensor:
        """-E[D(G(z))] of latents (B, Z)."""
        fakes = self.generator(latents, level=stage.level, alpha=stage.alpha)
        return wasserstein_generator_loss(self.critic(fakes, level=stage.level, alpha=stage.alpha))

    def _update(self, optimizer: torch.optim.Optimizer, count: int, loss_of: Callable[[slice], Tensor]) -> Tensor:
        """One step of the optimizer on ``count`` images; returns their mean loss."""
        while (loss := self._gradients(optimizer, count, loss_of)) is None:
            self.piece = max(1, min(self.piece, count) // 2)
            release_memory(self.generator.base.weight.device)
            self._fewer(self.piece)
        optimizer.step()
        return loss

    def _gradients(
        self, optimizer: torch.optim.Optimizer, count: int, loss_of: Callable[[slice], Tensor]
    ) -> Tensor | None:
        """The gradients of ``count`` images, a piece at a time, and their mean loss; None: it takes too much memory.

        Raises:
            UsageError: a piece of one image does.
        """
        optimizer.zero_grad(set_to_none=True)
        losses = []
        try:
            for part in pieces(count, self.piece):
                loss = loss_of(part) * ((part.stop - part.start) / count)
                torch.autograd.backward(loss)
                losses.append(loss.detach())
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if min(self.piece, count) == 1:
                raise UsageError(
                    "Out of memory: not even one image fits at this size. What was saved last stays. Close what else "
                    "uses the memory and type the same command, or end at a smaller size with fewer "
                    "--progressive-epochs."
                ) from error
            return None
        return torch.stack(losses).sum()


def pieces(count: int, size: int) -> Iterator[slice]:
    """``count`` images in slices of ``size`` at most."""
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def release_memory(device: torch.device) -> None:
    """Give back what the allocator holds, so that a smaller piece finds it in one block."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
