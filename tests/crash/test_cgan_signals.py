"""Stops of gan.py before its training began: nothing is lost, the exit code says it, and the next start works."""

import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from systems import STOP, WINDOWS

GAN = Path(__file__).parents[2] / "gan.py"
TINY = ["--batch-size", 8, "--width", 4, "--epochs", 1, "--threads", 1, "--fid-every", 0, "--sample-every", 0]


@pytest.fixture
def photos(tmp_path):
    noise = np.random.default_rng(0)
    for number in range(40):
        path = tmp_path / "photos" / ("a", "b")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (512, 512, 3), np.uint8)).save(path, compress_level=0)
    return tmp_path


@pytest.mark.parametrize("number", [STOP] if WINDOWS else [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_while_images_are_decoded(zygote, photos, number):
    process = zygote.start(GAN, "--data", "photos", *TINY, cwd=photos)
    deadline = time.monotonic() + 60
    while not list(photos.glob("cache/*.building-*")):
        assert time.monotonic() < deadline, process.output()
        time.sleep(0.002)
    process.signal(number)
    assert process.wait() == 128 + number, process.output()
    assert "Stopped before anything began; nothing was changed." in process.output()
    assert "Traceback" not in process.output()
    assert not list(photos.glob("checkpoints/*.pth"))
    process = zygote.start(GAN, "--data", "photos", *TINY, cwd=photos)
    assert process.wait() == 0, process.output()
