"""Backups are verified copies, with their companions, never over another file."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "helpers"))
from stores import archive, damage, needs_root, rewrite, save, save_pair, small_disk, tree
from systems import remove

from ganguard.errors import DamagedCheckpoint, SaveFailed, UsageError
from ganguard.store import backup, durable, envelope, names, resume
from ganguard.store.catalog import Catalog


def test_a_backup_is_a_verified_read_only_copy_under_a_name_of_its_own(tmp_path):
    entry = save(tmp_path / "checkpoints", 1)
    copies = [backup.back_up(entry.path, tmp_path / names.BACKUPS)[0] for _ in range(3)]
    assert len(set(copies)) == 3
    for copy in copies:
        assert copy.read_bytes() == entry.path.read_bytes()
        assert copy.stat().st_mode & 0o222 == 0
        assert copy.stat().st_ino != entry.path.stat().st_ino
        assert copy.name.startswith("checkpoint_epoch_001_backup_")


def test_a_backup_of_a_pair_can_be_resumed_where_it_lies(tmp_path):
    head = save_pair(tmp_path / "checkpoints", 1)
    copies = backup.back_up(head.path, tmp_path / names.BACKUPS)
    assert [c.name.split("_")[0] for c in copies] == ["critic", "generator"]
    there = Catalog.of(tmp_path / names.BACKUPS)
    assert [h.path for h in there.heads] == [copies[1]]
    plan = resume.plan(tmp_path / "new", resume.Request(file=copies[1]))
    assert plan.start.path == copies[1]


def test_a_damaged_checkpoint_is_not_backed_up(tmp_path):
    entry = save(tmp_path / "checkpoints", 1)
    damage(entry.path)
    with pytest.raises(DamagedCheckpoint):
        backup.back_up(entry.path, tmp_path / names.BACKUPS)
    head = save_pair(tmp_path / "checkpoints", 2)
    damage(tmp_path / "checkpoints" / "critic_epoch_002.pth")
    with pytest.raises(DamagedCheckpoint):
        backup.back_up(head.path, tmp_path / names.BACKUPS)
    assert not (tmp_path / names.BACKUPS).exists()
    remove(tmp_path / "checkpoints" / "critic_epoch_002.pth")
    with pytest.raises(UsageError, match="lacks its second file"):
        backup.back_up(head.path, tmp_path / names.BACKUPS)


def test_an_older_file_is_backed_up_byte_by_byte(tmp_path):
    torch.save({"epoch": 1}, tmp_path / "old.pth")
    copy = backup.back_up(tmp_path / "old.pth", tmp_path / names.BACKUPS)[0]
    assert copy.read_bytes() == (tmp_path / "old.pth").read_bytes()
    with pytest.raises(UsageError, match="There is no file"):
        backup.back_up(tmp_path / "new.pth", tmp_path / names.BACKUPS)


def test_what_an_interrupted_backup_left_goes_with_the_next(tmp_path):
    entry = save(tmp_path / "checkpoints", 1)
    (tmp_path / names.BACKUPS).mkdir()
    durable.temporary_name(tmp_path / names.BACKUPS / "x.pth", names.BACKUP_TAG).write_bytes(b"half")
    backup.back_up(entry.path, tmp_path / names.BACKUPS)
    assert len(list((tmp_path / names.BACKUPS).glob("*.pth"))) == len(tree(tmp_path / names.BACKUPS)) == 1


@needs_root
def test_a_backup_that_does_not_fit_is_told_and_leaves_nothing(tmp_path):
    entry = save(tmp_path / "checkpoints", 1)
    head = save_pair(tmp_path / "checkpoints", 2)
    with small_disk(tmp_path / "disk", "64k") as disk:
        (disk / "filler").write_bytes(bytes(durable.free_bytes(disk) - len(archive()) - 1000))
        with pytest.raises(SaveFailed, match="are needed in") as failed:
            backup.back_up(head.path, disk)
        assert failed.value.needed > 2 * len(archive())
        assert tree(disk) == {}
    rewrite(entry.path, entry.path.read_bytes())
    assert envelope.verify(entry.path)
