"""Trying levels before they are trained: nothing of the training changes."""

import copy

import pytest
import torch

from ganguard.networks.ema import GeneratorAverage
from ganguard.networks.progressive import ProgressiveCritic, ProgressiveGenerator
from ganguard.training.progan_step import ProgressiveStep, Weights, make_optimizers
from ganguard.training.progan_trial import Trials, multiplications


@pytest.fixture
def step():
    torch.manual_seed(0)
    generator = ProgressiveGenerator(image_size=16, channels=1, width=8, latent_size=6)
    critic = ProgressiveCritic(image_size=16, channels=1, width=8)
    optimizers = make_optimizers(generator, critic, learning_rate=1e-3)
    return ProgressiveStep(
        generator=generator,
        critic=critic,
        average=GeneratorAverage(generator),
        generator_optimizer=optimizers[0],
        critic_optimizer=optimizers[1],
        weights=Weights(),
        critic_steps=1,
        piece=8,
        fewer=lambda _piece: None,
    )


def test_trials_change_nothing(step):
    before = copy.deepcopy([step.generator.state_dict(), step.critic.state_dict()])
    stream = torch.get_rng_state()
    trials = Trials(step, [0, 1, 2], [8, 8, 8])
    trials.run(print)
    torch.testing.assert_close([step.generator.state_dict(), step.critic.state_dict()], before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), stream)
    assert all(p.grad is None for network in (step.generator, step.critic) for p in network.parameters())
    assert not step.generator_optimizer.state
    assert set(trials.seconds) == {0, 1, 2}
    assert all(seconds > 0 for seconds in trials.seconds.values())


def test_large_levels_are_reckoned_from_the_last_that_was_measured(step, monkeypatch):
    monkeypatch.setattr("ganguard.training.progan_trial._ENOUGH_S", 0.0)
    trials = Trials(step, [0, 1, 2], [8, 8, 8])
    trials.run(print)
    cost = [multiplications(step.generator, step.critic, level) for level in range(3)]
    assert trials.seconds[2] == pytest.approx(trials.seconds[0] * cost[2] / cost[0])
    assert cost[2] > 3 * cost[1]


def on_a_card(monkeypatch, step, most):
    """A card on which ``most`` images fit at each level."""
    forward = step.critic.forward

    def checked(images, *, level, alpha):
        if len(images) > most[level]:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(images, level=level, alpha=alpha)

    monkeypatch.setattr(step.critic, "forward", checked)
    trials = Trials(step, [0, 1, 2], [8, 8, 8])
    told = []
    for level in (0, 1, 2):
        trials._try_on_card(level, told.append)
    return trials, told


def test_each_level_is_tried_for_memory_and_what_does_not_fit_is_told(step, monkeypatch):
    trials, told = on_a_card(monkeypatch, step, {0: 8, 1: 3, 2: 0})
    assert trials.fitting == {1: 2, 2: 0}
    assert told[0].startswith("8 px: 8 images at once do not fit into the memory, 2 do.")
    assert told[1].startswith("16 px does NOT fit into the memory")
    assert set(trials.seconds) == {0, 1}
    assert all(p.grad is None for network in (step.generator, step.critic) for p in network.parameters())


def test_moments_of_adam_are_part_of_the_trial(step, monkeypatch):
    """Two for each parameter in use."""
    taken = []
    monkeypatch.setattr(Trials, "_moments", lambda self, _of=Trials._moments: taken.append(_of(self)) or taken[-1])
    on_a_card(monkeypatch, step, {0: 8, 1: 8, 2: 8})
    used = [p for network in (step.generator, step.critic) for p in network.parameters()]
    assert sum(t.numel() for t in taken[-1]) <= 2 * sum(p.numel() for p in used)
    assert sum(t.numel() for t in taken[0]) < sum(t.numel() for t in taken[1]) < sum(t.numel() for t in taken[2])
