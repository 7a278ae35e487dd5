"""Law 8, on a small file system that really is full: a failing save never ends a run, and is never hidden."""

import contextlib
import os
import subprocess
import sys

import pytest
from typed import GAN, MANAGER, TINY, run

pytestmark = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0 or sys.platform != "linux", reason="mounting needs root on Linux"
)


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk):
    """Take all the room that is left."""
    ballast = disk / "ballast"
    assert disk.is_mount()  # else it would be the machine's own disk that is filled
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        for _ in range(4096):
            file.write(bytes(4096))
    return ballast


def start(disk, epochs):
    words = [*TINY, "--epochs", str(epochs), "--sample-every", "0", "--checkpoint-interval", "1"]
    return subprocess.Popen(
        [*GAN, *words, "--checkpoint-dir", str(disk / "checkpoints")],
        cwd=disk.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def read_until(process, words, lines):
    for line in process.stdout:
        lines.append(line)
        if words in line:
            return
    pytest.fail(f"{words!r} was not said:\n{''.join(lines)}")


def test_the_run_goes_on_and_saves_again_once_there_is_room(small_disk):
    lines = []
    process = start(small_disk, 2000)
    read_until(process, "saved", lines)
    ballast = fill(small_disk)
    before = {p.name: p.read_bytes() for p in (small_disk / "checkpoints").glob("checkpoint_*.pth")}
    read_until(process, "NOT SAVED", lines)
    assert "are needed and" in lines[-1] or "disk is full" in lines[-1]
    assert "Training goes on" in lines[-1]
    after = {p.name: p.read_bytes() for p in (small_disk / "checkpoints").glob("checkpoint_*.pth")}
    assert before.items() <= after.items()
    assert not list((small_disk / "checkpoints").glob(".tmp-*"))
    ballast.unlink()
    read_until(process, "Saving works again", lines)
    process.terminate()
    process.communicate()
    assert process.returncode == 143
    verified = run(MANAGER, "--verify", "--checkpoint-dir", small_disk / "checkpoints", cwd=small_disk)
    assert verified.returncode == 0, verified.stdout


def test_ending_in_that_state_gives_exit_code_6(small_disk):
    lines = []
    process = start(small_disk, 8)
    read_until(process, "saved", lines)
    fill(small_disk)
    rest = process.communicate()[0]
    assert process.returncode == 6, rest
    assert "MB are needed" in rest
    assert "NOT on disk" in rest
    assert run(MANAGER, "--verify", "--checkpoint-dir", small_disk / "checkpoints", cwd=small_disk).returncode == 0
