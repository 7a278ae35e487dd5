"""The best pair: replaced as one, whatever happens."""

from __future__ import annotations

import ctypes
import errno
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "helpers"))
from generators import networks, spec
from stores import needs_root, small_disk
from systems import remove_tree

import ganguard
from ganguard.errors import NoCheckpoint, SaveFailed
from ganguard.networks.cgan import build_critic
from ganguard.networks.cgan_spec import CganSpec
from ganguard.store import durable
from ganguard.training.best import BestPair

NAMES = {"best_generator.pth", "best_discriminator.pth", "best_generator.json"}
RENAMES = "rename,renameat,renameat2"
needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")


def write(folder: Path, seed: int, of: CganSpec | None = None, samples: int = 5) -> list[str]:
    of = of or spec()
    score = {"name": "fid", "value": 10.0 - seed, "epoch": seed, "step": seed * 10, "about": {"samples": samples}}
    return BestPair(folder).write(*networks(seed, of), spec=of, epoch=seed, step=seed * 10, score=score)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_bare_state_dicts_and_what_is_needed_to_rebuild_them(tmp_path):
    write(tmp_path, 3)
    assert set(content(tmp_path)) == NAMES
    generator, critic = networks(3, spec())
    for name, module in (("best_generator.pth", generator), ("best_discriminator.pth", critic)):
        state = torch.load(tmp_path / name, weights_only=True)
        assert list(state) == list(module.state_dict())
        assert all(torch.equal(value, module.state_dict()[key]) for key, value in state.items())
    about = json.loads((tmp_path / "best_generator.json").read_text())
    assert about["score"] == {"name": "fid", "value": 7.0, "about": {"samples": 5}}
    assert (about["network"], about["epoch"], about["step"]) == ("cgan", 3, 30)
    rebuilt = build_critic(CganSpec.from_config(about["spec"]), **about["discriminator"])
    rebuilt.load_state_dict(torch.load(tmp_path / "best_discriminator.pth", weights_only=True))
    assert about["versions"]["torch"] == str(torch.__version__)


def test_a_view_of_a_large_storage_takes_its_own_size(tmp_path):
    generator, critic = networks(1, spec())
    generator.base.bias.data = torch.zeros(10_000_000)[: generator.base.bias.numel()]
    BestPair(tmp_path).write(generator, critic, spec=spec(), epoch=1, step=1, score={"name": "fid", "value": 1.0})
    assert (tmp_path / "best_generator.pth").stat().st_size < 100_000


def test_a_new_pair_replaces_the_old_one(tmp_path):
    write(tmp_path, 1)
    write(tmp_path, 2)
    assert set(content(tmp_path)) == NAMES
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    assert ganguard.load_generator(tmp_path).origin.epoch == 2
    assert BestPair(tmp_path).mend() == []


def killed_at_each(call: str, prepare, work) -> Iterator[int]:
    """``work`` in a real process, killed as it enters the N-th system call of a kind, for every N; yields N."""
    for nth in range(1, 80):
        prepare()
        if (child := os.fork()) == 0:
            ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1))  # whoever may trace it
            os.kill(os.getpid(), signal.SIGSTOP)
            work()
            os._exit(0)
        os.waitpid(child, os.WUNTRACED)
        inject = f"inject={call}:signal=KILL:when={nth}"
        tracer = subprocess.Popen(
            ["strace", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject, "-p", str(child)],
            stderr=subprocess.PIPE,
        )
        while "TracerPid:\t0" in Path(f"/proc/{child}/status").read_text():
            if tracer.poll() is not None:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                pytest.skip(f"cannot trace here: {tracer.stderr.read().decode()}")
            time.sleep(0.001)
        os.kill(child, signal.SIGCONT)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        tracer.communicate(timeout=30)
        if code == 0:
            return
        assert code == -signal.SIGKILL
        yield nth
    pytest.fail("it never got to its end")


