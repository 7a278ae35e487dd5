"""The progressive GAN's training step: its losses, its pieces, what happens at a growth and without memory."""

import copy
import io

import pytest
import torch

from ganguard.errors import UsageError
from ganguard.networks.ema import GeneratorAverage
from ganguard.networks.progressive import ProgressiveCritic, ProgressiveGenerator
from ganguard.training.progan_schedule import Stage, in_epochs
from ganguard.training.progan_step import (
    Growth,
    ProgressiveStep,
    Weights,
    faded,
    make_optimizers,
    out_of_memory,
    pieces,
)

LATENT = 6
FADING = Stage(level=1, alpha=0.25)
STABLE = Stage(level=1, alpha=1.0)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def make_step(*, piece=8, critic_steps=1, told=None):
    torch.manual_seed(0)
    generator = ProgressiveGenerator(image_size=16, channels=1, width=8, latent_size=LATENT)
    critic = ProgressiveCritic(image_size=16, channels=1, width=8)
    optimizer_g, optimizer_d = make_optimizers(generator, critic, learning_rate=1e-3)
    return ProgressiveStep(
        generator=generator,
        critic=critic,
        average=GeneratorAverage(generator),
        generator_optimizer=optimizer_g,
        critic_optimizer=optimizer_d,
        weights=Weights(),
        critic_steps=critic_steps,
        piece=piece,
        fewer=(told if told is not None else []).append,
    )


def parts_of(step):
    return [step.generator, step.critic, step.average, step.generator_optimizer, step.critic_optimizer]


def batch(number, level=1, count=8):
    stream = torch.Generator().manual_seed(number)
    return torch.randint(256, (count, 1, 4 << level, 4 << level), dtype=torch.uint8, generator=stream)


def train(step, numbers, stage=STABLE):
    return [step(batch(n, stage.level), stage, step=n, images_seen=8 * n) for n in numbers]


def assert_same(one, other):
    for mine, theirs in zip(parts_of(one), parts_of(other), strict=True):
        torch.testing.assert_close(mine.state_dict(), theirs.state_dict(), rtol=0, atol=0)


def formula(critic, reals, fakes, mix, stage):
    """E[D(fake)] - E[D(real)] + 10 E[(|dD/dx| - 1)^2] + 0.001 E[D(real)^2], image by image."""

    def scores_of(images):
        return critic(images, level=stage.level, alpha=stage.alpha)

    between = (mix * reals + (1 - mix) * fakes).requires_grad_(True)
    (gradients,) = torch.autograd.grad(scores_of(between).sum(), between, create_graph=True)
    norms = torch.stack([gradient.flatten().norm() for gradient in gradients])
    real_scores = scores_of(reals)
    drift = (real_scores**2).sum() / len(reals)
    penalty = ((norms - 1) ** 2).sum() / len(reals)
    return scores_of(fakes).mean() - real_scores.mean() + 10 * penalty + 0.001 * drift


@pytest.mark.parametrize("stage", [FADING, STABLE])
def test_the_critics_loss_is_wgan_gp_with_drift_at_the_stages_alpha(stage):
    """The mixing weights of the penalty are another variable than the fade's alpha."""
    step = make_step()
    reals, latents, mix = torch.randn(8, 1, 8, 8), torch.randn(8, LATENT), torch.rand(8, 1, 1, 1)
    fakes = step.generator(latents, level=stage.level, alpha=stage.alpha).detach()
    expected = formula(step.critic, reals, fakes, mix, stage)
    assert step.critic_loss(reals, latents, mix, stage).item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_first_update_moves_by_the_learning_rate_against_the_gradient():
    """Adam without momentum moves each weight by lr * g / (|g| + eps) in its first step."""
    step = make_step()
    before = copy.deepcopy(step.critic)
    reals = faded(batch(3).float() / 127.5 - 1, FADING.alpha)
    torch.manual_seed(5)
    latents, mix = torch.randn(8, LATENT), torch.rand(8, 1, 1, 1)
    fakes = step.generator(latents, level=1, alpha=FADING.alpha).detach()
    formula(before, reals, fakes, mix, FADING).backward()
    torch.manual_seed(5)
    step(batch(3), FADING, step=0, images_seen=0)
    for (name, was), now in zip(before.named_parameters(), step.critic.parameters(), strict=True):
        moved = 0 if was.grad is None else 1e-3 * was.grad / (was.grad.abs() + 1e-8)
        torch.testing.assert_close(now, was - moved, rtol=0, atol=2e-6, msg=name)


