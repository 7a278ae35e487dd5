"""What each network minimizes under each loss, for one batch of reals, fakes and label vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from ganguard.training import losses

Critic: TypeAlias = Callable[[Tensor, Tensor], Tensor]


class Objective(Protocol):
    """Images are (B, C, S, S) in [-1, 1], fakes of the same labels row by row, label vectors (B, labels)."""

    def critic_losses(self, critic: Critic, reals: Tensor, fakes: Tensor, label_vectors: Tensor) -> dict[str, Tensor]:
        """The critic's loss ``loss_d``, and parts of it that are worth a curve. Fakes carry no gradient."""
        ...

    def generator_loss(self, critic: Critic, reals: Tensor, fakes: Tensor, label_vectors: Tensor, /) -> Tensor:
        """The generator's loss."""
        ...


class Hinge:
    """For a spectrally normalized critic (Miyato et al. 2018)."""

    def critic_losses(self, critic: Critic, reals: Tensor, fakes: Tensor, label_vectors: Tensor) -> dict[str, Tensor]:
        return {"loss_d": losses.hinge_critic_loss(*_scores_of_both(critic, reals, fakes, label_vectors))}

    def generator_loss(self, critic: Critic, _reals: Tensor, fakes: Tensor, label_vectors: Tensor) -> Tensor:
        return losses.hinge_generator_loss(critic(fakes, label_vectors).float())


class WassersteinPenalty:
    """WGAN-GP (Gulrajani et al. 2017). ``weight`` is lambda."""

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def critic_losses(self, critic: Critic, reals: Tensor, fakes: Tensor, label_vectors: Tensor) -> dict[str, Tensor]:
        mix = torch.rand(len(reals), 1, 1, 1, device=reals.device)
        loss = losses.wasserstein_critic_loss(*_scores_of_both(critic, reals, fakes, label_vectors))
        with _in_float32(reals):
            penalty = losses.gradient_penalty(lambda images: critic(images, label_vectors), reals, fakes, mix)
        return {"loss_d": loss + self.weight * penalty, "penalty": penalty}

    def generator_loss(self, critic: Critic, _reals: Tensor, fakes: Tensor, label_vectors: Tensor) -> Tensor:
        return losses.wasserstein_generator_loss(critic(fakes, label_vectors).float())


class RelativisticPenalty:
    """The relativistic pairing loss with R1 and R2 (R3GAN, Huang et al. 2024). ``weight`` is gamma."""

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def critic_losses(self, critic: Critic, reals: Tensor, fakes: Tensor, label_vectors: Tensor) -> dict[str, Tensor]:
        images = torch.cat([reals, fakes]).requires_grad_(True)
        with _in_float32(reals):
            scores = critic(images, torch.cat([label_vectors, label_vectors]))
            # Twice the mean over both halves: R1 + R2.
            penalty = 2 * losses.zero_centred_penalty(scores, images)
        loss = losses.relativistic_critic_loss(*scores.chunk(2))
        return {"loss_d": loss + self.weight / 2 * penalty, "penalty": penalty}

    def generator_loss(self, critic: Critic, reals: Tensor, fakes: Tensor, label_vectors: Tensor) -> Tensor:
        with torch.no_grad():
            real_scores = critic(reals, label_vectors).float()
        return losses.relativistic_generator_loss(real_scores, critic(fakes, label_vectors).float())


def make_objective(loss: str, *, penalty: float) -> Objective:
    """The objective of a name in ``LOSS_PRESETS``; ``penalty`` is the weight of its penalty, if it has one."""
    if loss == "wgan-gp":
        return WassersteinPenalty(penalty)
    return RelativisticPenalty(penalty) if loss == "relativistic" else Hinge()


def _scores_of_both(critic: Critic, reals: Tensor, fakes: Tensor, label_vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Scores (B,) of reals and of fakes, from one pass."""
    scores = critic(torch.cat([reals, fakes]), torch.cat([label_vectors, label_vectors])).float()
    real_scores, fake_scores = scores.chunk(2)
    return real_scores, fake_scores


def _in_float32(images: Tensor) -> torch.autocast:
    return torch.autocast(images.device.type, enabled=False)
