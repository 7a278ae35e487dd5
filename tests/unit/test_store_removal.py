"""Law 7: the last good checkpoint cannot be deleted, and one survivor is verified before anything goes."""

from __future__ import annotations

import errno
import shutil
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "helpers"))
from stores import damage, finished, python, rewrite, save, save_pair, start, tree
from systems import remove

from ganguard.errors import DamagedCheckpoint, UsageError
from ganguard.store import aliases, backup, durable, envelope, interruption, names, removal, resume, runfile
from ganguard.store.catalog import Catalog
from ganguard.store.lock import REMOVAL, Lock
from ganguard.store.resume import Request
from ganguard.store.retention import Policy

FEW = Policy(keep_latest=2, keep_every=0)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoints"


@pytest.fixture
def entries(folder):
    return [save(folder, e, alias=True) for e in range(1, 6)]


def epochs(folder: Path) -> list[int]:
    return sorted(e.summary.epoch for e in Catalog.of(folder).heads)


@pytest.mark.usefixtures("entries")
def test_law_7_cleanup_leaves_what_the_policy_keeps(folder):
    would_go = [e.path for e in removal.would_go(folder, FEW)]
    assert epochs(folder) == [1, 2, 3, 4, 5]
    assert removal.prune(folder, FEW).paths == would_go
    assert epochs(folder) == [4, 5]
    assert removal.prune(folder, FEW).paths == removal.would_go(folder, FEW) == []


def test_law_7_nothing_goes_where_no_survivor_is_good(folder, entries):
    remove(folder / names.LATEST)
    for entry in entries[3:]:
        damage(entry.path)
    before = tree(folder)
    with pytest.raises(DamagedCheckpoint, match="nothing is removed"):
        removal.prune(folder, FEW)
    with pytest.raises(DamagedCheckpoint):
        removal.prune(folder, Policy(keep_latest=0, keep_every=0))
    assert tree(folder) == before


def test_law_7_a_damaged_companion_makes_a_survivor_no_survivor(folder):
    for epoch in (1, 2, 3):
        save_pair(folder, epoch)
    damage(folder / "critic_epoch_003.pth")
    with pytest.raises(DamagedCheckpoint):
        removal.prune(folder, Policy(keep_latest=1, keep_every=0))


def test_companions_go_with_their_head(folder):
    for epoch in (1, 2, 3):
        save_pair(folder, epoch)
    removal.prune(folder, Policy(keep_latest=1, keep_every=0))
    assert sorted(tree(folder)) == ["critic_epoch_003.pth", "generator_epoch_003.pth"]
    save_pair(folder, 4)
    gone = removal.delete(folder / "generator_epoch_003.pth", folder)
    assert [p.name for p in gone.paths] == ["generator_epoch_003.pth", "critic_epoch_003.pth"]
    with pytest.raises(UsageError, match="last good"):
        removal.delete(folder / "critic_epoch_004.pth", folder)
    save_pair(folder, 5)
    gone = removal.delete(folder / "critic_epoch_004.pth", folder)  # either name stands for both
    assert [p.name for p in gone.paths] == ["generator_epoch_004.pth", "critic_epoch_004.pth"]


def test_a_second_file_that_a_copy_of_its_first_needs_stays_and_is_not_told_as_gone(folder):
    for epoch in (1, 2, 3):
        save_pair(folder, epoch)
    shutil.copy(folder / "generator_epoch_001.pth", folder / "my.pth")
    policy = Policy(keep_latest=1, keep_every=0)
    wanted = ["generator_epoch_001.pth", "generator_epoch_002.pth", "critic_epoch_002.pth"]
    assert [e.path.name for e in removal.would_go(folder, policy)] == wanted
    assert [p.name for p in removal.prune(folder, policy).paths] == wanted
    assert {head.path.name for head in Catalog.of(folder).heads} == {"my.pth", "generator_epoch_003.pth"}


