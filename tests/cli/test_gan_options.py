"""Mistakes typed at gan.py: one clear sentence, the documented exit code, nothing changed."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
from dataclasses import fields

import pytest
import torch
from systems import STOP
from typed import GAN, REPOSITORY, TINY, differences, run, run_and_signal

from ganguard.training.cgan_config import NOT_OF_THE_RUN, STRUCTURAL, CganConfig

WRONG = {
    "no such loss": (["--loss", "hing"], 2, "--loss"),
    "a penalty where there is none": (["--penalty", "3"], 2, "the loss hinge has none"),
    "no such precision": (["--precision", "float16"], 2, "bfloat16"),
    "a negative decay": (["--decay-epochs", "-1"], 2, "--decay-epochs must be at least 0"),
    "no such table": (["--data", "faces", "--attributes", "nowhere.csv"], 2, "nowhere.csv"),
    "no such column": (["--data", "faces", "--attributes", "faces.csv", "--attribute-names", "Smilling"], 2, "Smiling"),
    "a table without names": (["--data", "faces", "--attributes", "nohead.csv"], 2, "no names to its columns"),
    "an empty folder": (["--data", "empty"], 2, "empty"),
    "one class only": (["--data", "one"], 2, "one class"),
    "no such weights": (["--fid-every", "1", "--fid-weights", "nowhere.pth"], 2, "nowhere.pth"),
    "nothing at all": ([""], 2, "nothing is given"),
    "an unset variable": (["--data", ""], 2, "nothing is given for --data"),
    "an unset variable behind a sign": (["--run-dir="], 2, "nothing is given"),
    "nobody's home": (["--data", "~nobody-of-that-name"], 2, "no folder '~nobody-of-that-name'"),
    "a bare name that is not there": (["--config", "b.toml", "--checkpoint-path", "x.pth"], 3, "elsewhere/checkpoints"),
    "a list for a number": (["--config", "list.toml"], 2, "seed takes a whole number"),
    "a size between": (["--image-size", "48"], 2, "48"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from PIL import Image

    folder = tmp_path_factory.mktemp("wrong")
    (folder / "empty").mkdir()
    for place in ("faces", "one/cats"):
        (folder / place).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (32, 32), (60 * number, 0, 0)).save(folder / place / f"{number}.png")
    (folder / "faces.csv").write_text("image_id,Smiling\n0.png,1\n1.png,-1\n2.png,1\n3.png,-1\n")
    (folder / "b.toml").write_text('run_dir = "elsewhere"')
    (folder / "list.toml").write_text("seed = [1]")
    (folder / "nohead.csv").write_text("0.png,1,1\n1.png,-1,1\n2.png,1,-1\n3.png,-1,-1\n")
    return folder


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_gets_one_sentence(folder, case):
    words, code, part = WRONG[case]
    done = run(GAN, *TINY, *words, cwd=folder)
    assert done.returncode == code, done.stdout + done.stderr
    assert part in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not (folder / "checkpoints").exists()


def test_what_may_change_at_a_resume_is_announced(tmp_path):
    """Left to its default before, or not kept in the checkpoint: it is said all the same."""
    assert run(GAN, *TINY, "--epochs", 1, cwd=tmp_path).returncode == 0
    words = ("--epochs", 2, "--critic-steps", 2, "--no-deterministic", "--learning-rate", "1e-4", "--batch-size", 16)
    done = run(GAN, *words, "--fid-weights", "none.pth", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    for line in (
        "critic_steps is 2 now, it was 1.",
        "deterministic is False now, it was True.",
        "learning_rate is 0.0001 now, it was 0.0004.",
        "batch_size is 16 now, it was 8.",
        "fid_weights is none.pth now, it was left to its default.",
    ):
        assert line in done.stdout
    assert "penalty" not in done.stdout


def test_what_may_not_change_is_refused_before_anything_is_said_or_decoded(tmp_path):
    assert run(GAN, *TINY, "--epochs", 1, cwd=tmp_path).returncode == 0
    cached = sorted((tmp_path / "cache").iterdir())
    done = run(GAN, "--image-size", 64, "--critic-steps", 2, cwd=tmp_path)
    assert done.returncode == 3, done.stdout + done.stderr
    assert done.stdout == ""
    assert "image_size: 64 here, 32 in the checkpoint" in done.stderr
    assert "--no-checkpoint" in done.stderr
    assert "Request" not in done.stderr
    assert sorted((tmp_path / "cache").iterdir()) == cached
    done = run(GAN, "--data", "emoji", "--channels", 1, "--limit-images", 96, "--critic-steps", 2, cwd=tmp_path)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "label_names" in done.stderr
    assert "critic_steps" not in done.stdout
    assert "Request" not in done.stderr


def test_the_learning_rate_is_on_record_and_said_where_the_decay_moves_it(tmp_path):
    """And an epoch too short for the generator's turn is said once."""
    words = (*TINY, "--decay-epochs", 2, "--critic-steps", 30)
    done = run(GAN, *words, "--epochs", 2, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("the generator took no step") == 1
    assert "In epoch 1 the generator took no step" in done.stdout
    done = run(GAN, "--epochs", 4, cwd=tmp_path)
    assert "The learning rate is 0.0004 now, it was 0: its decay ends with epoch 4 and takes 2 epochs;" in done.stdout
    history = torch.load(tmp_path / "checkpoints/latest_checkpoint.pth", weights_only=True)["history"]["epochs"]
    assert [row["learning_rate"] for row in history] == pytest.approx([2e-4, 0, 2e-4, 0])
    assert b"epoch/learning_rate" in b"".join(path.read_bytes() for path in tmp_path.rglob("events.out*"))
    assert "learning rate is" not in run(GAN, cwd=tmp_path).stdout


def test_a_stop_while_fid_is_measured_leaves_at_once_and_the_same_epoch_is_scored_later(tmp_path):
    """The way to go on is the last line, below the chart."""
    words = (*TINY, "--epochs", 2, "--fid-every", 2, "--fid-samples", 400)
    for name in ("stopped", "whole"):
        (tmp_path / name).mkdir()
    code, text = run_and_signal(GAN, *words, cwd=tmp_path / "stopped", at="FID: taking in")
    assert code == 128 + STOP, text
    assert "The FID of epoch 2 was broken off" in text
    assert "This run, epoch 1:" in text
    assert "To go on: " in text.splitlines()[-1]
    assert run(GAN, cwd=tmp_path / "stopped").returncode == 0
    assert run(GAN, *words, cwd=tmp_path / "whole").returncode == 0
    last = "checkpoints/checkpoint_epoch_002.pth"
    assert differences(tmp_path / "stopped" / last, tmp_path / "whole" / last) == []


@pytest.mark.skipif(sys.platform == "win32", reason="has no pseudo-terminals")
def test_the_chart_has_blocks_on_a_terminal_that_shows_them(tmp_path):
    import pty

    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*GAN, *TINY, "--epochs", "2"], cwd=tmp_path, stdout=theirs, env={**os.environ, "PYTHONIOENCODING": "utf-8"}
    )
    os.close(theirs)
    text = b""
    with contextlib.suppress(OSError):  # the terminal's end
        while part := os.read(ours, 4096):
            text += part
    os.close(ours)
    assert process.wait(60) == 0
    chart = text.decode().partition("This run, epochs 1 to 2:")[2]
    assert "█" in chart


