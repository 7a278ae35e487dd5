"""Law 2: fixed names are aliases of immutable files, and nothing that is done to them reaches those."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "helpers"))
from stores import NOBODY, archive, damage, finished, let_everybody_in, needs_root, python, rewrite, save, start, tree
from systems import is_root, needs_links

from ganguard.store import aliases, durable, envelope, names, resume
from ganguard.store.catalog import Catalog

AS_SOMEBODY = """
import os, subprocess, sys
from pathlib import Path
from stores import archive, become_nobody, save, tree
import torch
archive()
if sys.argv[3] == "nobody":
    become_nobody()
folder = Path(sys.argv[1]) / "checkpoints"
older = save(folder, 1, alias=True)
entry = save(folder, 2, alias=True)
alias = folder / "latest_checkpoint.pth"
before = {n: d for n, d in tree(folder).items() if n != alias.name}
if sys.argv[2] == "link":
    assert alias.samefile(entry.path), "a second name, no second copy"
    assert alias.stat().st_nlink == 2 and older.path.stat().st_nlink == 1
    if sys.platform != "win32":
        used = {e.inode(): e.stat().st_blocks for e in os.scandir(folder)}
        assert sum(used.values()) <= 2 * entry.path.stat().st_blocks + 8
(folder / "other").write_bytes(b"x" * 100)
copy = ["cmd", "/c", "copy", "/y"] if sys.platform == "win32" else ["cp"]
copied = subprocess.run([*copy, folder / "other", alias], capture_output=True).returncode == 0
try:
    torch.save({"mine": 1}, alias)
    saved = True
except RuntimeError:
    saved = False
