"""The progressive networks against formulas written out here, after Karras et al. 2018 and the official code."""

import copy
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as f

from ganguard.errors import UsageError
from ganguard.networks.equalized import EqualizedConv, EqualizedLinear, halved, upsampled, with_deviation
from ganguard.networks.progressive import (
    ProgressiveCritic,
    ProgressiveGenerator,
    channels_at,
    generator_like,
    level_of,
    size_of,
)

WIDTH, LATENT = 8, 6


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def make_generator(image_size=16, channels=3):
    return biased(ProgressiveGenerator(image_size=image_size, channels=channels, width=WIDTH, latent_size=LATENT))


def make_critic(image_size=16, channels=3):
    return biased(ProgressiveCritic(image_size=image_size, channels=channels, width=WIDTH))


def biased(network):
    """Biases begin at 0, where a scaled bias would not show."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.normal_()
    return network.double()


def norm(x):
    return x / (x.pow(2).mean(1, keepdim=True) + 1e-8).sqrt()


def lrelu(x):
    return torch.where(x > 0, x, 0.2 * x)


def conv(x, state, name, gain):
    weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    fan_in = weight[0].numel()
    return f.conv2d(x, weight * gain / math.sqrt(fan_in), bias, padding=weight.shape[-1] // 2)


def twice(x):
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def box(x):
    return (x[:, :, ::2, ::2] + x[:, :, 1::2, ::2] + x[:, :, ::2, 1::2] + x[:, :, 1::2, 1::2]) / 4


def generator_formula(s, z, level, alpha):
    root2 = math.sqrt(2)
    x = norm(z) @ s["base.weight"].T * (root2 / 4 / math.sqrt(z.shape[1])) + s["base.bias"]
    x = norm(lrelu(x.reshape(len(z), -1, 4, 4)))
    x = norm(lrelu(conv(x, s, "base_conv", root2)))
    image = conv(x, s, "to_image.0", 1)
    for i in range(level):
        below = image
        x = norm(lrelu(conv(twice(x), s, f"blocks.{i}.first", root2)))
        x = norm(lrelu(conv(x, s, f"blocks.{i}.second", root2)))
        image = conv(x, s, f"to_image.{i + 1}", 1)
    return image if level == 0 else alpha * image + (1 - alpha) * twice(below)


def critic_formula(s, image, level, alpha):
    root2 = math.sqrt(2)
    x = lrelu(conv(image, s, f"from_image.{level}", root2))
    for i in reversed(range(level)):
        x = lrelu(conv(x, s, f"blocks.{i}.first", root2))
        x = box(lrelu(conv(x, s, f"blocks.{i}.second", root2)))
        if i == level - 1:
            x = alpha * x + (1 - alpha) * lrelu(conv(box(image), s, f"from_image.{i}", root2))
    x = torch.cat([x, torch.from_numpy(deviation_formula(x.detach().numpy()))], 1)
    x = lrelu(conv(x, s, "last_conv", root2)).flatten(1)
    x = lrelu(x @ s["last_dense.weight"].T * (root2 / math.sqrt(x.shape[1])) + s["last_dense.bias"])
    return (x @ s["score.weight"].T / math.sqrt(x.shape[1]) + s["score.bias"])[:, 0]


def deviation_formula(x):
    """The channel (B, 1, H, W) in numpy, group by group."""
    batch = len(x)
    size = 4 if batch % 4 == 0 else batch
    channel = np.empty((batch, 1, *x.shape[2:]))
    for first in range(batch // size):
        group = list(range(first, batch, batch // size))
        spread = np.sqrt(((x[group] - x[group].mean(0)) ** 2).mean(0) + 1e-8)
        channel[group] = spread.mean()
    return channel


@pytest.mark.parametrize(("level", "alpha"), [(0, 1.0), (1, 0.3), (1, 1.0), (2, 0.0), (2, 0.75), (2, 1.0)])
def test_networks_are_those_of_the_paper(level, alpha):
    """First dense layer equalized and with pixel norm, gains, unscaled biases, linear images, fade in both."""
    generator, critic = make_generator(), make_critic()
    latents, images = torch.randn(8, LATENT).double(), torch.randn(8, 3, 4 << level, 4 << level).double()
    with torch.no_grad():
        torch.testing.assert_close(
            generator(latents, level=level, alpha=alpha),
            generator_formula(generator.state_dict(), latents, level, alpha),
        )
        torch.testing.assert_close(
            critic(images, level=level, alpha=alpha), critic_formula(critic.state_dict(), images, level, alpha)
        )


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 6, 8, 12])
def test_minibatch_deviation_is_biased_has_its_epsilon_and_its_groups(batch):
    features = torch.randn(batch, 5, 4, 4).double()
    out = with_deviation(features)
    assert torch.equal(out[:, :5], features)
    np.testing.assert_allclose(out[:, 5:].numpy(), deviation_formula(features.numpy()))


def test_minibatch_deviation_worked_out_by_hand():
    """Values 0 and 2 differ from their mean by 1: sqrt(1 + 1e-8). Equal images: sqrt(1e-8) = 1e-4."""
    pair = torch.tensor([0.0, 2.0]).view(2, 1, 1, 1).double()
    assert with_deviation(pair)[:, 1].flatten().tolist() == pytest.approx([math.sqrt(1 + 1e-8)] * 2, rel=1e-12)
    assert with_deviation(torch.ones(4, 1, 1, 1).double())[0, 1].item() == pytest.approx(1e-4)


def test_equal_images_leave_finite_gradients():
    """The square root's derivative at 0 is infinite: the epsilon stands under it."""
    critic = make_critic()
    images = torch.zeros(4, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(critic(images, level=1, alpha=0.5).sum(), images, create_graph=True)
    gradient.square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in critic.parameters())
    latents = torch.zeros(2, LATENT, dtype=torch.float64, requires_grad=True)
    make_generator()(latents, level=1).sum().backward()
    assert latents.grad.isfinite().all()