def test_reals_fade_as_the_networks_do():
    """A block of 0, 4, 8 and 12 has the mean 6: at alpha 0.25 it becomes 0.75 * 6 + 0.25 of each."""
    reals = torch.tensor([[0.0, 4.0], [8.0, 12.0]]).view(1, 1, 2, 2)
    assert faded(reals, 0.25).flatten().tolist() == [4.5, 5.5, 6.5, 7.5]
    assert torch.equal(faded(reals, 1.0), reals)


def test_reals_that_the_critic_sees_are_faded(monkeypatch):
    step, seen = make_step(), []
    forward = step.critic.forward
    monkeypatch.setattr(step.critic, "forward", lambda images, **kw: seen.append(images) or forward(images, **kw))
    step(batch(0), FADING, step=0, images_seen=0)
    torch.testing.assert_close(seen[0], faded(batch(0).float() / 127.5 - 1, 0.25))


def test_each_network_is_updated_with_latents_of_its_own(monkeypatch):
    step, seen = make_step(), []
    forward = step.generator.forward
    monkeypatch.setattr(step.generator, "forward", lambda z, **kw: seen.append(z) or forward(z, **kw))
    step(batch(0), STABLE, step=0, images_seen=0)
    for_critic, for_generator = seen
    assert not torch.isclose(for_critic, for_generator).any()


def test_the_penalty_is_float32_under_autocast(monkeypatch):
    step = make_step()
    reals, latents, mix = torch.randn(8, 1, 8, 8), torch.randn(8, LATENT), torch.rand(8, 1, 1, 1)
    fakes = torch.randn(8, 1, 8, 8)
    monkeypatch.setattr(step.generator, "forward", lambda z, **kw: fakes)

    def penalty():
        step.weights = Weights(penalty=1000.0)
        with_it = step.critic_loss(reals, latents, mix, STABLE)
        step.weights = Weights(penalty=0.0)
        return (with_it - step.critic_loss(reals, latents, mix, STABLE)).item()

    in_float32 = penalty()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert step.critic(reals, level=1).dtype is torch.bfloat16
        assert penalty() == pytest.approx(in_float32, rel=1e-5)


def test_pieces_cover_a_batch():
    assert [(p.start, p.stop) for p in pieces(10, 4)] == [(0, 4), (4, 8), (8, 10)]
    assert [(p.start, p.stop) for p in pieces(3, 8)] == [(0, 3)]


def test_pieces_count_by_their_images(monkeypatch):
    """12 images in pieces of 8 and 4: two thirds of the first's loss and gradient, one third of the second's."""
    step = make_step(piece=8)
    monkeypatch.setattr(step.critic_optimizer, "step", lambda: None)
    torch.manual_seed(5)
    latents, mix = torch.randn(12, LATENT), torch.rand(12, 1, 1, 1)
    fakes = step.generator(latents, level=1).detach()
    reals = batch(1, count=12).float() / 127.5 - 1
    other = copy.deepcopy(step.critic)
    losses = [formula(other, reals[p], fakes[p], mix[p], STABLE) for p in (slice(0, 8), slice(8, 12))]
    expected = losses[0] * 2 / 3 + losses[1] / 3
    expected.backward()
    torch.manual_seed(5)
    found = step(batch(1, count=12), STABLE, step=0, images_seen=0)["loss_d"]
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    for mine, theirs in zip(step.critic.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-6)


def test_the_generator_has_its_turn_every_critic_steps_batches():
    step = make_step(critic_steps=2)
    assert [set(losses) for losses in train(step, range(4))] == [{"loss_d"}, {"loss_d", "loss_g"}] * 2
    assert all(p.requires_grad for p in step.critic.parameters())


def test_going_on_from_saved_parts_is_bit_equal_in_mid_fade():
    straight = make_step()
    train(straight, range(3), FADING)
    file = io.BytesIO()
    torch.save([part.state_dict() for part in parts_of(straight)], file)
    stream = torch.get_rng_state()
    losses = train(straight, range(3, 6), FADING)
    resumed = make_step()
    file.seek(0)
    for part, state in zip(parts_of(resumed), torch.load(file, weights_only=True), strict=True):
        part.load_state_dict(state)
    torch.set_rng_state(stream)
    assert train(resumed, range(3, 6), FADING) == losses
    assert_same(straight, resumed)