assert {n: d for n, d in tree(folder).items() if n != alias.name} == before, "a checkpoint was written through"
print("cp" if copied else "cp refused", "save" if saved else "save refused")
"""


def test_law_2_cp_and_torch_save_onto_the_alias_do_not_reach_the_checkpoint(tmp_path):
    """Criterion 6, as the user who runs the tests (root, where that is one)."""
    how = "copy" if is_root() else "link"
    finished(python(AS_SOMEBODY, tmp_path, how, "as I am"))


@needs_root
def test_law_2_nor_as_a_user_without_privileges_where_the_alias_costs_no_second_copy(tmp_path):
    let_everybody_in(tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)
    assert "cp refused save refused" in finished(python(AS_SOMEBODY, home, "link", "nobody"))


def test_law_2_an_older_scripts_real_file_of_that_name_survives(tmp_path):
    theirs = tmp_path / names.LATEST
    torch.save({"netG_state_dict": {}, "epoch": 7}, theirs)
    before = theirs.read_bytes()
    (note,) = aliases.clear_the_names(tmp_path)
    save(tmp_path, 1, alias=True)
    kept = list((tmp_path / names.SET_ASIDE).rglob(names.LATEST))
    assert [p.read_bytes() for p in kept] == [before]
    assert str(kept[0]) in note


@pytest.mark.parametrize("what", ["folder", *(pytest.param(w, marks=needs_links) for w in ("dangling link", "link"))])
def test_law_2_what_else_lies_at_the_name_is_moved_aside(tmp_path, what):
    alias = tmp_path / names.LATEST
    (tmp_path / "elsewhere.bin").write_bytes(b"theirs")
    if what == "folder":
        (alias / "inside").mkdir(parents=True)
    else:
        alias.symlink_to(tmp_path / ("elsewhere.bin" if what == "link" else "nowhere"))
    assert "is kept as" in aliases.clear_the_names(tmp_path)[0]
    save(tmp_path, 1, alias=True)
    assert (tmp_path / "elsewhere.bin").read_bytes() == b"theirs"
    assert len(list((tmp_path / names.SET_ASIDE).glob(f"*/{names.LATEST}"))) == (what != "dangling link")


def test_law_2_an_alias_that_cannot_be_replaced_is_a_warning(tmp_path):
    entry = save(tmp_path, 1)
    (tmp_path / names.LATEST / "inside").mkdir(parents=True)
    assert "itself is safe" in aliases.point(tmp_path / names.LATEST, entry.path)
    assert not list(tmp_path.glob(f"{durable.TEMPORARY_PREFIX}*"))
    assert envelope.verify(entry.path)


def test_law_1_an_alias_that_was_moved_on_is_told_as_that_although_its_folder_cannot_be_flushed(tmp_path, monkeypatch):
    entry = save(tmp_path, 1)

    def sync(_folder):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(durable, "sync_folder", sync)
    told = aliases.point(tmp_path / names.LATEST, entry.path)
    assert "was moved on, which a power cut may undo" in told
    assert "input/output error" in told
    assert "could not" not in told
    assert envelope.verify(tmp_path / names.LATEST)["epoch"] == 1


@needs_root
def test_law_2_an_alias_that_the_disk_has_no_room_for_is_a_warning(tmp_path):
    from stores import small_disk

    with small_disk(tmp_path / "disk", "128k") as folder:
        entry = save_small(folder)
        (folder / "filler").write_bytes(bytes(durable.free_bytes(folder)))
        assert "the disk is full" in aliases.point(folder / names.LATEST, entry.path)
        assert sorted(p.name for p in folder.iterdir()) == [entry.path.name, "filler"]


def save_small(folder: Path):
    from stores import part, summary

    from ganguard.store import commit

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commit, "_MARGIN", 0)
        return commit.commit(folder, [part(summary(1))]).head


def test_law_2_an_alias_that_is_the_only_copy_gets_its_name_back(tmp_path):
    entry = save(tmp_path, 3, alias=True)
    before = entry.path.read_bytes()
    durable.remove(entry.path)
    plan, path, told = start(tmp_path)
    assert plan.start.summary.epoch == 3
    assert path.exists()
    assert entry.path.read_bytes() == before
    assert any("has its name back" in line for line in told)


def test_law_2_a_good_alias_copy_stands_in_for_a_damaged_checkpoint(tmp_path):
    """Where the alias is a copy (root, exFAT), damage to the file of that name does not reach it."""
    save(tmp_path, 1)
    entry = save(tmp_path, 2)
    shutil.copy(entry.path, tmp_path / names.LATEST)
    damage(entry.path)
    plan, path, _ = start(tmp_path)
    assert plan.start.summary.epoch == 2
    assert envelope.verify(path)
    assert envelope.verify(entry.path)["epoch"] == 2  # its name back; the damaged one is set aside
    assert len(list((tmp_path / names.SET_ASIDE).rglob("checkpoint_epoch_002.pth"))) == 1


def test_law_2_a_good_alias_copy_stands_in_for_one_whose_middle_was_cut_out(tmp_path):
    save(tmp_path, 1)
    entry = save(tmp_path, 2)
    shutil.copy(entry.path, tmp_path / names.LATEST)
    whole = entry.path.read_bytes()
    rewrite(entry.path, whole[:1000] + whole[2000:])
    assert start(tmp_path)[0].start.summary.epoch == 2


def test_law_2_aliases_are_repaired_at_start(tmp_path):
    old = save(tmp_path, 1, alias=True)
    new = save(tmp_path, 2)  # and killed before the alias moved on
    start(tmp_path)
    assert Catalog.of(tmp_path).entries[-1].digest == new.digest
    durable.remove(tmp_path / names.LATEST)
    start(tmp_path)
    assert envelope.verify(tmp_path / names.LATEST)["digest"] == new.digest
    rewrite(tmp_path / names.LATEST, new.path.read_bytes())
    damage(tmp_path / names.LATEST)  # a power cut tore the copy
    start(tmp_path)
    assert envelope.verify(tmp_path / names.LATEST)["digest"] == new.digest
    assert envelope.verify(old.path)


@pytest.mark.parametrize(
    "tear",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: bytes(len(data)),
        lambda data: data[: len(data) // 2] + bytes(len(data) - len(data) // 2),
        lambda data: bytes(4096) + data[4096:-512] + bytes(512),
    ],
    ids=["empty", "short", "zeros", "zeros from its middle", "holes at both ends"],
)
def test_law_2_an_alias_that_a_power_cut_tore_is_repaired_and_not_called_foreign(tmp_path, tear):
    """What a copy that was not flushed may be: its size and its blocks reach the disk, or do not, one by one."""
    save(tmp_path, 1)
    entry = save(tmp_path, 2, alias=True)
    rewrite(tmp_path / names.LATEST, tear(entry.path.read_bytes()))
    told = start(tmp_path)[2]
    assert any("was torn, as by a power cut" in line for line in told)
    assert envelope.verify(tmp_path / names.LATEST)["digest"] == entry.digest
    assert not (tmp_path / names.SET_ASIDE).exists()


def test_law_2_an_alias_that_is_a_copy_is_on_the_disk_before_it_has_the_name(tmp_path, monkeypatch):
    """Else a power cut would tear it again."""
    entry = save(tmp_path, 1)
    flushed, real, moved = [], os.fsync, Path.replace

    def fsync(descriptor):
        flushed.append((os.fstat(descriptor).st_ino, os.fstat(descriptor).st_size))
        real(descriptor)

    def replace(path, target):
        assert (path.stat().st_ino, entry.size) in flushed
        return moved(path, target)

    monkeypatch.setattr(durable, "read_only_protects", lambda *_: False)
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    assert aliases.point(tmp_path / names.LATEST, entry.path) is None


def test_law_2_resuming_needs_no_alias(tmp_path):
    save(tmp_path, 1)
    rewrite_alias = tmp_path / names.LATEST
    for content in (b"", b"garbage", archive()):
        rewrite_alias.write_bytes(content)
        assert resume.plan(tmp_path, resume.Request()).start.summary.epoch == 1


@pytest.mark.skipif(shutil.which("cp") is None, reason="needs cp")
def test_a_person_may_copy_the_alias(tmp_path):
    entry = save(tmp_path, 1, alias=True)
    subprocess.run(["cp", tmp_path / names.LATEST, tmp_path / "mine.pth"], check=True)
    assert (tmp_path / "mine.pth").read_bytes() == entry.path.read_bytes()
    assert len(tree(tmp_path)) == 3
