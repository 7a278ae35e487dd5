"""The conditional GAN's training step, under every loss."""

import copy
import io

import pytest
import torch

from ganguard.errors import UsageError
from ganguard.networks.cgan import build_critic, build_generator
from ganguard.networks.cgan_spec import CganSpec
from ganguard.networks.ema import GeneratorAverage
from ganguard.networks.presets import LOSS_PRESETS
from ganguard.training.cgan_config import CganConfig
from ganguard.training.cgan_step import CganStep, make_optimizers, scale_learning_rates
from ganguard.training.objectives import make_objective
from ganguard.training.schedules import linear_decay

SPEC = CganSpec(image_size=32, channels=1, width=8, latent_size=16, label_names=tuple("0123456789"), multi_label=False)
TWO = CganSpec(image_size=8, channels=1, width=8, latent_size=4, label_names=("dark", "bright"), multi_label=False)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def _deterministic():
    """Any operation without a deterministic implementation raises."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def make_step(critic_steps=1, *, spec=SPEC, loss="hinge", **options):
    preset = LOSS_PRESETS[loss]
    generator, critic = build_generator(spec), build_critic(spec, spectral=preset.spectral)
    generator_optimizer, critic_optimizer = make_optimizers(generator, critic, preset)
    return CganStep(
        generator=generator,
        critic=critic,
        average=GeneratorAverage(generator),
        generator_optimizer=generator_optimizer,
        critic_optimizer=critic_optimizer,
        objective=make_objective(loss, penalty=preset.penalty),
        critic_steps=critic_steps,
        **options,
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
    second.generator_optimizer, second.critic_optimizer = make_optimizers(
        second.generator, second.critic, LOSS_PRESETS["hinge"]
    )
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


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("loss", LOSS_PRESETS)
def test_training_separates_two_classes(loss, precision):
    """A black and a white class: after some steps the images asked for are dark and bright."""
    step = make_step(spec=TWO, loss=loss, precision=precision)
    labels = torch.arange(32) % 2
    images = (labels * 255).byte()[:, None, None, None].expand(-1, 1, 8, 8)
    for number in range(300):
        step(images, labels, step=number, images_seen=32 * number)
    dark, bright = step.average.module(torch.randn(2, 4), torch.eye(2)).mean((1, 2, 3))
    assert dark < -0.5
    assert bright > 0.5
    assert {value.dtype for value in step.critic.state_dict().values()} == {torch.float32}


@pytest.mark.parametrize("loss", LOSS_PRESETS)
def test_a_batch_in_parts_has_the_gradients_of_the_whole_batch(loss):
    """Also where the last part is smaller. Latents are zero, so that both see the same; the critic is not updated."""
    gradients = []
    for part_size in (None, 3):
        torch.manual_seed(0)
        step = make_step(loss=loss, part_size=part_size)
        if loss == "hinge":
            step.critic.eval()  # spectral normalization moves on with every pass
        for optimizer in (step.generator_optimizer, step.critic_optimizer):
            scale_learning_rates([optimizer], [1.0], 0.0)
        step._fakes = _fakes_of_zero_latents(step)
        if loss == "wgan-gp":
            step.objective.weight = 0.0  # its mix is drawn anew for every part
        losses = step(*random_batch(0), step=0, images_seen=0)
        parameters = [*step.generator.parameters(), *step.critic.parameters()]
        gradients.append([losses["loss_d"], losses["loss_g"], *(p.grad for p in parameters)])
    for whole, parts in zip(*gradients, strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5)


def _fakes_of_zero_latents(step):
    return lambda vectors: step.generator(torch.zeros(len(vectors), step.generator.latent_size), vectors)


def test_penalties_are_logged_beside_the_losses():
    losses = make_step(loss="wgan-gp")(*random_batch(0), step=0, images_seen=0)
    assert set(losses) == {"loss_d", "loss_g", "penalty"}


def test_a_penalty_for_hinge_is_a_usage_error():
    with pytest.raises(UsageError, match="--penalty"):
        _ = CganConfig(loss="hinge", penalty=10.0).preset


def test_the_learning_rate_falls_to_zero_over_the_last_epochs():
    at = {"images_an_epoch": 100, "epochs": 10}
    factors = [linear_decay(images_seen=seen, decay_epochs=4, **at) for seen in (0, 599, 600, 700, 975)]
    assert factors == pytest.approx([1, 1, 1, 0.75, 0.0625])
    assert linear_decay(images_seen=999, decay_epochs=0, **at) == 1


def test_scaled_learning_rates_keep_the_ratio_of_the_networks():
    step = make_step()
    optimizers = step.generator_optimizer, step.critic_optimizer
    scale_learning_rates(optimizers, (4e-4, 8e-4), 0.25)
    scale_learning_rates(optimizers, (4e-4, 8e-4), 0.5)
    assert [optimizer.param_groups[0]["lr"] for optimizer in optimizers] == pytest.approx([2e-4, 4e-4])
