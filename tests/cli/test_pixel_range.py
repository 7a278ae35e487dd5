"""A run keeps the pixel range that it began with: what it sees never changes unasked. For both trainers."""

import numpy as np
import pytest
import torch
from deep_images import class_folders, gray, ramp
from typed import REPOSITORY

GAN = [
    *("--data", "data", "--image-size", "32", "--channels", "1", "--batch-size", "4", "--width", "4"),
    *("--latent-size", "4", "--fid-every", "0", "--threads", "1", "--device", "cpu", "--checkpoint-interval", "1"),
]
PROGAN = [
    *("--data-dir", "data", "--channels-img", "1", "--batch-sizes", "4,4", "--in-channels", "4", "--z-dim", "4"),
    *("--threads", "1", "--device", "cpu"),
]
TRAINERS = {
    "gan.py": (GAN, "--epochs={}", "checkpoints/latest_checkpoint.pth"),
    "progan_local.py": (PROGAN, "--progressive-epochs={},0", "weights/generator_*_local.pth"),
}
AS_AN_EARLIER_VERSION = """
import runpy, sys
from ganguard import guard
made = guard.Guard.__init__
def without_range(self, folder, parts, *, config, may_change, **options):
    config = {name: value for name, value in config.items() if name not in ("pixel_range", "max_pixels")}
    made(self, folder, parts, config=config, may_change=set(may_change) & set(config), **options)
guard.Guard.__init__ = without_range
sys.argv += ["--pixel-range", "full"]
runpy.run_path(SCRIPT, run_name="__main__")
"""


@pytest.fixture
def train(request, zygote, tmp_path):
    """Runs a trainer to an epoch's end; gives (exit code, what it said)."""
    words, epochs, checkpoint = TRAINERS[request.param]
    script = REPOSITORY / request.param

    def run(*more, epoch, script=script):
        process = zygote.start(script, *words, epochs.format(epoch), *more, cwd=tmp_path)
        return process.wait(120), process.output()

    def recorded():
        (newest,) = tmp_path.glob(checkpoint)
        return torch.load(newest, weights_only=True)["config"]["pixel_range"]

    run.recorded, run.script = recorded, script
    return run


@pytest.fixture
def data(tmp_path):
    """12 bits of 16."""
    return class_folders(tmp_path / "data", [gray(ramp(4095))] * 4)


def cached(folder):
    """The greatest value in each of the caches."""
    return {path: int(np.load(path).max()) for path in (folder / "cache").glob("*/images.npy")}


@pytest.mark.parametrize("train", TRAINERS, indirect=True)
def test_a_resume_keeps_the_range_though_brighter_images_were_added(train, data, tmp_path):
    code, said = train(epoch=1)
    assert code == 0, said
    assert "0 becomes black, 4095 white" in said
    assert train.recorded() == "0:4095"
    class_folders(data, [gray(ramp(4095))] * 4 + [gray(ramp(65535))] * 2)
    caches = sorted((tmp_path / "cache").iterdir())
    code, said = train("--pixel-range", "0:65535", epoch=2)
    assert code == 3, said
    assert "pixel_range: 0:65535 here, 0:4095 in the checkpoint" in said
    assert "--no-checkpoint" in said
    assert sorted((tmp_path / "cache").iterdir()) == caches  # refused before anything was decoded
    code, said = train("--pixel-range", "auto", epoch=2)
    assert code == 0, said
    assert "0 becomes black, 4095 white" in said
    assert "these values would make it 0:65535: a new run with --pixel-range=0:65535 takes that" in said
    assert train.recorded() == "0:4095"


@pytest.mark.parametrize("train", ["gan.py"], indirect=True)
def test_a_run_of_an_earlier_version_goes_on_with_what_it_saw(train, data, tmp_path):
    """It was trained with the upper 8 bits, dark as they were; that is told, and another range is refused."""
    earlier = tmp_path / "earlier.py"
    earlier.write_text(AS_AN_EARLIER_VERSION.replace("SCRIPT", repr(str(train.script))))
    code, said = train(epoch=1, script=earlier)
    assert code == 0, said
    caches = cached(tmp_path)
    assert train("--pixel-range", "0:4095", epoch=2)[0] == 3
    code, said = train(epoch=2)
    assert code == 0, said
    assert "a new run with --pixel-range=0:4095 takes that" in said
    assert "Decoding" not in said
    assert cached(tmp_path) == caches
    assert max(caches.values()) <= 15
    assert train.recorded() == "full"
