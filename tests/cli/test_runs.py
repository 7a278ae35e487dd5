"""A run is tied to its images, not to the name of the folder that they lie in: typed as a person types it.

Every command that is printed is typed here too.
"""

import datetime
import json
import os
import re
import shlex
import shutil
import signal
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import xxhash
from PIL import Image
from systems import remove, remove_tree

from ganguard.cli import cgan, progan
from ganguard.store import envelope, runfile

TINY = [
    "--img-size", "8", "--batch-sizes", "8,8", "--in-channels", "4", "--z-dim", "4", "--threads", "1",
    "--gradient-accumulation-steps", "1", "--device", "cpu", "--progressive-epochs",
]  # fmt: skip
TINY_GAN = [
    "--width", "4", "--batch-size", "8", "--threads", "1", "--fid-every", "0", "--device", "cpu", "--epochs",
]  # fmt: skip


def draw(folder, count=12, *, seed, classes=("",), first=0):
    """Images whose names, sizes in pixels and numbers are those of any other such folder."""
    numbers = np.random.default_rng(seed)
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(first, first + count):
            pixels = numbers.integers(0, 255, (12, 12, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index:03d}.bmp")  # all of one length


@pytest.fixture
def type_(tmp_path, monkeypatch, capfd):
    """Types words, or a whole command that was printed; gives (exit code, what was printed)."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # drawing takes longer than all else here
    before = signal.getsignal(signal.SIGINT)

    def type_it(*words, command=progan, cwd=tmp_path):
        if len(words) == 1 and " " in str(words[0]):
            _, script, *words = shlex.split(words[0])
            command = {"gan.py": cgan, "progan_local.py": progan}[script]
        words = [str(word) for word in words]
        script = "gan.py" if command is cgan else "progan_local.py"
        monkeypatch.setattr(sys, "orig_argv", ["python", script, *words])
        monkeypatch.chdir(cwd)
        try:
            code = command.main(words)
        except SystemExit as left:
            code = left.code
        finally:
            signal.signal(signal.SIGINT, before)
        captured = capfd.readouterr()
        return code, captured.out + captured.err

    return type_it


def printed(text, what):
    """The command that ``text`` prints after ``what``."""
    (command,) = re.findall(rf"{re.escape(what)}:  (.+)$", text, re.MULTILINE)
    return command


def images_seen(folder, name):
    return torch.load(folder / "weights" / f"generator_{name}_local.pth", weights_only=True)["progress"]["images"]


def of_which(folder, name):
    loaded = torch.load(folder / "weights" / f"generator_{name}_local.pth", weights_only=True)
    return Path(loaded["config"]["data"]).relative_to(folder).as_posix()


def test_two_folders_of_one_name_are_two_runs(type_, tmp_path):
    draw(tmp_path / "cats" / "train", seed=1)
    draw(tmp_path / "dogs" / "train", seed=2)
    assert type_("--data-dir", "cats/train", *TINY, "1,1")[0] == 0
    before = (tmp_path / "weights/generator_cats_local.pth").read_bytes()
    code, text = type_("--data-dir", "dogs/train", *TINY, "1,2")
    assert code == 0, text
    assert "resumed from step" not in text
    assert (tmp_path / "weights/generator_cats_local.pth").read_bytes() == before
    assert images_seen(tmp_path, "dogs") == 36

    go_on = printed(text, f"cats (in epoch 2, on {tmp_path}/cats/train). To go on with it")
    code, text = type_(go_on)
    assert (code, "resumed from step 4" in text) == (0, True), text
    assert images_seen(tmp_path, "cats") == 36


@pytest.fixture
def trained(type_, tmp_path):
    """A run of two epochs on cats."""
    draw(tmp_path / "a" / "cats", seed=1)
    code, text = type_("--data-dir", "a/cats", *TINY, "1,1")
    assert code == 0, text
    return tmp_path


@pytest.mark.parametrize("where", ["another folder", "the same folder"])
def test_one_name_and_other_images_stop_with_two_commands_that_say_which_is_meant(trained, type_, where):
    data = "b/cats" if where == "another folder" else "a/cats"
    shutil.rmtree(trained / "a", ignore_errors=where == "another folder")
    draw(trained / data, seed=2)
    files = {path: path.read_bytes() for path in trained.rglob("weights/**/*.*")}
    code, text = type_("--data-dir", data, *TINY, "1,2")
    assert code == 3
    assert "Traceback" not in text
    assert "decoding" not in text
    assert {path: path.read_bytes() for path in trained.rglob("weights/**/*.*")} == files

    shutil.copytree(trained / "weights", trained / "kept")
    own = printed(text, "To begin a run of its own on them")
    for resumed in (False, True):  # the same command goes on
        code, said = type_(own.replace("1,2", "1,3") if resumed else own)
        assert (code, "resumed from step" in said) == (0, resumed), said
    name = shlex.split(own)[-1]
    assert images_seen(trained, name) == 48
    assert images_seen(trained, "cats") == 24
    if where == "the same folder":  # the run on these very images is named, and no other is begun
        code, said = type_("--data-dir", data, *TINY, "1,3")
        assert code == 3
        assert "To begin a run" not in said
        code, said = type_(re.search(rf"To go on with {name} .*, which has these:  (.*)$", said, re.MULTILINE)[1])
        assert (code, "resumed from step" in said) == (0, True), said

    remove_tree(trained / "weights")
    (trained / "kept").rename(trained / "weights")
    code, said = type_(printed(text, "To go on with cats on these images"))
    assert (code, "resumed from step 4" in said) == (0, True), said
    assert "The data set is another one now" in said
    code, said = type_("--data-dir", data, *TINY, "1,3")
    assert (code, "resumed from step" in said, "another one now" in said) == (0, True, False), said
    assert images_seen(trained, "cats") == 48


def test_images_added_removed_copied_or_moved_with_their_folder_are_the_same_run(trained, type_):
    draw(trained / "a" / "cats", 20, seed=3, first=100)
    for index in range(4):
        (trained / "a" / "cats" / f"{index:03d}.bmp").unlink()
    code, text = type_("--data-dir", "a/cats", *TINY, "1,2")
    assert (code, "resumed from step" in text) == (0, True), text
    (trained / "new").mkdir()
    shutil.copytree(trained / "a", trained / "new" / "b", copy_function=shutil.copyfile)  # other times
    shutil.rmtree(trained / "a")
    shutil.move(trained / "weights", trained / "new")
    code, text = type_("--data-dir", "b/cats", *TINY, "1,3", cwd=trained / "new")
    assert (code, "resumed from step" in text) == (0, True), text
    assert of_which(trained / "new", "cats") == "b/cats"


def test_a_renamed_folder_stops_and_says_which_run_has_its_images(trained, type_):
    draw(trained / "fish", seed=4)
    assert type_("--data-dir", "fish", *TINY, "1,0")[0] == 0
    (trained / "a" / "cats").rename(trained / "a" / "retina")
    code, text = type_("--data-dir", "a/retina", *TINY, "1,2")
    assert code == 3
    first, second = (line for line in text.splitlines() if line.startswith("  ") and " (in epoch" in line)
    assert first.startswith("  On these very images: cats (")
    assert second.startswith("  fish (")
    go_on = printed(text, f"cats (in epoch 2, on {trained}/a/cats). To go on with it")
    code, said = type_(go_on)
    assert (code, "resumed from step 4" in said) == (0, True), said
    assert "another one now" not in said  # an epoch under way would go on
    code, said = type_("--data-dir", "a/retina", *TINY, "1,3")  # now the run knows where its images are
    assert (code, "resumed from step" in said) == (0, True), said

    code, said = type_(printed(text, "To begin a new run").replace("1,2", "1,0"))
    assert (code, "resumed from step" in said) == (0, False), said
    assert images_seen(trained, "retina") == 12
    assert type_(printed(text, "To begin a new run"))[1].count("resumed from step") == 1
    code, said = type_("--data-dir", "a/retina", *TINY, "1,2")  # two runs have it now: that of its name is meant
    assert (code, images_seen(trained, "retina")) == (0, 36), said


def test_a_run_begun_under_an_earlier_versions_name_goes_on_by_the_same_command(trained, type_):
    """They took the last folder's name, and recorded where the images lay and no more."""
    draw(trained / "dogs" / "train", seed=1)
    old = ["--data-dir", "dogs/train", *TINY]
    code, text = type_(*old, "1,1", "--run-name", "train")
    assert code == 0, text
    forget_sketches(trained / "weights")
    code, text = type_(*old, "1,2")
    assert (code, "resumed from step 4" in text) == (0, True), text
    assert images_seen(trained, "train") == 36
    draw(trained / "owls" / "train", seed=2)
    code, text = type_("--data-dir", "owls/train", *TINY, "1,0")
    assert (code, "resumed from step" in text) == (0, False), text
    assert images_seen(trained, "owls") == 12
    code, text = type_("generate", "--data-dir", "dogs/train", "--count", 1)
    assert code == 0, text
    assert "epoch 3" in text


def test_a_run_without_a_sketch_is_not_trained_on_with_another_folders_images(trained, type_):
    forget_sketches(trained / "weights")
    draw(trained / "b" / "cats", seed=2)
    code, text = type_("--data-dir", "b/cats", *TINY, "1,2")
    assert code == 3
    assert type_(printed(text, "To begin a run of its own on them"))[0] == 0
    (trained / "a" / "cats").rename(trained / "cats")  # moved: nothing speaks against it
    remove(trained / "weights" / "run_b_cats.json")
    for path in trained.glob("weights/**/*b_cats*"):
        remove(path)
    code, text = type_("--data-dir", "cats", *TINY, "1,2")
    assert (code, "resumed from step" in text) == (0, True), text


def forget_sketches(weights):
    """Make checkpoints such as earlier versions wrote: the summary at a file's end is all that a start looks at."""
    for path in weights.rglob("generator_*.pth"):
        data, about = path.read_bytes(), envelope.verify(path)
        about["config"] = {key: value for key, value in about["config"].items() if key != "_images"}
        text = json.dumps(about, separators=(",", ":")).encode()
        footer = b"\n%s %05d %s" % (envelope.MAGIC, len(text), xxhash.xxh3_128_hexdigest(text).encode())
        remove(path)  # a link's other names keep what they have
        length = struct.pack("<H", len(text) + len(footer))
        path.write_bytes(data[: about["bytes"] - 2] + length + text + footer)
        assert "config" in envelope.verify(path)


def test_a_demanded_checkpoint_that_is_not_there_names_the_runs_that_are(trained, type_):
    draw(trained / "fish", seed=4)
    code, text = type_("--data-dir", "fish", *TINY, "1,2", "--load-model")
    assert code == 3
    code, said = type_(printed(text, f"cats (in epoch 2, on {trained}/a/cats). To name it"))
    assert (code, "resumed from step 4" in said) == (0, True), said
    code, text = type_("generate", "--count", 1)  # nothing is said of a run, and there is one
    assert (code, "1 image of" in text) == (0, True), text
    code, text = type_("generate", "--data-dir", "fish", "--count", 1)
    assert code == 3
    code, said = type_(printed(text, f"cats (in epoch 3, on {trained}/a/cats). To name it"))
    assert (code, "1 image of" in said) == (0, True), said


def test_a_named_file_that_is_not_there_is_refused_without_the_commands_of_other_runs(trained, type_):
    """They would name the same file again."""
    code, text = type_("--data-dir", "fish", *TINY, "1,2", "--checkpoint-gen", "missing.pth")
    assert code == 3
    assert "missing.pth" in text
    assert "To name it" not in text


def test_a_run_that_cannot_be_read_now_may_be_that_of_the_images(trained, type_, monkeypatch):
    """Known by its images only, it would else be passed over in silence, and training begin from zero."""
    assert type_("--data-dir", "a/cats", *TINY, "1,0", "--run-name", "mine")[0] == 0
    for path in trained.glob("weights/**/*cats*"):
        remove(path)
    denied = sorted(trained.glob("weights/**/generator_mine_*"))
    real = os.open

    def opening(path, *words, **more):
        if Path(path).name in {file.name for file in denied}:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *words, **more)

    monkeypatch.setattr(os, "open", opening)
    code, text = type_("--data-dir", "a/cats", *TINY, "1,1")
    assert code == 3
    assert f"{denied[0].name} cannot be read" in text
    assert not list(trained.glob("weights/**/*cats*"))
    code, said = type_(printed(text, "To begin a new run all the same"))
    assert code == 0, said
    monkeypatch.undo()


