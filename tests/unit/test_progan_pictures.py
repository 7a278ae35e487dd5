"""A trained progressive generator in use: sizes, latents, strips, files of older scripts."""

import pytest
import torch
from PIL import Image

from ganguard.errors import UsageError
from ganguard.networks.loaded import GeneratorOrigin
from ganguard.networks.progressive import ProgressiveGenerator
from ganguard.networks.progressive_loaded import between, of_checkpoint, of_weights
from ganguard.training.progan_pictures import open_generator, write_strip


@pytest.fixture
def network():
    torch.manual_seed(0)
    return ProgressiveGenerator(image_size=16, channels=1, width=8, latent_size=6)


@pytest.fixture
def origin(tmp_path):
    return GeneratorOrigin(file=tmp_path / "generator.pth")


def checkpoint(network, *, images):
    phase = {"level": 1, "begins": 40, "fades_from": 40, "fade": 40, "ends": 120}
    return {"ema": network.state_dict(), "growth": {"begun": [phase]}, "progress": {"images": images}}


def test_a_checkpoint_is_shown_as_it_was_trained(network, origin):
    generator = of_checkpoint(checkpoint(network, images=50), origin)
    assert (generator.image_size, generator.alpha) == (8, 0.25)
    assert generator.sample(3).shape == (3, 1, 8, 8)
    latents = torch.randn(4, 6)
    with torch.no_grad():
        expected = network(latents, level=1, alpha=0.25).clamp(-1, 1)
    torch.testing.assert_close(generator.images_of(latents, torch.zeros(4, 0)), expected)


def test_smaller_sizes_can_be_asked_for_and_larger_ones_not(network, origin):
    generator = of_checkpoint(checkpoint(network, images=50), origin)
    assert generator.at_size(4).sample(1).shape == (1, 1, 4, 4)
    assert generator.alpha == 1
    with pytest.raises(UsageError, match="trained up to 8 px, not to 16"):
        generator.at_size(16)


def test_the_same_seed_makes_the_same_images_however_many(network, origin):
    generator = of_checkpoint(checkpoint(network, images=120), origin)
    assert torch.equal(generator.sample(5, seed=3)[:2], generator.sample(2, seed=3))
    assert not torch.equal(generator.sample(1, seed=3), generator.sample(1, seed=4))
    assert not torch.equal(generator.sample(1, seed=3), generator.sample(1, seed=3, truncation=0.5))
    with pytest.raises(UsageError, match="without labels"):
        generator.sample(1, labels=0)


def test_a_way_between_latents_keeps_to_the_sphere_in_equal_steps():
    """From (1, 0) to (0, 1) in a plane: 0, 30, 60 and 90 degrees, of length sqrt 2."""
    way = between(torch.tensor([5.0, 0.0]), torch.tensor([0.0, 0.1]), 4)
    angles = torch.rad2deg(torch.atan2(way[:, 1], way[:, 0]))
    torch.testing.assert_close(angles, torch.tensor([0.0, 30, 60, 90]), rtol=0, atol=1e-3)
    torch.testing.assert_close(way.norm(dim=1), torch.full((4,), 2**0.5))
    assert between(torch.ones(3), torch.ones(3), 3).isfinite().all()


def test_a_strip_leads_from_latent_to_latent(network, origin, tmp_path):
    generator = of_checkpoint(checkpoint(network, images=120), origin)
    told = []
    write_strip(generator, tmp_path / "s.png", stops=3, steps=4, seed=0, truncation=None, say=told.append)
    with Image.open(tmp_path / "s.png") as strip:
        assert strip.width == 2 * strip.height - 2  # 4 columns, 2 rows, frames of 2 px
    assert "3 latents" in told[0]


@pytest.mark.parametrize("wrapped", [True, False])
def test_files_of_older_scripts_are_shown_with_a_statement_of_what_they_lack(network, tmp_path, wrapped):
    state = network.state_dict()
    torch.save({"state_dict": state, "optimizer": {}} if wrapped else state, tmp_path / "old.pth")
    told = []
    generator = open_generator(tmp_path / "old.pth", say=told.append)
    assert generator.image_size == 16
    assert "no digest, no average of the generator and no level" in told[0]
    assert torch.equal(of_weights(state, generator.origin).sample(1), generator.sample(1))


def test_drawing_touches_no_global_stream(network, origin):
    before = torch.get_rng_state()
    of_checkpoint(checkpoint(network, images=120), origin).sample(3)
    assert torch.equal(torch.get_rng_state(), before)
