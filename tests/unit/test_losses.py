"""The losses against the formulas, written out independently."""

import numpy as np
import pytest
import torch

from ganguard.training import losses

REAL = np.array([2.5, 0.25, -1.5, 1.0])
FAKE = np.array([-3.0, -0.5, 0.75, -1.0])
SHAPE = (4, 2, 3, 3)


def of(loss, *scores):
    return loss(*(torch.tensor(values) for values in scores)).item()


def test_hinge():
    expected = np.mean(np.maximum(0, 1 - REAL)) + np.mean(np.maximum(0, 1 + FAKE))
    assert of(losses.hinge_critic_loss, REAL, FAKE) == pytest.approx(expected)
    assert expected == pytest.approx((0.75 + 2.5) / 4 + (0.5 + 1.75) / 4)
    assert of(losses.hinge_generator_loss, FAKE) == pytest.approx(-FAKE.mean())


def test_scores_beyond_the_margin_give_the_hinge_critic_no_gradient():
    real, fake = torch.tensor(REAL, requires_grad=True), torch.tensor(FAKE, requires_grad=True)
    losses.hinge_critic_loss(real, fake).backward()
    assert real.grad.tolist() == [0, -0.25, -0.25, 0]
    assert fake.grad.tolist() == [0, 0.25, 0.25, 0]


def test_wasserstein():
    assert of(losses.wasserstein_critic_loss, REAL, FAKE) == pytest.approx(-0.9375 - 0.5625)
    assert of(losses.wasserstein_generator_loss, FAKE) == pytest.approx(0.9375)
    assert of(losses.drift, REAL) == pytest.approx((2.5**2 + 0.25**2 + 1.5**2 + 1) / 4)


def test_relativistic():
    """Cross entropy of a classifier that is to call the first of a pair the real one."""
    right = 1 / (1 + np.exp(-(REAL - FAKE)))
    assert of(losses.relativistic_critic_loss, REAL, FAKE) == pytest.approx(-np.log(right).mean())
    assert of(losses.relativistic_generator_loss, REAL, FAKE) == pytest.approx(-np.log(1 - right).mean())


def test_relativistic_loss_compares_within_pairs():
    crossed = of(losses.relativistic_critic_loss, REAL, FAKE[::-1].copy())
    assert crossed != pytest.approx(of(losses.relativistic_critic_loss, REAL, FAKE))


@pytest.fixture
def quadratic():
    """D(x) = x.Ax / 2 + b.x, whose gradient is (A + A^T)x / 2 + b."""
    draw = np.random.default_rng(0)
    size = int(np.prod(SHAPE[1:]))
    a, b = draw.normal(size=(size, size)) / 4, draw.normal(size=size)

    def critic(images):
        x = images.flatten(1)
        return (x @ torch.tensor(a) * x).sum(1) / 2 + x @ torch.tensor(b)

    def gradients(images):
        return images.reshape(len(images), -1) @ (a + a.T) / 2 + b

    reals, fakes = draw.normal(size=(2, *SHAPE))
    return critic, gradients, reals, fakes


def test_gradient_penalty(quadratic):
    critic, gradients, reals, fakes = quadratic
    mix = np.array([0, 0.25, 0.75, 0.999]).reshape(4, 1, 1, 1)
    norms = np.linalg.norm(gradients(mix * reals + (1 - mix) * fakes), axis=1)
    found = losses.gradient_penalty(critic, *(torch.tensor(values) for values in (reals, fakes, mix)))
    assert found.item() == pytest.approx(np.mean((norms - 1) ** 2))


def test_gradient_penalty_of_a_flat_critic_is_one_and_its_gradient_finite():
    weight = torch.zeros(1, requires_grad=True)
    penalty = losses.gradient_penalty(
        lambda images: (images.flatten(1) * weight).sum(1), *torch.rand(2, *SHAPE), torch.rand(4, 1, 1, 1)
    )
    penalty.backward()
    assert penalty.item() == pytest.approx(1, abs=1e-5)
    assert weight.grad.isfinite().all()


def test_gradient_penalty_trains_the_critic_and_not_the_generator(quadratic):
    critic, _, reals, fakes = quadratic
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    generated = torch.tensor(fakes, requires_grad=True)
    mix = torch.full((4, 1, 1, 1), 0.5, dtype=torch.float64)
    losses.gradient_penalty(lambda x: scale * critic(x), torch.tensor(reals), generated, mix).backward()
    assert scale.grad.item() != 0
    assert generated.grad is None


def test_zero_centred_penalty(quadratic):
    critic, gradients, reals, _ = quadratic
    images = torch.tensor(reals, requires_grad=True)
    expected = np.mean(np.sum(gradients(reals) ** 2, axis=1))
    assert losses.zero_centred_penalty(critic(images), images).item() == pytest.approx(expected)
