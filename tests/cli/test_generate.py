"""gan.py generate as a person types it: what it writes, what it answers to mistakes, what it leaves alone."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typed import GAN, TINY, run

sys.path.append(str(Path(__file__).parents[1] / "helpers"))
from generators import CLASSES, networks, save_cgan, spec
from stores import damage, needs_root, small_disk
from systems import remove

import ganguard
from ganguard.cli import cgan, cgan_pictures
from ganguard.store import catalog, runfile
from ganguard.training.best import BestPair


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of two epochs; tests write beside it only."""
    folder = tmp_path_factory.mktemp("run")
    for epoch in (1, 2):
        save_cgan(folder / "checkpoints", epoch, alias=True)
    return folder


@pytest.fixture(scope="module")
def attributes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("attributes")
    of = spec(label_names=("Smiling", "Male"), multi_label=True, channels=3)
    save_cgan(folder / "checkpoints", 1, of=of)
    return folder


def generate(*words, cwd, code=0):
    done = run([*GAN, "generate"], *words, cwd=cwd)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def here(monkeypatch, capsys):
    """The same in this process, without loading torch anew each time."""

    def generate(*words, cwd, code=0):
        monkeypatch.chdir(cwd)
        before = signal.getsignal(signal.SIGINT)
        try:
            assert cgan_pictures.main(["generate", *map(str, words)], "gan.py") == code
        finally:
            signal.signal(signal.SIGINT, before)  # the end of a command ignores it
        return "".join(capsys.readouterr())

    return generate


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def tree(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_single_images_and_a_grid_of_all_classes_in_turn(folder, tmp_path):
    before = tree(folder)
    text = generate("--count", 7, "--seed", 5, "--out", tmp_path / "out", cwd=folder)
    assert f"7 images of epoch 2 are in {tmp_path / 'out'}, a grid in {tmp_path / 'out' / 'grid.png'}" in text
    in_turn = [CLASSES[place % 3] for place in range(7)]
    expected = [f"{place:05d}_{name}.png" for place, name in enumerate(in_turn)]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [*expected, "grid.png"]
    images = ganguard.load_generator(folder / "checkpoints").sample(7, seed=5)
    for name, image in zip(expected, images, strict=True):
        assert (pixels(tmp_path / "out" / name) == ((image[0] + 1) * 127.5).round().numpy()).all()
    assert pixels(tmp_path / "out/grid.png").shape[1] == 3 * 66 + 2  # a column a class
    assert tree(folder) == before


def test_what_exists_is_never_written_over(folder, here, tmp_path):
    out = tmp_path / "out"
    words = ("--count", 2, "--class", "coat", "--truncation", 0.5, "--checkpoint", 1, "--out")
    here(*words, out, cwd=folder)
    first = tree(out)
    assert f"are in {tmp_path / 'out_2'}, a grid" in here(*words, out, cwd=folder)
    assert tree(out) == first
    assert [path.read_bytes() for path in sorted((tmp_path / "out_2").iterdir())] == list(first.values())
    assert len({first[out / "00000_coat.png"], first[out / "00001_coat.png"]}) == 2


def test_without_out_images_go_into_the_runs_folder(folder, here, tmp_path):
    shutil.copytree(folder / "checkpoints", tmp_path / "run" / "checkpoints")
    for name in ("generated", "generated_2"):
        assert f"1 image of epoch 2 is in run/{name}, " in here("--run-dir", "run", "--count", 1, cwd=tmp_path)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["checkpoints", "generated", "generated_2"]


def test_options_may_stand_before_the_command(folder, tmp_path, monkeypatch, capsys):
    """Those of the training are at hand: what people add to its command."""
    monkeypatch.chdir(tmp_path)
    before, signals = torch.get_num_threads(), signal.getsignal(signal.SIGINT)
    try:
        words = ["--threads", "1", "--device", "auto", "--run-dir", str(folder)]
        assert cgan.main([*words, "generate", "--count", "1", "--out", "generate"]) == 0
        assert torch.get_num_threads() == 1
        assert cgan.main([*words, "compare", "1", "2", "--out", "two.png"]) == 0
        assert cgan.main(["generate", "--threads", "2", "--run-dir", str(folder), "--count", "1", "--out", "b"]) == 0
        assert torch.get_num_threads() == 2
        for wrong in (["--threads", "0", "generate"], ["generate", "--device", "toaster"]):
            assert cgan.main([*wrong, "--run-dir", str(folder), "--out", "c"]) == 2
        with pytest.raises(SystemExit):
            cgan.main(["--epochs", "3", "generate"])
    finally:
        torch.set_num_threads(before)
        signal.signal(signal.SIGINT, signals)
    assert {path.name for path in tmp_path.iterdir()} == {"generate", "two.png", "b"}
    assert "unrecognized arguments: --epochs 3" in capsys.readouterr().err


def test_one_image_of_a_class_in_any_letter_case(folder, here, tmp_path):
    text = here("--class", "COAT", "--count", 1, "--out", tmp_path / "one", cwd=folder)
    assert "1 image of epoch 2 is in" in text
    assert (tmp_path / "one/00000_coat.png").exists()


def test_attributes_in_any_order(attributes, here, tmp_path):
    here("--attributes", "Male, Smiling", "--count", 2, "--out", tmp_path / "both", cwd=attributes)
    assert (tmp_path / "both/00000_Smiling_Male.png").exists()
    here("--attributes", "none", "--count", 2, "--out", tmp_path / "none", cwd=attributes)
    assert pixels(tmp_path / "none/00000_none.png").shape == (8, 8, 3)


def test_the_best_pair_of_the_run(folder, here, tmp_path):
    shutil.copytree(folder / "checkpoints", tmp_path / "checkpoints")
    BestPair(tmp_path / "models/cgan_run-a").write(*networks(9, spec()), spec=spec(), epoch=9, step=90, score={})
    BestPair(tmp_path / "models/cgan_other").write(*networks(8, spec()), spec=spec(), epoch=8, step=80, score={})
    assert "images of epoch 9" in here("--checkpoint", "best", "--count", 2, "--out", "out", cwd=tmp_path)
    assert "images of epoch 8" in here("--checkpoint", "models/cgan_other", "--count", 2, "--out", "b", cwd=tmp_path)


def test_the_only_best_pair_where_the_checkpoints_are_gone(here, tmp_path):
    BestPair(tmp_path / "models/cgan_a").write(*networks(9, spec()), spec=spec(), epoch=9, step=90, score={})
    assert "images of epoch 9" in here("--checkpoint", "best", "--count", 2, "--out", "out", cwd=tmp_path)
    BestPair(tmp_path / "models/cgan_b").write(*networks(8, spec()), spec=spec(), epoch=8, step=80, score={})
    text = here("--checkpoint", "best", "--count", 2, "--out", "b", cwd=tmp_path, code=3)
    assert "there are models/cgan_a/best_generator.pth, models/cgan_b/best_generator.pth" in text.replace(os.sep, "/")


BEST = {"name": "fid", "value": 41.25, "epoch": 1, "step": 10, "about": {}}


def branched(folder, *, at=1, best=BEST):
    """A run of 3 epochs that went back to an earlier one, whose checkpoint is the only one of them left, to go on."""
    start = save_cgan(folder / "checkpoints", at, best=best)
    run = runfile.Run(run="run-a").branched_from(catalog.read(start).summary)
    runfile.write(folder / "checkpoints", run)
    save_cgan(folder / "checkpoints", at + 1, branch=1, lineage=run.lineage, best=best)


def write_best(folder, epoch):
    score = {"name": "fid", "value": 41.25, "about": {}}
    BestPair(folder).write(*networks(epoch, spec()), spec=spec(), epoch=epoch, step=10 * epoch, score=score)


def test_a_branch_takes_over_the_best_from_before_it(here, tmp_path):
    branched(tmp_path)
    write_best(tmp_path / "models/cgan_run-a", 1)
    text = here("--checkpoint", "best", "--count", 2, "--out", "out", cwd=tmp_path)
    assert "The best of this branch so far is in models/cgan_run-a/best_generator.pth." in text.replace(os.sep, "/")
    assert "images of epoch 1 are" in text
    write_best(tmp_path / "models/cgan_run-a_branch_1", 2)
    assert "images of epoch 2 are" in here("--checkpoint", "best", "--count", 2, "--out", "own", cwd=tmp_path)


def test_a_best_from_after_the_branch_point_is_none_of_the_branch(here, tmp_path):
    branched(tmp_path)
    write_best(tmp_path / "models/cgan_run-a", 3)
    text = here("--checkpoint", "best", "--count", 2, "--out", "out", cwd=tmp_path, code=3).replace(os.sep, "/")
    assert "that of epoch 1, fid 41.25, is gone. Of other runs and branches there are models/cgan_run-a/best" in text


def test_a_pair_that_was_not_the_best_where_the_branch_began_is_not_taken(here, tmp_path):
    branched(tmp_path, at=2, best={**BEST, "epoch": 2, "step": 20})
    write_best(tmp_path / "models/cgan_run-a", 1)
    here("--checkpoint", "best", "--count", 2, "--out", "out", cwd=tmp_path, code=3)


def test_the_best_checkpoint_stands_in_where_its_pair_was_replaced(here, tmp_path):
    save_cgan(tmp_path / "checkpoints", 1, best=BEST, score=BEST)
    branched(tmp_path, at=2)
    write_best(tmp_path / "models/cgan_run-a", 3)
    text = here("--checkpoint", "best", "--count", 2, "--out", "out", cwd=tmp_path)
    assert "so far is in checkpoints/checkpoint_epoch_001.pth." in text.replace(os.sep, "/")


def test_the_help_comes_at_once_and_without_torch(tmp_path):
    began = time.monotonic()
    text = generate("--help", cwd=tmp_path)
    assert time.monotonic() - began < 5  # importing torch takes half of that on an idle machine
    for option in (
        "--checkpoint",
        "--class",
        "--attributes",
        "--count",
        "--seed",
        "--truncation",
        "--out",
        "--run-dir",
    ):
        assert option in text
    code = "import sys; from ganguard.cli import cgan_pictures; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--count", "0"], 2, "--count must be at least 1, not 0."),
        (["--seed", "-3"], 2, "--seed must be at least 0, not -3."),
        (["--count", "many"], 2, "invalid int value"),
        (["--truncation", "0"], 2, "--truncation must be above 0"),
        (["--truncation", "nan"], 2, "--truncation must be above 0"),
        (["--clas", "3"], 2, "Did you mean --class?"),
        (["--class", "3", "--attributes", "Male"], 2, "not allowed with"),
        (["--checkpoint", "7"], 3, "No checkpoint of the end of epoch 7 is in checkpoints. There are 1 to 2."),
        (["--checkpoint", "best"], 3, "There is no best pair of this run in models"),
        (["--run-dir", "elsewhere"], 3, "no checkpoint in elsewhere"),
    ],
)
def test_mistakes_are_answered_in_one_sentence(folder, tmp_path, words, code, message):
    """These are found before torch is loaded."""
    text = generate(*words, "--out", tmp_path / "out", cwd=folder, code=code)
    assert message in text
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--class", "boots"], 2, "There is no class boots. Did you mean boot?"),
        (["--class", "3"], 2, "the 3 classes count from 0 to 2"),
        (["--attributes", "Male"], 2, "knows classes (bag, boot, coat), not attributes: use --class"),
        (["--checkpoint", "checkpoint_epoch_011.pth"], 3, "Did you mean checkpoints/checkpoint_epoch_001.pth?"),
        (["--device", "toaster"], 2, "sees no device toaster"),
    ],
)
def test_mistakes_that_the_checkpoint_shows(folder, here, tmp_path, words, code, message):
    text = here(*words, "--out", tmp_path / "out", cwd=folder, code=code)
    assert message in text.replace(os.sep, "/")
    assert not list(tmp_path.iterdir())


