"""The conditional GAN's networks."""

import io

import pytest
import torch
from torch import nn

from ganguard.errors import UsageError
from ganguard.networks.cgan import ConditionalGenerator, ProjectionCritic, channels_at, pixel_norm, resolutions
from ganguard.training.cgan_step import generator_turn, to_label_vectors, unit_images

SMALL = {"labels": 10, "width": 8}


def make_generator(image_size=32, channels=1):
    return ConditionalGenerator(image_size=image_size, channels=channels, latent_size=16, **SMALL)


def make_critic(image_size=32, channels=1):
    return ProjectionCritic(image_size=image_size, channels=channels, **SMALL)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("image_size", [32, 64, 128])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_and_scores_have_the_promised_shapes_and_range(image_size, channels):
    generator, critic = make_generator(image_size, channels), make_critic(image_size, channels)
    labels = to_label_vectors(torch.arange(5), 10)
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
    assert torch.equal(to_label_vectors(torch.tensor([2, 0]), 3), torch.tensor([[0.0, 0, 1], [1, 0, 0]]))
    attributes = torch.tensor([[1, 0, 1]], dtype=torch.uint8)
    assert torch.equal(to_label_vectors(attributes, 3), torch.tensor([[1.0, 0, 1]]))
    bytes_ = torch.tensor([0, 255], dtype=torch.uint8)
    assert unit_images(bytes_).tolist() == [-1, 1]
    assert [generator_turn(step, 3) for step in range(6)] == [False, False, True, False, False, True]