def test_a_second_file_that_two_going_first_ones_share_goes_with_the_last(folder, monkeypatch):
    """Where that one cannot be removed, it keeps its second file."""
    one = save_pair(folder, 1)
    copy = folder / "twin.pth"
    shutil.copy(one.path, copy)
    there = Catalog.of(folder)
    first, last = there.heads
    real = durable.replace

    def refusing(source, target):
        if source == last.path:
            raise PermissionError(errno.EACCES, "in use")
        real(source, target)

    monkeypatch.setattr(durable, "replace", refusing)
    stuck = {}
    gone = removal.remove_all(there, [first, last], [], stays=stuck.__setitem__)
    assert [e.path for e in gone] == [first.path]
    assert list(stuck) == [last.path]
    assert not Catalog.of(folder).lacking(last)
    monkeypatch.undo()
    gone = removal.remove_all(there, [first, last], [], stays=stuck.__setitem__)
    assert tree(folder) == {}


class BrokenOffError(BaseException):
    """Not an Exception, as what ends a thread's work."""


def test_a_removal_that_is_broken_off_in_the_middle_leaves_the_pair_whole(folder, monkeypatch):
    head = save_pair(folder, 1)
    before = tree(folder)

    def broken(_path):
        raise BrokenOffError

    monkeypatch.setattr(durable, "remove", broken)
    with pytest.raises(BrokenOffError):
        removal.remove(Catalog.of(folder), head, [])
    assert tree(folder) == before


def test_nobody_breaks_a_removal_off_between_two_files(folder, monkeypatch):
    """Under Windows, where another program holds one of them open for a while."""
    head = save_pair(folder, 1)
    held = iter([head.path.name, "critic_epoch_001.pth"])
    renamed, removed = Path.replace, Path.unlink

    def broken():
        raise BrokenOffError

    def refuse(path, following=held):
        if path.name == getattr(refuse, "name", None):
            refuse.name = next(following, None)
            raise PermissionError(errno.EACCES, "in use")

    refuse.name = next(held)
    monkeypatch.setattr(durable, "WINDOWS", True)
    monkeypatch.setattr(durable, "_PAUSE_S", 0.0)
    monkeypatch.setattr(Path, "replace", lambda path, target: (refuse(path), renamed(path, target))[1])
    monkeypatch.setattr(Path, "unlink", lambda path, **more: (refuse(path), removed(path, **more))[1])
    with interruption.asking(broken):
        removal.remove(Catalog.of(folder), head, [])
    assert tree(folder) == {}


@pytest.fixture
def not_flushed(monkeypatch, folder):
    """The folder cannot be flushed any more once this many checkpoints are left."""

    def install(left: int) -> None:
        real = durable.sync_folder

        def sync(place):
            if len(list(folder.glob("checkpoint_*.pth"))) <= left:
                raise OSError(errno.EIO, "Input/output error")
            real(place)

        monkeypatch.setattr(durable, "sync_folder", sync)

    return install


@pytest.mark.usefixtures("entries")
def test_law_1_what_was_removed_is_told_although_the_folder_cannot_be_flushed_then(folder, not_flushed):
    not_flushed(4)
    gone = removal.delete(folder / "checkpoint_epoch_001.pth", folder)
    assert [p.name for p in gone.paths] == ["checkpoint_epoch_001.pth"]
    assert "may bring back what was removed" in gone.warning
    with pytest.raises(OSError, match="Input/output"):  # before anything goes
        removal.prune(folder, FEW)
    assert epochs(folder) == [2, 3, 4, 5]


@pytest.mark.usefixtures("entries")
def test_law_1_a_cleanup_tells_what_went_although_the_folder_cannot_be_flushed_then(folder, not_flushed):
    not_flushed(2)
    gone = removal.prune(folder, FEW)
    assert len(gone.paths) == 3
    assert "input/output error" in gone.warning


def test_law_7_retention_touches_only_files_of_its_own_run(folder, entries):
    start(folder)
    for epoch in range(1, 9):
        save(folder, epoch, run="another", name=f"theirs_{epoch}.pth")
    shutil.copy(entries[0].path, folder / "kept on purpose.pth")
    (folder / "notes.pth").write_bytes(b"not a checkpoint")
    torch.save({"epoch": 3}, folder / "checkpoint_epoch_777.pth")
    removal.prune(folder, FEW)
    left = set(tree(folder))
    assert {f"theirs_{e}.pth" for e in range(1, 9)} | {"kept on purpose.pth", "notes.pth"} <= left
    assert "checkpoint_epoch_777.pth" in left
    assert "checkpoint_epoch_003.pth" not in left