def test_a_damaged_checkpoint_is_named_and_the_newest_good_one_taken(folder, here, tmp_path):
    shutil.copytree(folder / "checkpoints", tmp_path / "checkpoints")
    remove(tmp_path / "checkpoints/latest_checkpoint.pth")
    damage(tmp_path / "checkpoints/checkpoint_epoch_002.pth")
    text = here("--checkpoint", 2, "--count", 2, "--out", "out", cwd=tmp_path, code=3)
    assert "checkpoint_epoch_002.pth is damaged" in text
    assert not (tmp_path / "out").exists()
    text = here("--count", 2, "--out", "out", cwd=tmp_path)
    assert "images of epoch 1" in text
    assert "checkpoint_epoch_002.pth is damaged" in text
    assert "Taken instead: checkpoints/checkpoint_epoch_001.pth." in text.replace(os.sep, "/")


def test_an_intact_copy_beside_the_damaged_newest_is_taken_and_said(folder, here, tmp_path):
    shutil.copytree(folder / "checkpoints", tmp_path / "checkpoints")
    newest, alias = (tmp_path / "checkpoints" / name for name in ("checkpoint_epoch_002.pth", "latest_checkpoint.pth"))
    remove(alias)
    shutil.copy(newest, alias)
    damage(newest)
    for words in ([], ["--checkpoint", "latest_checkpoint.pth"]):
        text = here(*words, "--count", 2, "--out", "out", cwd=tmp_path)
        assert "images of epoch 2 are in" in text
        assert ("checkpoint_epoch_002.pth is damaged" in text) == (not words)
    here("--checkpoint", newest, "--count", 2, "--out", "out", cwd=tmp_path, code=3)  # a named file and no other