def test_a_growth_resets_the_moments_once_and_not_again_at_a_resume():
    step, growth, schedule = make_step(), Growth(), in_epochs([2, 2], images=8)
    optimizers = step.generator_optimizer, step.critic_optimizer
    assert growth.enter(schedule.phase(0), *optimizers)
    train(step, range(2), Stage(0, 1.0))
    assert not growth.enter(schedule.phase(8), *optimizers)
    assert all(optimizer.state for optimizer in optimizers)
    assert growth.enter(schedule.phase(16), *optimizers)
    assert not any(optimizer.state for optimizer in optimizers)
    train(step, [2], FADING)
    resumed = Growth()
    resumed.load_state_dict(growth.state_dict())
    assert not resumed.enter(schedule.phase(16), *optimizers)
    assert all(optimizer.state for optimizer in optimizers)
    assert resumed.begun == list(schedule.phases)


def test_moments_from_an_older_file_are_kept_at_the_first_level():
    step = make_step()
    train(step, [0])
    assert Growth().enter(in_epochs([2, 2], images=8, first_level=1).phases[0], step.generator_optimizer)
    assert step.generator_optimizer.state


def test_the_average_goes_on_unbroken_through_a_growth():
    """After 800 images, half-life 40, batch of 8: a layer of the old level keeps 0.5 ** 0.2 of its average."""
    step = make_step()
    train(step, range(4), Stage(0, 1.0))
    before = step.average.module.base.weight.clone()
    assert not torch.equal(before, step.generator.base.weight)
    step(batch(9), Stage(1, 0.0), step=100, images_seen=800)
    expected = 0.87055056 * before + 0.12944944 * step.generator.base.weight
    torch.testing.assert_close(step.average.module.base.weight, expected, rtol=0, atol=1e-6)


def limited(monkeypatch, network, most):
    """More images than ``most`` in one pass do not fit."""
    forward = network.forward

    def checked(images, **kw):
        if len(images) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return forward(images, **kw)

    monkeypatch.setattr(network, "forward", checked)


@pytest.mark.parametrize("network", ["critic", "generator"])
def test_without_memory_the_piece_is_halved_and_nothing_is_trained_twice(monkeypatch, network):
    """It ends like a training that had begun with the smaller piece."""
    told = []
    step, other = make_step(piece=8, told=told), make_step(piece=2)
    train(other, range(3))
    torch.manual_seed(0)
    step = make_step(piece=8, told=told)
    limited(monkeypatch, getattr(step, network), 3)
    train(step, range(3))
    assert told == [4, 2]
    assert_same(step, other)


def test_memory_that_is_short_in_the_generators_update_only(monkeypatch):
    """The critic's update stands: it is not made a second time."""
    told = []
    step, reference = make_step(told=told), make_step()
    (losses,) = train(reference, [0])
    torch.manual_seed(0)
    step = make_step(told=told)
    loss_of = step.generator_loss

    def limited_loss(latents, stage):
        if len(latents) > 4:
            raise MemoryError
        return loss_of(latents, stage)

    monkeypatch.setattr(step, "generator_loss", limited_loss)
    (found,) = train(step, [0])
    assert told == [4]
    assert found["loss_d"] == losses["loss_d"]
    torch.testing.assert_close(step.critic.state_dict(), reference.critic.state_dict(), rtol=0, atol=0)


def test_one_image_that_does_not_fit_is_an_error_that_says_what_to_do(monkeypatch):
    step = make_step()
    limited(monkeypatch, step.critic, 0)
    with pytest.raises(UsageError, match="not even one image fits"):
        train(step, [0])


def test_other_errors_are_not_taken_for_missing_memory(monkeypatch):
    told = []
    step = make_step(told=told)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        step(batch(0, level=1)[:, :, :5], STABLE, step=0, images_seen=0)
    assert told == []


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:83] data. DefaultCPUAllocator: not enough memory: you tried to"),
        RuntimeError("MPS backend out of memory (MPS allocated: 17.00 GB)"),
        MemoryError(),
    ],
)
def test_missing_memory_is_known_by_its_many_names(error):
    assert out_of_memory(error)
    assert not out_of_memory(RuntimeError("shapes cannot be multiplied"))


def test_a_real_allocation_that_fails_is_known():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert out_of_memory(raised.value)