@needs_strace
@pytest.mark.parametrize(
    ("call", "pair"),
    [("write", "second"), ("fsync", "second"), (RENAMES, "second"), ("write", "first"), (RENAMES, "first")],
)
def test_killed_at_any_file_operation_there_is_the_old_pair_or_the_new_one(tmp_path, call, pair):
    folder, template = tmp_path / "best", tmp_path / "template"
    template.mkdir()
    if pair == "second":
        write(template, 1)
    old = content(template)
    write(tmp_path / "new", 2)
    new = content(tmp_path / "new")

    def prepare():
        remove_tree(folder)
        shutil.copytree(template, folder)

    points = 0
    for point in killed_at_each(call, prepare, lambda: write(folder, 2)):
        points += 1
        unmended = loaded_epoch(folder)
        assert BestPair(folder).mend() == []
        now = content(folder)
        assert now in (old, new), f"{call} {point}"
        assert not [path for path in folder.iterdir() if path.is_dir()]
        expected = 2 if now == new else 1 if old else None
        assert loaded_epoch(folder) == expected == unmended, f"{call} {point}"
    assert points >= {"write": 3, "fsync": 9, RENAMES: 6}[call]


def loaded_epoch(folder: Path) -> int | None:
    try:
        generator = ganguard.load_generator(folder)
    except NoCheckpoint:
        return None
    expected = networks(generator.origin.epoch, spec())[0].state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in generator.module.state_dict().items())
    return generator.origin.epoch


@needs_strace
def test_killed_while_mending_the_next_mend_finishes(tmp_path):
    folder, half = tmp_path / "best", tmp_path / "half"
    write(tmp_path / "new", 2)
    write(half, 1)
    for name in NAMES:
        shutil.copy(tmp_path / "new" / name, half / f"{name}.new")

    def prepare():
        remove_tree(folder)
        shutil.copytree(half, folder)

    points = 0
    for _ in killed_at_each(RENAMES, prepare, lambda: BestPair(folder).mend()):
        points += 1
        assert loaded_epoch(folder) == 2
        assert BestPair(folder).mend() == []
        assert content(folder) == content(tmp_path / "new")
    assert points == 3


def test_a_pair_of_another_kind_of_score_is_kept_aside_and_said(tmp_path):
    assert write(tmp_path, 1) == write(tmp_path, 2) == []
    (said,) = write(tmp_path, 3, samples=7)
    (aside,) = tmp_path.glob("set_aside/*")
    assert "fid 8.0 of epoch 2" in said
    assert str(aside) in said
    assert (loaded_epoch(tmp_path), loaded_epoch(aside)) == (3, 2)
    assert set(content(aside)) == NAMES
    assert write(tmp_path, 4, samples=7) == BestPair(tmp_path).mend() == []


@needs_strace
def test_killed_while_a_pair_is_set_aside_both_are_whole_in_the_end(tmp_path):
    folder, template = tmp_path / "best", tmp_path / "template"
    write(template, 1)
    old = content(template)

    def prepare():
        remove_tree(folder)
        shutil.copytree(template, folder)

    points = 0
    for point in killed_at_each(RENAMES, prepare, lambda: write(folder, 2, samples=7)):
        points += 1
        unmended = loaded_epoch(folder)
        BestPair(folder).mend()
        assert unmended == loaded_epoch(folder)
        kept = [content(aside) for aside in folder.glob("set_aside/*")]
        assert kept == ([old] if loaded_epoch(folder) == 2 else []), f"rename {point}"
    assert points >= 9


@pytest.mark.parametrize("reached", list(itertools.product([False, True], repeat=3)), ids=str)
def test_renames_that_a_power_cut_kept_in_any_choice(tmp_path, reached):
    """A file system may bring only some of the last renames onto the disk."""
    write(tmp_path / "new", 2)
    folder = tmp_path / "best"
    write(folder, 1)
    for name, done in zip(sorted(NAMES), reached, strict=True):
        shutil.copy(tmp_path / "new" / name, folder / (name if done else f"{name}.new"))
    assert loaded_epoch(folder) == 2
    assert BestPair(folder).mend() == []
    assert content(folder) == content(tmp_path / "new")


