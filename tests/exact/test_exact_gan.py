"""Law 4 for gan.py under every loss, with classes and attributes, in both precisions, with accumulation.

Each case is stopped twice, at a batch and in another way, with saving, scoring and sampling at other intervals.
"""

import csv
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from loops import same
from systems import STOP, TERMINATE

import ganguard

GAN = Path(__file__).parents[2] / "gan.py"
BUILTIN = Path(ganguard.__file__).parent / "data" / "builtin" / "fashion-mnist-mini.zip"
TINY = [
    "--batch-size",
    "8",
    "--width",
    "4",
    "--latent-size",
    "8",
    "--epochs",
    "3",
    "--threads",
    "1",
    "--fid-samples",
    "32",
]
CLASSES = ["--limit-images", "96"]
ATTRIBUTES = ["--data", "faces", "--attributes", "attributes.csv", "--attribute-names", "bright,Wide"]
CASES = {
    "hinge": [*CLASSES],
    "hinge, attributes, bfloat16, accumulation": [*ATTRIBUTES, "--precision", "bfloat16", "--accumulation", "2"],
    "wgan-gp, attributes": ["--loss", "wgan-gp", *ATTRIBUTES],
    "wgan-gp, bfloat16, mirrored": ["--loss", "wgan-gp", *CLASSES, "--precision", "bfloat16", "--flip"],
    "relativistic, accumulation, workers": [
        "--loss",
        "relativistic",
        *CLASSES,
        "--accumulation",
        "2",
        "--workers",
        "2",
    ],
    "relativistic, attributes, bfloat16, decay": [
        *("--loss", "relativistic", *ATTRIBUTES, "--precision", "bfloat16", "--decay-epochs", "2")
    ],
}
SCORED = {"wgan-gp, attributes", "wgan-gp, bfloat16, mirrored", "relativistic, accumulation, workers"}
LOOKING = {"fid", "about", "images_per_second"}


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """96 images in one flat folder, and a table of two attributes in CelebA's form."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "faces").mkdir()
    rows = []
    with zipfile.ZipFile(BUILTIN) as archive:
        names = [name for name in archive.namelist() if name.endswith((".png", ".webp"))][::52][:96]
        for number, name in enumerate(names):
            file = f"{number:06d}{Path(name).suffix}"
            (folder / "faces" / file).write_bytes(archive.read(name))
            rows.append([file, 1 if number % 3 else -1, 1 if number % 2 else -1])
    with (folder / "attributes.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image_id", "Bright", "Wide"], *rows])
    return folder


def place(cwd, faces):
    shutil.copytree(faces, cwd, dirs_exist_ok=True)


def outcome(cwd):
    """All of the last checkpoint but what names the run, looking and what may change."""
    held = torch.load(cwd / "checkpoints" / "checkpoint_epoch_003.pth", weights_only=True)
    for name in ("ganguard", "config", "best"):
        held.pop(name)
    held["random"] = held["random"]["torch"]  # gan.py draws from no other
    history = held["history"]
    del history["scores"], history["about"], history["score"]
    history["means"] = trained(history["means"])
    history["epochs"] = [trained(row) for row in history["epochs"]]
    return held


def trained(row):
    """What training alone came to."""
    return {name: value for name, value in row.items() if name not in LOOKING}


@pytest.mark.parametrize("case", CASES)
def test_stopped_twice_and_looked_at_otherwise(zygote, faces, tmp_path, case):
    words = [*CASES[case], *TINY]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    for cwd in (whole, stopped):
        cwd.mkdir()
        place(cwd, faces)
    looking = ["--fid-every", "3" if case in SCORED else "0"]
    process = zygote.start(GAN, *words, *looking, cwd=whole)
    assert process.wait(120) == 0, process.output()

    for at, number in (("epoch_001_batch_0000", STOP), ("epoch_002_batch_0000", TERMINATE)):
        more = ["--autosave-batches", "4", "--sample-every", "2", "--fid-every", "1" if case in SCORED else "0"]
        process = zygote.start(GAN, *words, *more, cwd=stopped)
        process.until(at)
        process.signal(number)
        assert process.wait() == 128 + number, process.output()
        assert "Traceback" not in process.output()
    process = zygote.start(GAN, *words, "--fid-every", "0", cwd=stopped)
    assert process.wait(120) == 0, process.output()
    assert "resumed from step" in process.output()
    assert not same(outcome(stopped), outcome(whole))


def test_the_same_score_after_a_stop(zygote, tmp_path):
    """The score draws from a random stream of its own, afresh each time."""
    words = [*CLASSES, *TINY, "--fid-every", "2"]
    scores = []
    for name in ("whole", "stopped"):
        cwd = tmp_path / name
        cwd.mkdir()
        if name == "stopped":
            process = zygote.start(GAN, *words, "--autosave-batches", "4", cwd=cwd)
            process.until("epoch_002_batch_0000")
            process.signal(STOP)
            assert process.wait() == 128 + STOP, process.output()
        process = zygote.start(GAN, *words, cwd=cwd)
        assert process.wait(120) == 0, process.output()
        held = torch.load(cwd / "checkpoints" / "checkpoint_epoch_003.pth", weights_only=True)
        scores.append([row.get("fid") for row in held["history"]["epochs"]])
        assert held["best"]["value"] == min(score for score in scores[-1] if score)
        assert held["best"]["about"]["samples"] == 32
    assert scores[0] == scores[1]
    assert [score is None for score in scores[0]] == [True, False, False]
