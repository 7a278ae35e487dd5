"""GAN losses: pure functions of critic scores of shape (B,), each returning a scalar to be minimized.

Penalties differentiate the critic with respect to its images and keep the graph, so that they can be minimized too.
They belong in float32: squared gradients leave the range of half precision.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

_EPSILON = 1e-12  # under the square root, whose derivative at 0 is infinite


def hinge_critic_loss(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """E[max(0, 1 - D(x))] + E[max(0, 1 + D(G(z)))] (Lim and Ye 2017; Miyato et al. 2018, equation 16)."""
    return functional.relu(1 - real_scores).mean() + functional.relu(1 + fake_scores).mean()


def hinge_generator_loss(fake_scores: Tensor) -> Tensor:
    """-E[D(G(z))] (Miyato et al. 2018, equation 17)."""
    return -fake_scores.mean()


def wasserstein_critic_loss(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """E[D(G(z))] - E[D(x)] (Arjovsky et al. 2017, equation 3, negated)."""
    return fake_scores.mean() - real_scores.mean()


def wasserstein_generator_loss(fake_scores: Tensor) -> Tensor:
    """-E[D(G(z))] (Arjovsky et al. 2017, algorithm 1)."""
    return -fake_scores.mean()


def relativistic_critic_loss(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """E[log(1 + exp(D(G(z)) - D(x)))] over pairs of a real and a fake (Huang et al. 2024, equation 2)."""
    return functional.softplus(fake_scores - real_scores).mean()


def relativistic_generator_loss(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """E[log(1 + exp(D(x) - D(G(z))))] over pairs: the critic's loss with the roles exchanged."""
    return functional.softplus(real_scores - fake_scores).mean()


def drift(real_scores: Tensor) -> Tensor:
    """E[D(x)^2], which keeps the scores of a Wasserstein critic near 0 (Karras et al. 2018, appendix A.1)."""
    return real_scores.square().mean()


def squared_gradient_norms(scores: Tensor, images: Tensor) -> Tensor:
    """|dD/dx|^2 of each image, shape (B,): ``scores`` (B,) came of ``images`` (B, C, H, W), which require gradients."""
    (gradients,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
    return gradients.square().sum((1, 2, 3))


def gradient_penalty(critic: Callable[[Tensor], Tensor], reals: Tensor, fakes: Tensor, mix: Tensor) -> Tensor:
    """E[(|dD/dx| - 1)^2] at x = mix * real + (1 - mix) * fake (Gulrajani et al. 2017, equation 3).

    Args:
        critic: images (B, C, H, W) to scores (B,).
        reals, fakes: (B, C, H, W).
        mix: (B, 1, 1, 1), uniform in [0, 1).
    """
    between = torch.lerp(fakes.detach(), reals, mix).requires_grad_(True)
    norms = (squared_gradient_norms(critic(between), between) + _EPSILON).sqrt()
    return (norms - 1).square().mean()


def zero_centred_penalty(scores: Tensor, images: Tensor) -> Tensor:
    """E[|dD/dx|^2]: R1 on reals, R2 on fakes; weigh it by gamma / 2 (Mescheder et al. 2018, equation 9)."""
    return squared_gradient_norms(scores, images).mean()
