"""gan.py as a person types it: what it says, what it answers to mistakes, what it leaves on disk."""

import os
import subprocess
import sys

import pytest
import torch
from PIL import Image
from systems import STOP
from typed import GAN, REPOSITORY, TINY, run, run_and_signal


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a short finished run; tests must not change it."""
    folder = tmp_path_factory.mktemp("trained")
    done = run(GAN, *TINY, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_writes_what_the_readme_says(trained):
    there = {path.name for path in (trained / "checkpoints").iterdir()}
    assert {"latest_checkpoint.pth", "checkpoint_epoch_001.pth", "checkpoint_epoch_003.pth", "run.json"} <= there
    (grid,) = trained.glob("samples/*/epoch_0003.png")
    with Image.open(grid) as picture:
        assert picture.width > 10 * 32
    loaded = torch.load(trained / "checkpoints/latest_checkpoint.pth", weights_only=True)
    assert {"generator", "critic", "opt_g", "opt_d", "ema", "fixed", "random", "config", "history"} <= set(loaded)
    assert loaded["progress"]["images"] == 3 * 96
    assert len(loaded["history"]["epochs"]) == 3


def test_a_finished_run_says_so(trained):
    done = run(GAN, cwd=trained)
    assert done.returncode == 0
    assert "All 3 epochs are done" in done.stdout


def test_list_checkpoints_needs_no_torch(trained):
    code = (
        "import sys; from ganguard.cli.cgan import main; main(['--list-checkpoints']); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=trained, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "checkpoint_epoch_003.pth" in done.stdout


def test_help_names_every_option_with_its_default():
    text = run(GAN, "--help", cwd=REPOSITORY).stdout
    for option in [
        "--resume",
        "--no-checkpoint",
        "--checkpoint-path",
        "--branch",
        "--checkpoint-interval",
        "--list-checkpoints",
        "--autosave-batches",
        "--save-budget",
        "--data",
        "--image-size",
        "--channels",
        "--width",
        "--batch-size",
        "--epochs",
        "--limit-images",
        "--workers",
        "--seed",
        "--device",
        "--threads",
        "--deterministic",
        "--run-dir",
        "--checkpoint-dir",
        "--sample-every",
        "--learning-rate",
        "--config",
        "--cache-limit",
    ]:
        assert option in text
    assert "default: 100" in text


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--epochs", "0"], 2, "at least 1"),
        (["--epochs", "many"], 2, "invalid int"),
        (["--image-size", "48"], 2, "invalid choice"),
        (["--resume", "--no-checkpoint"], 2, "cannot be combined"),
        (["--branch"], 2, "--checkpoint-path FILE"),
        (["--list-checkpoints", "--resume"], 2, "only lists"),
        (["--epoch", "3"], 2, "unrecognized arguments"),
        (["--data", "fashion-mnist-mino"], 2, "fashion-mnist-mini"),
        (["--data", "no/such/folder"], 2, "no/such/folder"),
        (["--resume"], 3, "no checkpoint"),
        (["--checkpoint-path", "checkpoints/misspelt.pth"], 3, "misspelt.pth"),
        (["--device", "cuda:9"], 2, "--device cuda:9"),
        (["--device", "toaster"], 2, "--device toaster"),
        (["--config", "missing.toml"], 2, "missing.toml"),
    ],
)
def test_a_mistake_gets_one_message_and_the_right_code(tmp_path, words, code, message):
    done = run(GAN, *words, cwd=tmp_path)
    assert done.returncode == code, done.stdout + done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("checkpoints/*.pth"))


@pytest.mark.parametrize(
    ("toml", "message"),
    [("epocs = 3", "Did you mean epochs"), ("epochs = 'three'", "takes a whole number"), ("epochs = ", "not TOML")],
)
def test_a_mistake_in_the_config_file(tmp_path, toml, message):
    (tmp_path / "my.toml").write_text(toml)
    done = run(GAN, "--config", "my.toml", cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr


def test_order_of_settings_is_command_line_file_checkpoint(trained, tmp_path):
    """The file decides over the checkpoint, the command line over the file; what must match is refused."""
    (tmp_path / "my.toml").write_text("seed = 7\n")
    done = run(GAN, "--run-dir", trained, "--config", tmp_path / "my.toml", cwd=tmp_path)
    assert done.returncode == 3
    assert "seed: 7 here, 0 in the checkpoint" in done.stderr
    done = run(GAN, "--run-dir", trained, "--config", tmp_path / "my.toml", "--seed", 0, cwd=tmp_path)
    assert done.returncode == 0
    done = run(GAN, "--run-dir", trained, "--width", 8, cwd=tmp_path)
    assert done.returncode == 3
    assert "width: 8 here, 4 in the checkpoint" in done.stderr


def test_a_second_trainer_is_told_who_holds_the_folder(tmp_path):
    first = subprocess.Popen(
        [*GAN, *TINY, "--epochs", "500", "--sample-every", "0"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    try:
        assert any("saved" in line for line in first.stdout)
        second = run(GAN, *TINY, cwd=tmp_path)
        assert second.returncode == 4
        assert f"process {first.pid}" in second.stderr
    finally:
        first.kill()
        first.wait()
    assert run(GAN, *TINY, cwd=tmp_path).returncode == 0


def test_no_checkpoint_sets_the_old_run_aside_and_branch_goes_back(tmp_path):
    assert run(GAN, *TINY, cwd=tmp_path).returncode == 0
    checkpoints = tmp_path / "checkpoints"
    second = checkpoints / "checkpoint_epoch_002.pth"
    done = run(GAN, "--checkpoint-path", second, cwd=tmp_path)
    assert "add --branch" in done.stdout
    assert checkpoints.joinpath("checkpoint_epoch_003.pth").exists()
    done = run(GAN, "--checkpoint-path", second, "--branch", "--epochs", 4, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "resumed from step 24" in done.stdout
    (aside,) = checkpoints.glob("set_aside/*_newer/checkpoint_epoch_003.pth")
    done = run(GAN, *TINY, "--no-checkpoint", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(checkpoints.glob("set_aside/*_old_run/checkpoint_epoch_004.pth"))
    assert aside.exists()
    assert "resumed" not in done.stdout
    assert len(list(tmp_path.glob("samples/*"))) == 3  # the pictures of the old run and of its left branch are there


def test_an_older_scripts_file_is_resumed_only_when_named(trained, tmp_path):
    ours = torch.load(trained / "checkpoints/checkpoint_epoch_002.pth", weights_only=True)
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    older = folder / "latest_checkpoint.pth"
    torch.save(
        {
            "epoch": 2,
            "netG_state_dict": ours["generator"],
            "netD_state_dict": ours["critic"],
            "optimizerG_state_dict": ours["opt_g"],
            "optimizerD_state_dict": ours["opt_d"],
            "g_losses": [0.5, 0.4],
            "d_losses": [1.5, 1.4],
            "best_fid": float("inf"),
            "hyperparameters": {"lr": 1e-4},
        },
        older,
    )
    before = older.read_bytes()
    for _ in range(2):  # typed again it must not start from zero either
        refused = run(GAN, *TINY, cwd=tmp_path)
        assert refused.returncode == 3
        assert "--checkpoint-path checkpoints/latest_checkpoint.pth" in refused.stderr
    done = run(GAN, *TINY, "--checkpoint-path", older, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "epoch 2 finished" in done.stdout
    assert "no random states" in done.stdout
    (kept,) = folder.glob("set_aside/*/latest_checkpoint.pth")
    assert kept.read_bytes() == before
    again = run(GAN, *TINY, "--checkpoint-path", older, cwd=tmp_path)
    assert again.returncode == 0
    assert "All 3 epochs are done" in again.stdout


def test_output_under_cp1252_and_with_a_closed_pipe(tmp_path):
    folder = tmp_path / "fotos_✨"
    done = run(GAN, *TINY, "--run-dir", folder, cwd=tmp_path, env={"PYTHONIOENCODING": "cp1252"})
    assert done.returncode == 0, done.stderr
    process = subprocess.Popen(
        [*GAN, *TINY, "--epochs", "6", "--run-dir", folder],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(120) == 0
    assert (folder / "checkpoints/checkpoint_epoch_006.pth").exists()


def test_torchrun_with_more_than_one_process(tmp_path):
    done = run(GAN, *TINY, cwd=tmp_path, env={"WORLD_SIZE": "2"})
    assert done.returncode == 2
    assert "one process so far" in done.stderr


def test_without_installation_it_prints_the_line_that_installs(tmp_path):
    done = subprocess.run(
        [sys.executable, "-S", str(REPOSITORY / "gan.py")],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert 'pip install -e ".[trainers]"' in done.stderr


def test_ganguard_cgan_is_the_same_command(trained):
    one = run(GAN, "--list-checkpoints", cwd=trained)
    other = run([sys.executable, "-m", "ganguard", "cgan"], "--list-checkpoints", cwd=trained)
    assert other.returncode == 0
    strip = [line.rsplit("  ", 2)[0] for line in one.stdout.splitlines()]
    assert [line.rsplit("  ", 2)[0] for line in other.stdout.splitlines()] == strip


def test_own_folder_of_class_folders_with_a_damaged_image(tmp_path):
    for index, name in enumerate(("cats", "dogs")):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for number in range(8):
            Image.new("RGB", (70, 50), (20 * number, 100 * index, 90)).save(folder / f"{number}.jpg")
    (tmp_path / "photos/cats/torn.jpg").write_bytes(b"\xff\xd8\xff torn")
    done = run(GAN, "--data", "photos", "--epochs", 1, "--batch-size", 4, "--width", 4, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "torn.jpg" in done.stdout
    assert "16 images in 2 classes" in done.stdout


def test_every_stop_prints_a_command_that_goes_on(tmp_path):
    code, text = run_and_signal(GAN, *TINY, "--no-checkpoint", "--autosave-batches", 5, cwd=tmp_path, at="batch_00005")
    assert code == 128 + STOP
    command = text.split("To go on: ")[1].splitlines()[0]
    assert "--no-checkpoint" not in command
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "resumed from step" in done.stdout
