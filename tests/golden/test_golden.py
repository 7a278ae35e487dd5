"""Trainings come to the figures that they came to before, and what earlier versions wrote goes on to the same."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from runs import PINNED

HERE = Path(__file__).parent
GOLDEN = json.loads((HERE / "digests.json").read_text(encoding="utf-8"))
UNINTERRUPTED = ["hinge", "wgan_gp", "progressive", "foreign_loop"]
BACKUP = "checkpoint_backups/latest_checkpoint_backup_*.pth"
GOES_ON = {
    "hinge": "",
    "hinge-backup": f"--checkpoint-path {BACKUP}",
    "hinge-set-aside": "--checkpoint-path checkpoints/set_aside/*/EMERGENCY_*.pth",
    "progressive": "",
    "progressive-history": "",
    "foreign_loop": "",
}  # a folder of files, and what is typed there

pytestmark = pytest.mark.skipif(
    torch.__version__.split("+")[0] != GOLDEN["torch"], reason=f"digests are those of torch {GOLDEN['torch']}"
)


def results(folder, names):
    command = [sys.executable, str(HERE / "runs.py"), str(folder), *names]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **PINNED}, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["runs"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return results(tmp_path_factory.mktemp("uninterrupted"), UNINTERRUPTED)


@pytest.fixture(scope="module")
def gone_on(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gone_on")
    shutil.copytree(HERE / "files", folder, dirs_exist_ok=True)
    names = []
    for name, words in GOES_ON.items():
        typed = (
            str(next((folder / name).glob(word)).relative_to(folder / name)) if "*" in word else word
            for word in words.split()
        )
        names.append(f"{name}:{' '.join(typed)}")
    return results(folder, names)


@pytest.mark.parametrize("name", UNINTERRUPTED)
@pytest.mark.parametrize("what", ["tensors", "journal", "grids"])
def test_a_training_comes_to_what_it_came_to(uninterrupted, name, what):
    assert uninterrupted[name][what] == GOLDEN["runs"][name][what]


@pytest.mark.parametrize("name", GOES_ON)
def test_files_of_format_1_go_on_bit_for_bit(gone_on, name):
    assert gone_on[name]["tensors"] == GOLDEN["runs"][name.partition("-")[0]]["tensors"]
