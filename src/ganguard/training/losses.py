"""GAN losses: pure functions of critic scores of shape (B,), each returning a scalar to be minimized."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def hinge_critic_loss(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """E[max(0, 1 - D(x))] + E[max(0, 1 + D(G(z)))] (Lim and Ye 2017; Miyato et al. 2018, equation 16)."""
    return functional.relu(1 - real_scores).mean() + functional.relu(1 + fake_scores).mean()


def hinge_generator_loss(fake_scores: Tensor) -> Tensor:
    """-E[D(G(z))] (Miyato et al. 2018, equation 17)."""
    return -fake_scores.mean()
