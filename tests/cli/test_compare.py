"""gan.py compare as a person types it."""

import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typed import GAN, run

sys.path.append(str(Path(__file__).parents[1] / "helpers"))
from generators import networks, save_cgan, spec
from stores import damage

from ganguard.cli import cgan_pictures
from ganguard.reports import comparison
from ganguard.reports.comparison import Block, save_comparison
from ganguard.training.best import BestPair
from ganguard.training.compare import compare

SCORE = {"name": "fid", "value": 41.25, "about": {"extractor": "x", "samples": 100}}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("original")
    save_cgan(folder / "checkpoints", 2)
    for epoch in (5, 6, 10):
        save_cgan(folder / "checkpoints", epoch, score=SCORE if epoch == 5 else None)
    return folder


@pytest.fixture
def folder(original, tmp_path):
    """A copy that a test may change."""
    shutil.copytree(original, tmp_path / "run")
    return tmp_path / "run"


def typed(*words, cwd, code=0):
    done = run([*GAN, "compare"], *words, cwd=cwd)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def here(monkeypatch, capsys):
    """The same in this process, without loading torch anew each time."""

    def compare(*words, cwd, code=0):
        monkeypatch.chdir(cwd)
        before = signal.getsignal(signal.SIGINT)
        try:
            assert cgan_pictures.main(["compare", *map(str, words)], "gan.py") == code
        finally:
            signal.signal(signal.SIGINT, before)  # the end of a command ignores it
        return "".join(capsys.readouterr())

    return compare


def written(monkeypatch):
    """What is drawn, as it is handed to the picture."""
    seen = {}

    def keep(blocks, path, **options):
        seen.update(blocks=blocks, path=path, **options)

    monkeypatch.setattr("ganguard.training.compare.save_comparison", keep)
    return seen


def files(folder, *epochs):
    return [folder / f"checkpoints/checkpoint_epoch_{epoch:03d}.pth" for epoch in epochs]


def test_one_picture_whose_path_is_printed_and_that_nothing_overwrites(folder, here):
    text = typed(5, 10, cwd=folder)
    assert "epoch 5, epoch 10 beside each other: samples/compare_5_10.png" in text.replace("\\", "/")
    first = (folder / "samples/compare_5_10.png").read_bytes()
    assert "compare_5_10_2.png" in here(5, 10, "--seed", 3, cwd=folder)
    assert (
        (folder / "samples/compare_5_10.png").read_bytes()
        == first
        != (folder / "samples/compare_5_10_2.png").read_bytes()
    )


def test_the_latents_and_labels_of_the_sample_grids_go_through_each(folder, monkeypatch):
    seen = written(monkeypatch)
    assert compare(files(folder, 2, 5), folder / "out.png", seed=None, say=print) == []
    fixed = torch.load(files(folder, 2)[0], weights_only=True)["fixed"]
    for block, epoch in zip(seen["blocks"], (2, 5), strict=True):
        with torch.no_grad():
            expected = networks(epoch, spec())[0](fixed["latents"][:6], fixed["labels"][:6])
        assert torch.allclose(block.images, expected, atol=1e-6)
    assert seen["columns"] == 3
    assert seen["headings"] == [["bag"], ["boot"], ["coat"]]


def test_epoch_score_and_losses_stand_beside_each(folder, monkeypatch):
    seen = written(monkeypatch)
    compare(files(folder, 5, 6), folder / "out.png", seed=0, say=print)
    assert [block.title for block in seen["blocks"]] == ["epoch 5", "epoch 6"]
    assert seen["blocks"][0].lines == ["FID 41.25", "(x, 100 images)", "loss_d 1.5", "loss_g 0.5"]
    assert seen["blocks"][1].lines == ["FID not measured here", "loss_d 1.5", "loss_g 0.5"]


def test_scores_of_two_kinds_are_said_not_to_compare(folder, monkeypatch, capsys):
    written(monkeypatch)
    other = {**SCORE, "about": {"extractor": "y", "samples": 100}}
    files_ = [*files(folder, 5), save_cgan(folder / "checkpoints", 7, score=other)]
    compare(files_, folder / "out.png", seed=0, say=print)
    assert "cannot be compared" in capsys.readouterr().out


def test_the_best_pair_and_files_beside_epochs(folder, here):
    BestPair(folder / "models/cgan_run-a").write(*networks(4, spec()), spec=spec(), epoch=4, step=40, score=SCORE)
    text = here("best", "checkpoint_epoch_006.pth", 2, "--out", "new/a.png", cwd=folder)
    assert "epoch 4, epoch 6, epoch 2 beside each other" in text
    with Image.open(folder / "new/a.png") as picture:
        assert picture.width > comparison.TEXT_WIDTH


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([3, 5], 3, "No checkpoint of the end of epoch 3 is in checkpoints. There are 2, 5 to 6, 10."),
        ([5], 2, "Name at least two to compare"),
        ([5, 5], 2, "Name at least two to compare"),
        ([], 2, "the following arguments are required: EPOCH"),
        ([5, 10, "--out", "a.jpg"], 2, "must end in .png"),
        ([5, 10, "--sed", 3], 2, "Did you mean --seed?"),
        (["best", 5], 3, "There is no best pair of this run"),
    ],
)
def test_mistakes_are_answered_in_one_sentence(folder, words, code, message):
    assert message in typed(*words, cwd=folder, code=code)
    assert not (folder / "samples").exists()


def test_damaged_ones_are_named_and_left_out(folder, here):
    damage(files(folder, 5)[0])
    text = here(2, 5, 10, cwd=folder, code=3)
    assert "epoch 2, epoch 10 beside each other" in text
    assert "Left out: checkpoints/checkpoint_epoch_005.pth is damaged" in text.replace("\\", "/")
    for path in files(folder, 2, 10):
        damage(path)
    (folder / "samples/compare_2_5_10.png").unlink()
    assert "checkpoint_epoch_010.pth is damaged" in here(2, 10, cwd=folder, code=3)
    assert not list((folder / "samples").iterdir())


def test_generators_of_two_kinds_are_refused(folder, here):
    save_cgan(folder / "other", 1, of=spec(label_names=("a", "b")))
    text = here(5, "other/checkpoint_epoch_001.pth", cwd=folder, code=3)
    assert "of different kinds" in text


def test_every_image_is_where_it_belongs(tmp_path):
    levels = torch.linspace(-1, 1, 8).reshape(2, 4, 1, 1, 1).expand(2, 4, 1, 64, 64)
    blocks = [Block(title=f"epoch {n}", lines=["a"], images=images) for n, images in enumerate(levels)]
    save_comparison(blocks, tmp_path / "a.png", columns=2, headings=[["one"], ["two", "three"]])
    with Image.open(tmp_path / "a.png") as picture:
        shown = np.asarray(picture.convert("L"))
    left = comparison.TEXT_WIDTH + 2 * comparison.MARGIN
    top = comparison.MARGIN + 2 * comparison.HEADING_HEIGHT
    block = 2 * 66 + 2 + comparison.MARGIN
    found = [
        shown[top + 34 + n * block + row * 66, left + 34 + column * 66]
        for n in (0, 1)
        for row in (0, 1)
        for column in (0, 1)
    ]
    assert found == [round((float(level) + 1) * 127.5) for level in torch.linspace(-1, 1, 8)]
    assert shown[:top, left : left + 66].min() < 100  # the heading
    assert shown[top : top + comparison.TITLE_HEIGHT, : left - 10].min() < 100  # the title
    assert (shown[-comparison.MARGIN :] == 255).all()