def test_weights_begin_as_standard_normal_and_are_scaled_at_run_time():
    """Weights 1, bias 1, 8 inputs, gain 3: 8 * 3 / sqrt(8) + 1; 2 channels of 3x3: 18 * 3 / sqrt(18) + 1."""
    dense, kernel = EqualizedLinear(8, 1, gain=3), EqualizedConv(2, 1, 3, gain=3)
    for layer in (dense, kernel):
        torch.nn.init.ones_(layer.weight)
        torch.nn.init.ones_(layer.bias)
    assert dense(torch.ones(1, 8)).item() == pytest.approx(8 * 3 / math.sqrt(8) + 1)
    assert kernel(torch.ones(1, 2, 3, 3))[0, 0, 1, 1].item() == pytest.approx(18 * 3 / math.sqrt(18) + 1)
    network = ProgressiveGenerator(image_size=8, channels=3, width=64, latent_size=64)
    for name, parameter in network.named_parameters():
        if name.endswith("weight") and parameter.numel() > 1000:
            assert parameter.std().item() == pytest.approx(1, abs=0.05), name
        if name.endswith("bias"):
            assert not parameter.any(), name


def test_features_keep_their_size_through_all_levels():
    """What equalizing is for: without it, or with other gains, the variance of the image drifts with the depth."""
    generator = ProgressiveGenerator(image_size=64, channels=3, width=64, latent_size=64)
    images = [generator(torch.randn(16, 64), level=level) for level in range(5)]
    assert all(0.3 < image.std().item() < 3 for image in images), [image.std().item() for image in images]
    assert any(image.abs().max() > 1 for image in images)  # linear: no tanh


def test_a_latents_length_does_not_matter():
    generator = make_generator()
    latents = torch.randn(4, LATENT).double()
    torch.testing.assert_close(generator(latents, level=2), generator(5 * latents, level=2), rtol=1e-6, atol=1e-6)


def test_channels_are_those_of_the_paper_scaled_by_the_width():
    assert [channels_at(level, 512) for level in range(9)] == [512, 512, 512, 512, 256, 128, 64, 32, 16]
    assert [channels_at(level, 256) for level in range(9)] == [256, 256, 256, 256, 128, 64, 32, 16, 8]
    assert channels_at(8, 4) == 1


def test_nine_levels_from_4_to_1024():
    assert [size_of(level) for level in range(9)] == [4, 8, 16, 32, 64, 128, 256, 512, 1024]
    assert [level_of(size_of(level)) for level in range(9)] == list(range(9))
    for size in (0, 2, 5, 48, 2048, -4):
        with pytest.raises(UsageError, match="choose one of 4, 8"):
            level_of(size)


def test_parameters_of_the_paper():
    """23.1 million in each network at 1024 px (table 2)."""
    with torch.device("meta"):
        generator = ProgressiveGenerator(image_size=1024, channels=3, width=512, latent_size=512)
        critic = ProgressiveCritic(image_size=1024, channels=3, width=512)
    assert sum(p.numel() for p in generator.parameters()) / 1e6 == pytest.approx(23.1, abs=0.05)
    assert sum(p.numel() for p in critic.parameters()) / 1e6 == pytest.approx(23.1, abs=0.05)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("level", [0, 8])
def test_every_level_makes_its_images(level, channels):
    generator = ProgressiveGenerator(image_size=1024, channels=channels, width=4, latent_size=4)
    critic = ProgressiveCritic(image_size=1024, channels=channels, width=4)
    with torch.no_grad():
        images = generator(torch.randn(2, 4), level=level, alpha=0.5)
        assert images.shape == (2, channels, 4 << level, 4 << level)
        assert critic(images, level=level, alpha=0.5).shape == (2,)


def test_only_layers_in_use_get_gradients():
    """And so only they take moments: layers of later levels neither, nor those of a fade that is over."""
    generator, critic = make_generator(), make_critic()
    critic(generator(torch.randn(4, LATENT).double(), level=1), level=1).sum().backward()
    without = {n for net in (generator, critic) for n, p in net.named_parameters() if p.grad is None}
    unused = ("to_image.0", "to_image.2", "from_image.0", "from_image.2", "blocks.1.first", "blocks.1.second")
    assert without == {f"{layer}.{kind}" for layer in unused for kind in ("weight", "bias")}


def test_the_start_of_a_fade_shows_the_level_below():
    generator, critic = make_generator(), make_critic()
    latents = torch.randn(4, LATENT).double()
    below = generator(latents, level=1)
    torch.testing.assert_close(generator(latents, level=2, alpha=0), twice(below))
    torch.testing.assert_close(critic(twice(below), level=2, alpha=0), critic(below, level=1))


def test_up_and_down():
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(upsampled(images), twice(images))
    torch.testing.assert_close(halved(images), box(images))


def test_a_generator_is_rebuilt_from_its_tensors():
    generator = ProgressiveGenerator(image_size=32, channels=1, width=12, latent_size=5)
    other = generator_like(copy.deepcopy(generator.state_dict()))
    latents = torch.randn(2, 5)
    assert torch.equal(other(latents, level=3), generator(latents, level=3))
    with pytest.raises(UsageError, match="not those of a progressive generator"):
        generator_like({"weight": torch.zeros(3)})