def test_the_documentation_says_of_every_setting_whether_it_may_change():
    rows = (REPOSITORY / "docs/resuming.md").read_text(encoding="utf-8").split("|---|---|\n")[1].split("\n\n")[0]
    settings = {row: set(re.findall(r"`--([a-z-]+)`", row.split("|")[1])) for row in rows.splitlines()}
    named = [name for names in settings.values() for name in names]
    fields_ = {item.name.replace("_", "-") for item in fields(CganConfig)}
    assert sorted(named) == sorted(fields_)
    (refused,) = (names for row, names in settings.items() if "| refused" in row)
    assert refused == {name.replace("_", "-") for name in STRUCTURAL} & fields_
    own = set().union(*(names for row, names in settings.items() if "| of one start" in row))
    assert own == {name.replace("_", "-") for name in NOT_OF_THE_RUN}


def test_images_that_moved_are_asked_for_and_the_run_goes_on_with_them(folder, tmp_path):
    shutil.copytree(folder / "faces", tmp_path / "faces/a")
    shutil.copytree(folder / "faces", tmp_path / "faces/b")
    words = (*TINY, "--limit-images", 8, "--batch-size", 2, "--sample-every", 0)
    assert run(GAN, *words, "--data", "faces", "--epochs", 1, cwd=tmp_path).returncode == 0
    (tmp_path / "faces").rename(tmp_path / "moved")
    done = run(GAN, "--epochs", 2, cwd=tmp_path)
    assert done.returncode == 2
    assert "--data NEWPATH" in done.stderr
    done = run(GAN, "--epochs", 2, "--data", "moved", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "another one now" not in done.stdout


def test_another_loss_does_not_go_on_with_a_run(tmp_path):
    assert run(GAN, *TINY, "--epochs", 1, cwd=tmp_path).returncode == 0
    before = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    done = run(GAN, *TINY, "--loss", "wgan-gp", cwd=tmp_path)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "loss" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == before


def test_what_a_run_leaves_besides_checkpoints(tmp_path):
    """Curves, TensorBoard, the best pair, and a chart in the terminal at the end."""
    done = run(GAN, *TINY, "--epochs", 2, "--fid-every", 1, "--fid-samples", 32, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert {
        "curves.png",
        "journal.jsonl",
        "best_generator.pth",
        "best_discriminator.pth",
        "best_generator.json",
    } <= left
    assert any(name.startswith("events.out.tfevents") for name in left)
    assert "This run, epochs 1 to 2:" in done.stdout