def test_what_a_command_began_from_is_kept(folder, entries):
    start(folder, file=entries[1].path, branch=True)
    run = runfile.read(folder)
    for epoch in range(3, 9):
        save(folder, epoch, branch=run.branch, lineage=run.lineage)
    removal.prune(folder, FEW)
    assert epochs(folder) == [2, 7, 8]


def test_law_7_the_last_good_one_is_not_deleted_without_force(folder):
    entry = save(folder, 1, alias=True)
    with pytest.raises(UsageError, match="last good checkpoint"):
        removal.delete(entry.path, folder)
    assert envelope.verify(entry.path)
    removal.delete(entry.path, folder, force=True)
    assert not tree(folder)
    assert start(folder)[0].start is None  # the alias did not bring it back


def test_law_7_the_last_good_one_may_go_once_it_is_backed_up_and_the_backup_is_good(folder, tmp_path):
    entry = save(folder, 1, alias=True)
    copy = backup.back_up(entry.path, removal.backups(folder))[0]
    whole = copy.read_bytes()
    damage(copy)
    with pytest.raises(DamagedCheckpoint):
        removal.delete(entry.path, folder)
    rewrite(copy, whole)
    removal.delete(copy, folder)  # while the original is there, the copy may go as well
    copy.write_bytes(whole)
    removal.delete(entry.path, folder)
    assert [p.name for p in tmp_path.rglob("*.pth")] == [copy.name]
    with pytest.raises(UsageError, match="last good checkpoint"):
        removal.delete(copy, folder)


def test_law_7_a_survivor_is_verified_before_a_file_is_deleted(folder):
    entries = [save(folder, e) for e in (1, 2)]
    damage(entries[0].path)
    with pytest.raises(DamagedCheckpoint):
        removal.delete(entries[1].path, folder)
    assert envelope.verify(entries[1].path)


def test_law_7_neither_another_run_nor_what_is_not_finite_is_a_survivor(folder):
    entry = save(folder, 1)
    save(folder, 9, run="another")
    save(folder, 2, finite=False)
    with pytest.raises(UsageError, match="last good"):
        removal.delete(entry.path, folder)


def test_law_7_a_newer_format_counts_as_good(folder, monkeypatch):
    monkeypatch.setattr(envelope, "FORMAT", 2)
    entry = save(folder, 1)
    monkeypatch.undo()
    with pytest.raises(UsageError, match="last good"):
        removal.delete(entry.path, folder)


@pytest.mark.parametrize("relative", [False, True])
def test_an_alias_does_not_bring_a_deleted_checkpoint_back(folder, entries, monkeypatch, relative):
    monkeypatch.chdir(folder.parent)
    file = Path("checkpoints/../checkpoints/checkpoint_epoch_005.pth") if relative else entries[4].path
    removal.delete(file, folder)
    assert envelope.verify(folder / names.LATEST)["epoch"] == 4
    assert start(folder)[0].start.summary.epoch == 4
    assert epochs(folder) == [1, 2, 3, 4]


def test_deleting_one_older_file_leaves_an_older_scripts_alias_alone(folder):
    folder.mkdir()
    for name in ("checkpoint_epoch_001.pth", "checkpoint_epoch_002.pth", names.LATEST):
        torch.save({"epoch": 1, "name": name}, folder / name)
    with pytest.raises(UsageError, match="may be the last good"):
        removal.delete(folder / "checkpoint_epoch_001.pth", folder)
    removal.delete(folder / "checkpoint_epoch_001.pth", folder, force=True)
    assert sorted(tree(folder)) == ["checkpoint_epoch_002.pth", names.LATEST]