def test_several_runs_on_one_folder_ask_which_is_meant(trained, type_):
    for name in ("one", "two"):
        code, text = type_("--data-dir", "a/cats", *TINY, "1,0", "--run-name", name)
        assert code == 0, text
        assert "On these very images: cats (in epoch 2" in text  # a name that is typed says enough
    for path in trained.glob("weights/**/*cats*"):
        remove(path)
    code, text = type_("--data-dir", "a/cats", *TINY, "1,1")
    assert code == 3
    code, said = type_(re.search(r"^  two \(.*\):  (.*)$", text, re.MULTILINE)[1])
    assert (code, "resumed from step 2" in said) == (0, True), said


def test_a_conditional_run_that_begins_where_others_lie_names_them_and_how_to_go_on(type_, tmp_path):
    draw(tmp_path / "pets", seed=1, classes=("cats", "dogs"))
    draw(tmp_path / "cars", seed=2, classes=("vans", "vw"))
    assert type_("--data", "pets", "--checkpoint-dir", "ck2", *TINY_GAN, 1, command=cgan)[0] == 0
    (tmp_path / "pets").rename(tmp_path / "animals")
    code, text = type_("--data", "animals", *TINY_GAN, 2, command=cgan)  # without the folder that was typed before
    assert code == 3
    code, said = type_(printed(text, f"ck2 (in epoch 1, on {tmp_path}/pets). To go on with it"))
    assert (code, "resumed from step 3" in said) == (0, True), said
    code, said = type_(printed(text, "To begin a new run"))
    assert (code, "resumed from step" in said) == (0, False), said
    assert "On these very images: ck2" in said
    code, said = type_("--data", "animals", *TINY_GAN, 3, command=cgan)
    assert (code, "resumed from step" in said) == (0, True), said

    code, text = type_("--data", "cars", "--run-dir", "x", *TINY_GAN, 1, command=cgan)
    assert code == 0, text
    code, text = type_("--data", "cars", "--run-dir", "x", "--checkpoint-dir", "new", *TINY_GAN, 2, command=cgan)
    assert (code, "On these very images: x/checkpoints" in text) == (0, True), text
    code, said = type_(printed(text, f"x/checkpoints (in epoch 1, on {tmp_path}/cars). To go on with it"))
    assert (code, "resumed from step 3" in said) == (0, True), said


