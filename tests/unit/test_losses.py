"""The losses against the formulas, written out independently."""

import numpy as np
import pytest
import torch

from ganguard.training.losses import hinge_critic_loss, hinge_generator_loss

REAL = np.array([2.5, 0.25, -1.5, 1.0])
FAKE = np.array([-3.0, -0.5, 0.75, -1.0])


def test_hinge_critic_loss():
    expected = np.mean(np.maximum(0, 1 - REAL)) + np.mean(np.maximum(0, 1 + FAKE))
    assert hinge_critic_loss(torch.tensor(REAL), torch.tensor(FAKE)).item() == pytest.approx(expected)
    assert expected == pytest.approx((0.75 + 2.5) / 4 + (0.5 + 1.75) / 4)


def test_scores_beyond_the_margin_give_the_critic_no_gradient():
    real, fake = torch.tensor(REAL, requires_grad=True), torch.tensor(FAKE, requires_grad=True)
    hinge_critic_loss(real, fake).backward()
    assert real.grad.tolist() == [0, -0.25, -0.25, 0]
    assert fake.grad.tolist() == [0, 0.25, 0.25, 0]


def test_hinge_generator_loss():
    assert hinge_generator_loss(torch.tensor(FAKE)).item() == pytest.approx(-FAKE.mean())