@pytest.mark.usefixtures("entries")
def test_what_is_no_checkpoint_or_lies_elsewhere_is_refused(folder, tmp_path):
    (folder / "notes.pth").write_bytes(b"hello")
    (folder / "folder.pth").mkdir()
    outside = save(tmp_path / "elsewhere", 1).path
    for file, reason in (
        (folder / "notes.pth", "no checkpoint"),
        (folder / "folder.pth", "not a checkpoint"),
        (folder / runfile.NAME, r"There is no file|not a checkpoint"),
        (folder / names.LATEST, "second name"),
        (outside, "outside"),
        (folder / ".." / "elsewhere" / outside.name, "outside"),
        (folder / "nothing.pth", "There is no file"),
    ):
        with pytest.raises(UsageError, match=reason):
            removal.delete(file, folder, force=True)
    assert outside.exists()


def test_a_torn_file_and_one_that_was_set_aside_can_be_deleted(folder, entries):
    rewrite(entries[4].path, entries[4].path.read_bytes()[:300])
    remove(folder / names.LATEST)
    start(folder)
    aside = next((folder / names.SET_ASIDE).rglob("*.pth"))
    assert removal.delete(aside, folder).paths == [aside]
    assert epochs(folder) == [1, 2, 3, 4]


@pytest.mark.usefixtures("entries")
def test_law_7_what_was_set_aside_goes_only_while_a_good_one_is_there(folder):
    start(folder, afresh=True)
    before = tree(folder)
    with pytest.raises(DamagedCheckpoint):
        removal.clear_set_aside(folder)
    assert tree(folder) == before
    save(folder, 1, run=runfile.read(folder).run)
    assert len(removal.set_aside_in(folder)) == 6
    assert len(removal.clear_set_aside(folder)) == 6
    assert list(tree(folder)) == ["checkpoint_epoch_001.pth"]
    assert not (folder / names.SET_ASIDE).exists()


def test_an_alias_left_on_what_was_pruned_costs_nothing(folder, entries):
    aliases.point(folder / names.LATEST, entries[0].path)  # it could not be moved on since
    removal.prune(folder, FEW)
    assert start(folder)[0].start.summary.epoch == 5
    assert envelope.verify(folder / names.LATEST)["epoch"] == 5


def test_law_10_a_removal_waits_for_another_and_decides_again(folder, entries):
    code = """
import sys; from pathlib import Path
from ganguard.store import removal; from ganguard.store.retention import Policy
print(len(removal.prune(Path(sys.argv[1]), Policy(keep_latest=2, keep_every=0)).paths))
"""
    with Lock(folder, REMOVAL):
        second = python(code, folder)
        with pytest.raises(Exception, match="timed out"):
            second.wait(timeout=1.5)
        durable.remove(entries[0].path)
        save(folder, 6)
    assert finished(second) == "3\n"
    assert epochs(folder) == [5, 6]


def test_law_10_two_processes_that_prune_while_a_third_saves_lose_nothing(folder):
    saving = """
import sys; from pathlib import Path
from ganguard.store import commit, aliases
from stores import part, summary
data = Path(sys.argv[2]).read_bytes()
for epoch in range(1, 40):
    entry = commit.commit(Path(sys.argv[1]), [part(summary(epoch), data)]).head
    aliases.point(entry.path.parent / "latest_checkpoint.pth", entry.path)
"""
    pruning = """
import sys, time; from pathlib import Path
from ganguard.store import removal; from ganguard.store.retention import Policy
from ganguard.errors import DamagedCheckpoint
end = time.monotonic() + 2
while time.monotonic() < end: removal.prune(Path(sys.argv[1]), Policy(keep_latest=3, keep_every=10))
"""
    one = save(folder, 0, name="first.pth")
    data = folder.parent / "archive"
    data.write_bytes(one.path.read_bytes()[: one.summary.bytes - 2] + b"\0\0")
    processes = [python(saving, folder, data), python(pruning, folder), python(pruning, folder)]
    for process in processes:
        finished(process)
    removal.prune(folder, Policy(keep_latest=3, keep_every=10))
    assert epochs(folder) == [0, 10, 20, 30, 37, 38, 39]
    for head in Catalog.of(folder).heads:
        assert envelope.verify(head.path)
    assert resume.plan(folder, Request()).start.summary.epoch == 39