def test_a_run_whose_checkpoints_are_gone_does_not_begin_from_zero_beside_its_backup(type_, tmp_path):
    draw(tmp_path / "pets", seed=1, classes=("cats", "dogs"))
    words = ("--data", "pets", *TINY_GAN)
    assert type_(*words, 1, command=cgan)[0] == 0
    (tmp_path / "checkpoint_backups").mkdir()
    backup = shutil.copy(tmp_path / "checkpoints/checkpoint_epoch_001.pth", tmp_path / "checkpoint_backups/kept.pth")
    for path in (tmp_path / "checkpoints").glob("*.pth"):
        remove(path)
    for more in ((), ("--resume",)):
        code, text = type_(*words, 2, *more, command=cgan)
        assert code == 3
        found = re.findall(r"--checkpoint-path \S+", text)
    code, text = type_(*words, 1, *shlex.split(found[0]), command=cgan)
    assert (code, f"the newest checkpoint is {backup}" in text) == (0, True), (
        text
    )  # none was saved: nothing was left to do
    code, text = type_(*words, 2, command=cgan)
    assert (code, "resumed from step 3" in text) == (0, True), text


def test_a_new_run_beside_backups_names_them(trained, type_):
    (trained / "checkpoint_backups").mkdir()
    shutil.copy(trained / "weights/generator_cats_local.pth", trained / "checkpoint_backups/g.pth")
    shutil.copy(trained / "weights/critic_cats_local.pth", trained / "checkpoint_backups/c.pth")
    remove_tree(trained / "weights")
    code, text = type_("--data-dir", "a/cats", *TINY, "1,2")
    assert code == 0, text
    option = printed(text, "A whole one lies elsewhere")
    code, said = type_("--data-dir", "a/cats", *TINY, "1,2", *shlex.split(option))
    assert (code, "resumed from step 4" in said) == (0, True), said