@needs_root
def test_a_full_disk_leaves_the_old_pair_and_raises_one_error(tmp_path):
    with small_disk(tmp_path / "disk", "64k") as disk:
        write(disk / "best", 1)
        before = content(disk / "best")
        with pytest.raises(SaveFailed, match="the disk is full"):
            write(disk / "best", 2, spec(width=16))
        assert content(disk / "best") == before
        write(disk / "best", 2)
        assert loaded_epoch(disk / "best") == 2


def test_a_rename_that_fails_is_made_good_later(tmp_path, monkeypatch):
    write(tmp_path, 1)
    real, calls = durable.replace, itertools.count()

    def failing(source, target):
        if not target.name.endswith(".new") and next(calls) == 1:  # the second of the three last renames
            raise OSError(errno.EIO, "Input/output error", str(target))
        real(source, target)

    monkeypatch.setattr(durable, "replace", failing)
    with pytest.raises(SaveFailed, match="input/output error"):
        write(tmp_path, 2)
    assert loaded_epoch(tmp_path) == 2
    monkeypatch.undo()
    assert BestPair(tmp_path).mend() == []
    assert set(content(tmp_path)) == NAMES
    assert loaded_epoch(tmp_path) == 2


def test_what_is_not_of_the_pair_is_set_aside_and_said(tmp_path):
    (tmp_path / "best_generator.pth").write_bytes(b"of an older script")
    (note,) = BestPair(tmp_path).mend()
    assert "set aside" in note
    assert "best_generator.pth" in note
    write(tmp_path, 1)
    (tmp_path / "best_discriminator.pth").write_bytes(b"mine")
    write(tmp_path, 2)
    kept = {path.read_bytes() for path in tmp_path.glob("set_aside/*/*.pth")}
    assert kept == {b"of an older script", b"mine"}
    assert loaded_epoch(tmp_path) == 2


def test_a_damaged_replacement_is_dropped(tmp_path):
    write(tmp_path / "new", 2)
    folder = tmp_path / "best"
    write(folder, 1)
    before = content(folder)
    for name in NAMES:
        shutil.copy(tmp_path / "new" / name, folder / f"{name}.new")
    (folder / "best_discriminator.pth.new").write_bytes(b"torn")
    assert BestPair(folder).mend() == []
    assert content(folder) == before


def test_mending_says_what_it_cannot_read(tmp_path):
    write(tmp_path, 1)
    (tmp_path / "best_generator.json").unlink()
    (tmp_path / "best_generator.json").mkdir()
    (note,) = BestPair(tmp_path).mend()
    assert "was left as it is" in note
    with pytest.raises(SaveFailed):
        write(tmp_path, 2)
    assert BestPair(tmp_path / "nowhere").mend() == []


def test_a_generator_is_loaded_while_the_pair_is_replaced(tmp_path):
    write(tmp_path, 1)
    ready = {seed: networks(seed, spec()) for seed in range(1, 9)}
    done = threading.Event()
    failed: list[BaseException] = []

    def replace_on_and_on():
        try:
            for seed in itertools.islice(itertools.cycle(ready), 40):
                score = {"name": "fid", "value": 1.0}
                BestPair(tmp_path).write(*ready[seed], spec=spec(), epoch=seed, step=seed, score=score)
        except BaseException as error:
            failed.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=replace_on_and_on)
    thread.start()
    loads = 0
    while not done.is_set():
        generator = ganguard.load_generator(tmp_path)
        expected = ready[generator.origin.epoch][0].state_dict()
        assert torch.equal(generator.module.state_dict()["base.weight"], expected["base.weight"])
        loads += 1
    thread.join()
    assert not failed
    assert loads > 3
