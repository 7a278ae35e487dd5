"""Law 8 in somebody else's loop: a failing save never ends a healthy run, and is never hidden."""

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "helpers"))
from stores import let_everybody_in, needs_root
from systems import needs_posix, remove_tree

SCRIPT = """
import sys, time
from pathlib import Path
import torch
from torch.utils.data import DataLoader, TensorDataset
from ganguard import Guard, saving
saving._RETRY_S = 0.05

def main(folder, epochs, here):
    torch.manual_seed(0)
    net = torch.nn.Linear(2, 20_000)
    opt = torch.optim.SGD(net.parameters(), 0.01)
    loader = DataLoader(TensorDataset(torch.ones(12, 2)), 4, shuffle=True)
    with Guard(folder, {"net": net, "opt": opt}, patience_s=1, keep=2, save_every_epochs=1) as guard:
        for epoch in guard.epochs(epochs):
            for (x,) in guard.batches(loader):
                opt.zero_grad(); net(x).square().mean().backward(); opt.step()
                guard.log(loss=0.5)
                time.sleep(0.03)
            print("tail", epoch, flush=True)
            while (here / f"wait_{epoch}").exists():
                time.sleep(0.01)
    print("the end", flush=True)

main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
"""


@pytest.fixture
def small_disk(tmp_path):
    mount = tmp_path / "disk"
    mount.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", mount], check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield mount
    subprocess.run(["umount", "--lazy", mount], check=False)


def start(zygote, cwd, folder, epochs, *, waits=(), **options):
    (cwd / "loop.py").write_text(SCRIPT)
    for epoch in waits:
        (cwd / f"wait_{epoch}").touch()
    return zygote.start(cwd / "loop.py", folder, epochs, cwd, cwd=cwd, **options)


def fill(disk):
    """A file that takes all the room there is."""
    ballast = disk / "ballast"
    assert disk.is_mount()  # else it would be the machine's own disk that is filled
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        for _ in range(4096):
            file.write(b"\0" * 4096)
    return ballast


def assert_whole(folder, *names):
    for name in names:
        assert torch.isfinite(torch.load(folder / name, weights_only=True)["net"]["weight"]).all()


@needs_root
def test_a_disk_that_fills_up_and_empties_again(zygote, tmp_path, small_disk):
    """The run goes on, says so, keeps what it has, saves again once there is room; the journal has every line once."""
    process = start(zygote, tmp_path, small_disk / "ck", 4, waits=[2, 3])
    process.until("tail 2")
    ballast = fill(small_disk)
    (tmp_path / "wait_2").unlink()
    process.until("tail 3")
    text = process.output()
    assert "NOT SAVED" in text
    assert "Training goes on" in text
    assert_whole(small_disk / "ck", "checkpoint_epoch_001.pth")
    ballast.unlink()
    (tmp_path / "wait_3").unlink()
    assert process.wait() == 0, process.output()
    assert "Saving works again" in process.output()
    lines = (small_disk / "ck" / "journal.jsonl").read_text().splitlines()
    assert len(lines) == len(set(lines)) == 4 * 4 + 1  # the last tells what saving took
    assert_whole(small_disk / "ck", "checkpoint_epoch_004.pth")


@needs_root
def test_ending_with_a_full_disk_is_exit_code_6(zygote, tmp_path, small_disk):
    process = start(zygote, tmp_path, small_disk / "ck", 2, waits=[2])
    process.until("tail 2")
    ballast = fill(small_disk)
    (tmp_path / "wait_2").unlink()
    assert process.wait() == 6, process.output()
    assert "Make room" in process.output()
    assert "NOT on disk" in process.output()
    ballast.unlink()
    process = start(zygote, tmp_path, small_disk / "ck", 2)
    assert process.wait() == 0, process.output()
    assert "resumed from step 3" in process.output()


@needs_posix("a folder with open files can be removed")
def test_a_folder_that_vanishes(zygote, tmp_path):
    """Made anew, locked anew, and the next start finds its way."""
    process = start(zygote, tmp_path, tmp_path / "ck", 3, waits=[2])
    process.until("tail 2")
    remove_tree(tmp_path / "ck")
    (tmp_path / "wait_2").unlink()
    assert process.wait() == 0, process.output()
    assert "has vanished" in process.output()
    assert (tmp_path / "ck" / "run.json").exists()
    process = start(zygote, tmp_path, tmp_path / "ck", 4)
    assert process.wait() == 0, process.output()
    assert "resumed from step 9" in process.output()


@needs_root
def test_a_folder_that_becomes_read_only(zygote, tmp_path):
    let_everybody_in(tmp_path)
    tmp_path.chmod(0o777)
    process = start(zygote, tmp_path, tmp_path / "ck", 3, waits=[2, 3], uid=65534)
    process.until("tail 2")
    (tmp_path / "ck").chmod(0o555)
    (tmp_path / "wait_2").unlink()
    process.until("tail 3")
    assert "NOT SAVED" in process.output()
    (tmp_path / "ck").chmod(0o755)
    (tmp_path / "wait_3").unlink()
    assert process.wait() == 0, process.output()
    assert "Saving works again" in process.output()


@needs_root
def test_a_folder_that_cannot_be_written_at_the_start_is_one_clear_error(zygote, tmp_path):
    let_everybody_in(tmp_path)
    tmp_path.chmod(0o777)
    (tmp_path / "ck").mkdir(mode=0o555)
    process = start(zygote, tmp_path, tmp_path / "ck", 3, uid=65534)
    assert process.wait() == 1
    assert "SaveFailed" in process.output()
    assert "Permission denied" in process.output()