def colours(path):
    """The picture's pixels but for the lines between the images."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def test_folders_tell_date_and_data_and_those_of_an_older_run_stay(type_, tmp_path, monkeypatch):
    draw(tmp_path / "my pets_x" / "train", seed=1, classes=("cats", "dogs"))
    words = ["--data", "my pets_x/train", *TINY_GAN]
    today = datetime.datetime.now().strftime("%Y%m%d")
    for number in (1, 2):
        code, text = type_(*words, number, command=cgan)
        assert code == 0, text
    code, text = type_(*words, 3, "--checkpoint-path", "checkpoint_epoch_001.pth", "--branch", command=cgan)
    assert code == 0, text
    (run,) = {path.name for path in tmp_path.glob("logs/*")}
    assert re.fullmatch(rf"cgan_{today}_my-pets-x_[0-9a-f]{{8}}", run)
    assert {path.name for path in tmp_path.glob("samples/*")} == {run, f"{run}_branch_1"}
    assert len(list(tmp_path.glob("logs/*/journal.jsonl"))) == 1

    with monkeypatch.context() as before:  # an earlier version's ids
        before.setattr(runfile, "new_run", lambda _: runfile.Run(run="0123456789ab"))
        assert type_(*words, 1, "--run-dir", "old", command=cgan)[0] == 0
    assert type_(*words, 2, "--run-dir", "old", command=cgan)[0] == 0
    assert {path.name for path in tmp_path.glob("old/*/cgan_*")} == {"cgan_0123456789ab"}
    code, text = type_("--data-dir", "my pets_x/train", *TINY, "1,0")
    assert code == 0, text
    for folder in ("samples", "logs"):
        assert len([p for p in (tmp_path / folder).iterdir() if p.name.startswith(f"progan_my pets_x_{today}_")]) == 1


def test_real_images_stand_beside_the_samples_in_the_same_columns_and_stay(type_, tmp_path):
    for name, colour, count in (("cats", (250, 0, 0), 3), ("dogs", (0, 0, 250), 20)):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for index in range(count):
            Image.new("RGB", (32, 32), colour).save(tmp_path / "pets" / name / f"{index}.png")
    assert type_("--data", "pets", *TINY_GAN, 1, command=cgan)[0] == 0
    (samples,) = tmp_path.glob("samples/cgan_*")
    real = colours(samples / "real.png")
    assert real.shape == colours(samples / "epoch_0001.png").shape
    middles = real[16 + 2 + 32 :: 66, 2 + 32 :: 66]  # below the captions, an image each
    assert middles[:, 0].tolist() == [[250, 0, 0]] * 3 + [[255, 255, 255]] * 5
    assert middles[:, 1].tolist() == [[0, 0, 250]] * 8
    before = (samples / "real.png").read_bytes()
    Image.new("RGB", (32, 32), (0, 250, 0)).save(tmp_path / "pets" / "cats" / "00.png")
    assert type_("--data", "pets", *TINY_GAN, 2, command=cgan)[0] == 0
    assert (samples / "real.png").read_bytes() == before
    assert {path.name for path in samples.iterdir()} == {"real.png", "epoch_0001.png", "epoch_0002.png"}


def test_real_images_of_each_size_stand_beside_the_progressive_samples(trained, type_):
    (samples,) = trained.glob("samples/progan_cats_*")
    names = {"epoch_0001_0004px.png", "epoch_0002_0008px.png", "real_0004px.png", "real_0008px.png"}
    assert {path.name for path in samples.iterdir()} == names
    real = colours(samples / "real_0008px.png")
    assert real.shape == colours(samples / "epoch_0002_0008px.png").shape
    with Image.open(trained / "a" / "cats" / "000.bmp") as first:
        mean = np.asarray(first, float).mean((0, 1))
    assert abs(real[2:66, 2:66].reshape(-1, 3).mean(0) - mean).max() < 8
    before = (samples / "real_0008px.png").read_bytes()
    draw(trained / "a" / "cats", seed=9, first=50)
    assert type_("--data-dir", "a/cats", *TINY, "1,2")[0] == 0
    assert (samples / "real_0008px.png").read_bytes() == before
