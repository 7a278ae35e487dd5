"""The conditional GAN's networks and its training step."""

import copy
import io

import pytest
import torch
from torch import nn

from ganguard.errors import UsageError
from ganguard.networks.cgan import ConditionalGenerator, ProjectionCritic, channels_at, pixel_norm, resolutions
from ganguard.networks.ema import GeneratorAverage
from ganguard.training.cgan_step import CganStep, generator_turn, make_optimizers, one_hot, unit_images

SMALL = {"labels": 10, "width": 8}


def make_generator(image_size=32, channels=1):
    return ConditionalGenerator(image_size=image_size, channels=channels, latent_size=16, **SMALL)


def make_critic(image_size=32, channels=1):
    return ProjectionCritic(image_size=image_size, channels=channels, **SMALL)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def _deterministic():
    """Any operation without a deterministic implementation raises."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("image_size", [32, 64])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_and_scores_have_the_promised_shapes_and_range(image_size, channels):
    generator, critic = make_generator(image_size, channels), make_critic(image_size, channels)
    labels = one_hot(torch.arange(5), 10)
    images = generator(3 * torch.randn(5, 16), labels)
    assert images.shape == (5, channels, image_size, image_size)
    assert images.abs().max() <= 1
    assert images.std() > 0.01
    assert critic(images, labels).shape == (5,)


@pytest.mark.parametrize("image_size", [0, 4, 28, 48, -32])
def test_sizes_that_cannot_be_built_are_usage_errors(image_size):
    with pytest.raises(UsageError, match=r"power of two"):
        make_generator(image_size)
    with pytest.raises(UsageError, match=r"power of two"):
        make_critic(image_size)


def test_sizes_and_widths_double_and_halve():
    assert resolutions(32) == [4, 8, 16, 32]
    assert resolutions(128) == [4, 8, 16, 32, 64, 128]
    assert [channels_at(side, image_size=64, width=10) for side in resolutions(64)] == [40, 40, 40, 20, 10]


def test_pixel_norm_gives_every_pixel_a_mean_square_of_one():
    features = torch.tensor([[[[3.0]], [[4.0]]]])  # root mean square sqrt(12.5)
    torch.testing.assert_close(pixel_norm(features).flatten(), torch.tensor([3.0, 4.0]) / 12.5**0.5)
    assert pixel_norm(torch.zeros(1, 4, 1, 1)).isfinite().all()


def test_another_label_gives_another_image_and_another_score():
    generator, critic = make_generator(), make_critic()
    latents = torch.randn(1, 16).expand(10, -1)
    images = generator(latents, torch.eye(10))
    scores = critic(images[:1].expand(10, -1, -1, -1), torch.eye(10))
    distances = torch.cdist(images.flatten(1), images.flatten(1)) + torch.eye(10)
    assert distances.min() > 0.01
    assert scores.unique().numel() == 10


def test_another_latent_gives_another_image():
    images = make_generator()(torch.randn(2, 16), torch.eye(10)[[3, 3]])
    assert (images[0] - images[1]).abs().max() > 0.01


def test_an_image_does_not_depend_on_its_neighbours_in_the_batch():
    generator = make_generator()
    latents, labels = torch.randn(4, 16), torch.eye(10)[:4]
    alone = torch.cat([generator(latents[i : i + 1], labels[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(generator(latents, labels), alone, rtol=0, atol=1e-5)


def test_the_score_is_linear_in_the_label_vector():
    critic = make_critic().double().eval()
    images = torch.rand(6, 1, 32, 32, dtype=torch.float64) * 2 - 1
    first, second = torch.randn(2, 6, 10, dtype=torch.float64)
    without = critic(images, torch.zeros(6, 10, dtype=torch.float64))
    combined = critic(images, 2 * first - 3 * second) - without
    expected = 2 * (critic(images, first) - without) - 3 * (critic(images, second) - without)
    torch.testing.assert_close(combined, expected)
    assert expected.abs().min() > 0


def test_the_critic_has_no_batch_norm_and_normalizes_every_weight():
    critic = make_critic()
    layers = [layer for layer in critic.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert not any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in critic.modules())
    for _ in range(60):
        critic(torch.zeros(1, 1, 32, 32), torch.eye(10)[:1])  # each pass is one power iteration
    critic.eval()
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("make", [make_generator, make_critic])
def test_state_dicts_pass_weights_only_and_load_strictly(make):
    source, target = make(), make()
    file = io.BytesIO()
    torch.save(source.state_dict(), file)
    file.seek(0)
    target.load_state_dict(torch.load(file, weights_only=True))
    for key, value in target.state_dict().items():
        assert torch.equal(value, source.state_dict()[key]), key


def test_helpers():
    assert torch.equal(one_hot(torch.tensor([2, 0]), 3), torch.tensor([[0.0, 0, 1], [1, 0, 0]]))
    bytes_ = torch.tensor([0, 255], dtype=torch.uint8)
    assert unit_images(bytes_).tolist() == [-1, 1]
    assert [generator_turn(step, 3) for step in range(6)] == [False, False, True, False, False, True]


def make_step(critic_steps=1):
    generator, critic = make_generator(), make_critic()
    generator_optimizer, critic_optimizer = make_optimizers(generator, critic)
    return CganStep(
        generator=generator,
        critic=critic,
        average=GeneratorAverage(generator),
        generator_optimizer=generator_optimizer,
        critic_optimizer=critic_optimizer,
        critic_steps=critic_steps,
    )


def random_batch(seed):
    stream = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (8, 1, 32, 32), dtype=torch.uint8, generator=stream)
    return images, torch.randint(10, (8,), generator=stream)


def parts_of(step):
    return {
        "generator": step.generator,
        "critic": step.critic,
        "average": step.average,
        "generator_optimizer": step.generator_optimizer,
        "critic_optimizer": step.critic_optimizer,
    }


def train(step, batches):
    return [step(*random_batch(number), step=number, images_seen=8 * number) for number in batches]


def assert_same(first, second):
    for name, part in parts_of(first).items():
        other = parts_of(second)[name]
        torch.testing.assert_close(part.state_dict(), other.state_dict(), rtol=0, atol=0)


@pytest.mark.usefixtures("_deterministic")
def test_two_runs_of_five_steps_are_bit_equal():
    first = make_step(critic_steps=2)
    second = copy.deepcopy(first)
    second.generator_optimizer, second.critic_optimizer = make_optimizers(second.generator, second.critic)
    torch.manual_seed(1)
    losses = train(first, range(5))
    torch.manual_seed(1)
    assert train(second, range(5)) == losses
    assert_same(first, second)


@pytest.mark.usefixtures("_deterministic")
def test_going_on_from_saved_parts_is_bit_equal():
    straight = make_step(critic_steps=2)
    torch.manual_seed(1)
    train(straight, range(3))
    file = io.BytesIO()
    torch.save({name: part.state_dict() for name, part in parts_of(straight).items()}, file)
    stream = torch.get_rng_state()
    losses = train(straight, range(3, 6))

    resumed = make_step(critic_steps=2)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    for name, part in parts_of(resumed).items():
        part.load_state_dict(saved[name])
    torch.set_rng_state(stream)
    assert train(resumed, range(3, 6)) == losses
    assert_same(straight, resumed)


def test_the_generator_has_its_turn_every_critic_steps_batches():
    step = make_step(critic_steps=2)
    untrained = copy.deepcopy(step.generator.state_dict())
    (losses,) = train(step, [0])
    assert set(losses) == {"loss_d"}
    torch.testing.assert_close(step.generator.state_dict(), untrained, rtol=0, atol=0)
    (losses,) = train(step, [1])
    assert set(losses) == {"loss_d", "loss_g"}
    assert not any(loss.requires_grad for loss in losses.values())
    assert all(not torch.equal(value, untrained[key]) for key, value in step.generator.state_dict().items())


def test_a_step_leaves_every_parameter_trainable_and_moves_all_of_the_critic():
    step = make_step()
    before = copy.deepcopy(dict(step.critic.named_parameters()))
    train(step, range(2))
    assert all(parameter.requires_grad for parameter in step.critic.parameters())
    assert all(not torch.equal(value, before[key]) for key, value in step.critic.named_parameters())


def test_a_step_moves_the_average_as_the_images_seen_tell():
    """Decay after 800 images, half-life 40, batch of 8: 0.5 ** 0.2 = 0.87055056."""
    step = make_step()
    before = step.average.module.base.weight.clone()
    step(*random_batch(0), step=100, images_seen=800)
    expected = 0.87055056 * before + 0.12944944 * step.generator.base.weight
    torch.testing.assert_close(step.average.module.base.weight, expected, rtol=0, atol=1e-7)


def test_training_separates_two_classes():
    """A black and a white class: after some steps the images asked for are dark and bright."""
    generator = ConditionalGenerator(image_size=8, channels=1, labels=2, width=8, latent_size=4)
    critic = ProjectionCritic(image_size=8, channels=1, labels=2, width=8)
    generator_optimizer, critic_optimizer = make_optimizers(generator, critic)
    step = CganStep(
        generator=generator,
        critic=critic,
        average=GeneratorAverage(generator),
        generator_optimizer=generator_optimizer,
        critic_optimizer=critic_optimizer,
    )
    labels = torch.arange(32) % 2
    images = (labels * 255).byte()[:, None, None, None].expand(-1, 1, 8, 8)
    for number in range(300):
        step(images, labels, step=number, images_seen=32 * number)
    dark, bright = step.average.module(torch.randn(2, 4), torch.eye(2)).mean((1, 2, 3))
    assert dark < -0.5
    assert bright > 0.5