@needs_root
def test_a_full_disk_says_how_many_there_are(folder, here, tmp_path):
    with small_disk(tmp_path / "disk", "64k") as disk:
        text = here("--count", 200, "--out", disk / "out", cwd=folder, code=2)
        assert "of 200 images are in" in text
        assert "the disk is full" in text


@pytest.mark.parametrize("out", ["/proc/none", "file"])
def test_a_folder_that_cannot_be_written(folder, here, tmp_path, out):
    (tmp_path / "file").touch()
    text = here("--count", 2, "--out", tmp_path / out, cwd=folder, code=2)
    assert "--out" in text
    assert "gone" not in text  # it never was


def test_a_checkpoint_that_gan_py_wrote(tmp_path):
    assert run(GAN, *TINY, "--epochs", 1, "--sample-every", 0, cwd=tmp_path).returncode == 0
    generate("--count", 20, "--out", "out", cwd=tmp_path)
    loaded = torch.load(tmp_path / "checkpoints/latest_checkpoint.pth", weights_only=True)
    generator = ganguard.load_generator(tmp_path)
    assert all(torch.equal(value, loaded["ema"][key]) for key, value in generator.module.state_dict().items())
    image = pixels(next((tmp_path / "out").glob("00013_*.png")))
    assert (image == ((generator.sample(1, first=13)[0, 0] + 1) * 127.5).round().numpy()).all()
