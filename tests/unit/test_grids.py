"""Sample grids."""

import numpy as np
import pytest
import torch
from PIL import Image

from ganguard.errors import UsageError
from ganguard.marking import is_marked
from ganguard.networks.cgan_spec import CganSpec
from ganguard.reports import grids
from ganguard.reports.curves import save_curves
from ganguard.reports.grids import CAPTION_HEIGHT, GAP, save_grid, tile_scale
from ganguard.reports.pictures import save_png, to_pictures
from ganguard.training.cgan_samples import FixedLatents


def read(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_every_pixel_is_where_it_belongs(tmp_path):
    levels = torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0])
    images = levels[:, None, None, None].expand(5, 1, 64, 64).clone()
    images[0, 0, 0, 63] = 1
    save_grid(images, tmp_path / "grid.png", columns=3)
    pixels = read(tmp_path / "grid.png")
    assert pixels.shape == (2 * (64 + GAP) + GAP, 3 * (64 + GAP) + GAP)
    corners = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    shown = [pixels[GAP + 20 + row * (64 + GAP), GAP + 20 + column * (64 + GAP)] for row, column in corners]
    assert shown == [0, 64, 128, 191, 255]
    assert pixels[GAP, GAP + 63] == 255
    assert pixels[GAP, GAP + 62] == 0
    assert (pixels[-64:, -64:] == 255).all()  # the sixth place is empty


def test_small_images_are_enlarged_by_a_whole_factor(tmp_path):
    image = torch.rand(1, 3, 16, 16) * 2 - 1
    save_grid(image, tmp_path / "grid.png", columns=1)
    pixels = read(tmp_path / "grid.png")
    scale = tile_scale(16, 16)
    assert scale == 4
    assert pixels.shape == (64 + 2 * GAP, 64 + 2 * GAP, 3)
    expected = ((image[0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    assert (pixels[GAP:-GAP:scale, GAP:-GAP:scale] == expected).all()
    assert [tile_scale(side, side) for side in (28, 32, 64, 128)] == [2, 2, 1, 1]


@pytest.mark.parametrize("channels", [1, 3])
def test_class_names_stand_above_their_columns(tmp_path, channels):
    white = torch.ones(4, channels, 32, 32)
    save_grid(white, tmp_path / "a.png", columns=2, class_names=["", "Bolsa"])
    pixels = read(tmp_path / "a.png")
    assert pixels.shape[0] == CAPTION_HEIGHT + 2 * (64 + GAP) + GAP
    captions = pixels[:CAPTION_HEIGHT]
    middle = captions.shape[1] // 2
    assert (captions[:, :middle] == 255).all()
    assert captions[:, middle:].min() < 100
    assert (pixels[CAPTION_HEIGHT:] == 255).all()


@pytest.mark.parametrize("name", ["W" * 200, "上衣 \N{GRINNING FACE}", "two\nlines", "\udcff", "Calção"])
def test_no_name_fails_or_leaves_its_place(tmp_path, name):
    save_grid(torch.ones(2, 1, 32, 32), tmp_path / "grid.png", columns=2, class_names=[name, ""])
    pixels = read(tmp_path / "grid.png")
    captions = pixels[:CAPTION_HEIGHT]
    assert captions[:, : 64 + GAP].min() < 255
    assert (pixels[CAPTION_HEIGHT:] == 255).all()
    assert (captions[:, 64 + GAP :] == 255).all()


def test_values_outside_the_range_are_clipped(tmp_path):
    images = torch.tensor([-3.0, 3.0])[:, None, None, None].expand(2, 1, 64, 64)
    save_grid(images, tmp_path / "g.png", columns=2)
    pixels = read(tmp_path / "g.png")
    assert pixels[GAP, GAP] == 0
    assert pixels[GAP, -GAP - 1] == 255


def test_the_file_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "samples" / "grid.png"
    save_grid(torch.zeros(1, 1, 32, 32), path, columns=1)
    before = path.read_bytes()

    def fail(_, file, **__):
        file.write_bytes(b"half of a pic")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="No space"):
        save_grid(torch.ones(1, 1, 32, 32), path, columns=1)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_no_random_numbers_are_drawn(tmp_path):
    before = torch.get_rng_state()
    save_grid(torch.zeros(2, 1, 32, 32), tmp_path / "g.png", columns=2, class_names=["a", "b"])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("shape", "columns"), [((0, 1, 8, 8), 1), ((1, 2, 8, 8), 1), ((8, 8), 1), ((1, 1, 8, 8), 0)])
def test_what_is_no_grid_is_a_usage_error(tmp_path, shape, columns):
    with pytest.raises(UsageError, match="a grid takes"):
        save_grid(torch.zeros(shape), tmp_path / "g.png", columns=columns)
    assert not list(tmp_path.iterdir())


def test_the_module_loads_neither_torch_nor_pillow():
    import subprocess
    import sys

    code = f"import sys, {grids.__name__}; sys.exit(bool({{'torch', 'PIL'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_pictures_say_in_png_itself_that_ganguard_made_them(tmp_path):
    """Where they are copied to, they are told from images to train on."""
    save_grid(torch.zeros(4, 1, 8, 8), tmp_path / "grid.png", columns=2, class_names=["a", "b"])
    save_png(to_pictures(torch.zeros(1, 3, 8, 8))[0], tmp_path / "one.png")
    save_curves([{"epoch": 1, "step": 3, "loss": 1.0}], tmp_path / "curves.png")
    for path in tmp_path.iterdir():
        with Image.open(path) as picture:
            assert picture.info["Software"] == "ganguard"
        assert is_marked(path.read_bytes()[:512])


def test_fixed_latents_with_class_numbers_have_columns_with_names():
    """As the first checkpoints hold them."""
    spec = CganSpec(image_size=32, channels=1, width=4, latent_size=5, label_names=("a", "b"), multi_label=False)
    fixed = FixedLatents(torch.eye(2), latent_size=5, seed=0)
    latents = torch.ones_like(fixed.latents)
    fixed.load_state_dict({"latents": latents, "labels": torch.tensor([1, 0] * (len(latents) // 2))})
    assert fixed.names(spec) == ["b", "a"]
