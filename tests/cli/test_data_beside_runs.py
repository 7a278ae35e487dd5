"""From start to start: what trainings write among their images never becomes data, and classes keep their names."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image
from typed import REPOSITORY

GAN = ["--data", ".", "--batch-size", 8, "--width", 4, "--threads", 1, "--fid-every", 0]
PROGAN = [
    "--data-dir", ".", "--img-size", 8, "--batch-sizes", "8,8", "--in-channels", 4, "--z-dim", 4, "--threads", 1,
    "--gradient-accumulation-steps", 1,
]  # fmt: skip

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the zygote forks")


@pytest.fixture
def photos(tmp_path):
    noise = np.random.default_rng(0)
    for number in range(24):
        path = tmp_path / "photos" / ("cats", "logs")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (40, 40, 3), np.uint8)).save(path)
    return tmp_path / "photos"


def start(zygote, script, *words, cwd):
    """What it printed; its output is no file of the data folder."""
    process = zygote.start(REPOSITORY / script, *words, cwd=cwd)
    assert process.wait() == 0, process.output()
    text = process.output()
    process.log.unlink()
    return text


def test_the_conditional_gan(zygote, photos):
    """Where a class is called ``logs`` too, and with images generated below the data."""
    start(zygote, "gan.py", *GAN, "--epochs", 1, cwd=photos)
    start(zygote, "gan.py", "generate", "--count", 3, "--out", "made/by it", cwd=photos)
    text = start(zygote, "gan.py", "--epochs", 2, cwd=photos)
    (line,) = [line for line in text.splitlines() if "belong to trainings: left out" in line]
    assert "4 in made/by it, made by ganguard" in line
    assert "in 2 classes" in text
    assert "another one" not in text
    assert len(list(photos.glob("cache/*/images.npy"))) == 1
    loaded = torch.load(photos / "checkpoints/latest_checkpoint.pth", weights_only=True)
    assert loaded["config"]["label_names"] == ["cats", "logs"]
    assert loaded["progress"]["images"] == 2 * 24


@pytest.mark.parametrize(
    "folders", [[], ["--output-dir", ".", "--logs-dir", ".", "--weights-dir", ".", "--cache-dir", "."]]
)
def test_the_progressive_gan(zygote, photos, folders):
    start(zygote, "progan_local.py", *PROGAN, *folders, "--progressive-epochs", "1,1", cwd=photos)
    if folders:
        start(zygote, "progan_local.py", "generate", *folders[4:6], "--data-dir", ".", "--count", 2, cwd=photos)
    text = start(zygote, "progan_local.py", *PROGAN, *folders, "--progressive-epochs", "1,2", cwd=photos)
    assert "belong to trainings: left out" in text
    assert "photos: 24 images" in text
    assert "another one" not in text
    assert len(list(photos.rglob("images.npy"))) == 2


def test_classes_come_back_in_another_unicode_form_and_others_are_refused_before_anything_is_decoded(zygote, photos):
    composed, decomposed = photos / "caf\u00e9", photos / "cafe\u0301"
    (photos / "cats").rename(composed)
    start(zygote, "gan.py", *GAN, "--epochs", 1, cwd=photos)
    cached, saved = sorted(photos.glob("cache/*")), sorted(photos.glob("checkpoints/*"))
    composed.rename(photos / "Caf\u00e9")
    process = zygote.start(REPOSITORY / "gan.py", "--epochs", 2, cwd=photos)
    assert process.wait() == 3, process.output()
    assert "not there: caf\u00e9" in process.output()
    assert "differ in letter case or a blank only" in process.output()
    assert "Decoding" not in process.output()
    assert (sorted(photos.glob("cache/*")), sorted(photos.glob("checkpoints/*"))) == (cached, saved)
    (photos / "Caf\u00e9").rename(decomposed)
    text = start(zygote, "gan.py", "--epochs", 2, cwd=photos)
    assert "Decoding" not in text
    assert "Resumed from" in text
    start(zygote, "gan.py", "generate", "--class", decomposed.name, "--count", 1, "--out", "out", cwd=photos)
