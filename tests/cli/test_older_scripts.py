"""Coming from the older scripts: their files and their settings get a true answer, before anything takes long."""

import re
import runpy
import signal
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from typed import REPOSITORY, run

from ganguard.cli import cgan, progan
from ganguard.cli.constants import edited
from ganguard.networks.cgan import build_critic, build_generator
from ganguard.networks.cgan_spec import CganSpec


class Classic(nn.Module):
    """Layers that are called as in the older progressive pair."""

    def __init__(self):
        super().__init__()
        self.initial = nn.Sequential(nn.Identity(), nn.ConvTranspose2d(8, 8, 4))
        self.prog_blocks = nn.ModuleList([nn.Conv2d(8, 8, 3)])


@pytest.fixture
def answer(tmp_path, monkeypatch, capfd):
    """Runs a command in this process, in a folder of its own; gives (exit code, what was printed)."""
    monkeypatch.chdir(tmp_path)

    def ask(command, *words, **extra):
        try:
            code = command.main([str(word) for word in words], **extra)
        except SystemExit as left:
            code = left.code
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        captured = capfd.readouterr()
        return code, captured.out + captured.err

    return ask


def classic_pair():
    network = Classic()
    optimizer = torch.optim.Adam(network.parameters())
    for word in ("generator", "critic"):
        torch.save({"state_dict": network.state_dict(), "optimizer": optimizer.state_dict()}, f"{word}_DRUSEN_v11.pth")
    return ["--checkpoint-gen", "generator_DRUSEN_v11.pth", "--checkpoint-critic", "critic_DRUSEN_v11.pth"]


def classic_single():
    weights = Classic().state_dict()
    torch.save({"epoch": 20, "netG_state_dict": weights, "netD_state_dict": weights}, "checkpoint_epoch_020.pth")
    return ["--checkpoint-path", "checkpoint_epoch_020.pth"]


@pytest.mark.parametrize(("command", "make"), [(progan, classic_pair), (cgan, classic_single)])
def test_networks_that_do_not_fit_are_refused_before_the_images_are_decoded(answer, command, make):
    small = ["--in-channels", "8", "--progressive-epochs", "1"] if command is progan else []
    code, text = answer(command, *make(), *small, "--device", "cpu")
    assert code == 3
    assert "prog_blocks.0.weight 8x8x3x3 is only in the checkpoint" in text
    assert "no setting makes it fit" in text
    assert "--no-checkpoint" not in text
    assert not Path("cache").exists()


def test_an_older_file_of_another_width_is_refused_before_the_images_are_decoded(answer):
    spec = CganSpec(
        image_size=32, channels=1, width=8, latent_size=128, label_names=tuple("0123456789"), multi_label=False
    )
    networks = {"netG_state_dict": build_generator(spec), "netD_state_dict": build_critic(spec, spectral=True)}
    torch.save({"epoch": 3} | {name: network.state_dict() for name, network in networks.items()}, "checkpoint.pth")
    code, text = answer(cgan, "--checkpoint-path", "checkpoint.pth", "--width", 4, "--device", "cpu")
    assert code == 3
    assert "Use the settings it was trained with." in text
    assert not Path("cache").exists()


def edit(file, *lines):
    """What people do: each line takes the place of the line that sets the same name, or comes first."""
    text = (REPOSITORY / "progan_local.py").read_text(encoding="utf-8")
    for line in lines:
        name = line.partition(" =")[0]
        text, count = re.subn(rf"^{name} = .*$", lambda _, line=line: line, text, flags=re.MULTILINE)
        text = text if count else text.replace("\nDATA_DIR", f"\n{line}\nDATA_DIR", 1)
    file.write_text(text, encoding="utf-8")


def of_the_file(file):
    """Its constants, as it hands them over."""
    return {name: value for name, value in runpy.run_path(str(file)).items() if name.isupper()}


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (["CHECKPOINT_GEN = str(WEIGHTS_DIR / 'g_v11.pth')"], {"checkpoint_gen": str(Path("weights", "g_v11.pth"))}),
        (["CHECKPOINT_GEN = WEIGHTS_DIR / 'g_v11.pth'"], {"checkpoint_gen": str(Path("weights", "g_v11.pth"))}),
        (["WEIGHTS_DIR = 'pesos'", "LOGS_DIR = 'logs'"], {"weights_dir": "pesos"}),
        (["BASE_DIR = Path('D')", "WEIGHTS_DIR = BASE_DIR / 'w'"], {"weights_dir": str(Path("D", "w"))}),
        (["DATASET = 'DRUSEN'", "DATA_DIR = Path('OCT') / DATASET"], {"data_dir": str(Path("OCT", "DRUSEN"))}),
        (["MAX_BATCH_SIZE_LIMIT = 16"], {}),
        (["ENABLE_GPU_MONITORING = False"], {}),
        ([], {}),
    ],
)
def test_constants_that_people_edit_in_work(tmp_path, lines, found):
    edit(tmp_path / "progan_local.py", *lines)
    assert edited(of_the_file(tmp_path / "progan_local.py")) == found


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("BASE_DIR = Path('D')", 'WEIGHTS_DIR = BASE_DIR / "weights"'),
        ("DATASET = 'DRUSEN'", "write one that ends in 'DRUSEN'"),
        ("MAX_BATCH_SIZE_LIMIT = 8", "no number above 8 in BATCH_SIZES"),
        ("ENABLE_GPU_MONITORING = True", "does not watch the card's temperature yet"),
        ("FIXED_NOISE = [1.0]", "Take it out"),
        ("NUM_WORKERS = 4", "Did you mean WORKERS?"),
    ],
)
def test_other_constants_of_older_scripts_get_a_true_hint(answer, tmp_path, line, hint):
    """The hint, followed, works."""
    edit(tmp_path / "progan_local.py", line)
    code, text = answer(progan, constants=of_the_file(tmp_path / "progan_local.py"))
    assert code == 2
    assert f"{line.partition(' =')[0]} at the top of progan_local.py is no setting." in text
    assert hint in text


def test_the_file_itself_runs_with_the_line_that_people_have_in_their_notes(tmp_path):
    edit(tmp_path / "progan_local.py", "CHECKPOINT_GEN = str(WEIGHTS_DIR / 'generator_DRUSEN_v11.pth')")
    done = run([sys.executable, "progan_local.py"], cwd=tmp_path)
    assert done.returncode == 3
    assert "There is no file weights" in done.stderr
