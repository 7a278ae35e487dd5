"""The generator's average."""

import io

import pytest
import torch
from torch import nn

from ganguard.networks.ema import GeneratorAverage, ema_decay


def constant(value):
    """A module whose parameters and float buffers all hold ``value``."""
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    with torch.no_grad():
        for tensor in [*module.parameters(), module[1].running_mean, module[1].running_var]:
            tensor.fill_(value)
        module[1].num_batches_tracked.fill_(int(value))
    return module


def test_decay_halves_in_a_half_life():
    """64 images of a half-life of 640 are a tenth of it: 0.5 ** 0.1 = 0.93303299."""
    decay = ema_decay(images_seen=1_000_000, batch_size=64, half_life_images=640)
    assert decay == pytest.approx(0.93303299, abs=1e-8)
    assert decay**10 == pytest.approx(0.5)


def test_half_life_is_at_most_a_twentieth_of_the_images_seen():
    """After 2,000 images the half-life is 100: a batch of 50 weighs 1 - 0.5 ** 0.5 = 0.29289322."""
    decay = ema_decay(images_seen=2_000, batch_size=50, half_life_images=10_000)
    assert 1 - decay == pytest.approx(0.29289322, abs=1e-8)


def test_the_first_batch_is_copied():
    assert ema_decay(images_seen=0, batch_size=8) == 0
    average = GeneratorAverage(constant(1))
    average.update(constant(5), images_seen=0, batch_size=8)
    assert all((parameter == 5).all() for parameter in average.module.parameters())


def test_parameters_are_averaged_and_buffers_copied():
    average = GeneratorAverage(constant(0), half_life_images=8)
    average.update(constant(4), images_seen=1_000, batch_size=8)
    assert all((parameter == 2).all() for parameter in average.module.parameters())
    assert all((buffer == 4).all() for buffer in average.module.buffers())


def test_the_average_is_apart_from_the_generator():
    generator = constant(1).train()
    average = GeneratorAverage(generator)
    with torch.no_grad():
        generator[0].weight.fill_(9)
    assert (average.module[0].weight == 1).all()
    assert generator.training
    assert not average.module.training
    assert all(parameter.requires_grad for parameter in generator.parameters())
    assert not any(parameter.requires_grad for parameter in average.module.parameters())


def test_its_state_loads_into_a_generator_and_back():
    average = GeneratorAverage(constant(3))
    file = io.BytesIO()
    torch.save(average.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    generator, other = constant(0), GeneratorAverage(constant(0))
    generator.load_state_dict(state)
    other.load_state_dict(state)
    assert (generator[0].weight == 3).all()
    assert (other.module[0].weight == 3).all()


def test_no_random_numbers_are_drawn():
    generator = constant(1)
    before = torch.get_rng_state()
    GeneratorAverage(generator).update(generator, images_seen=100, batch_size=8)
    assert torch.equal(torch.get_rng_state(), before)
