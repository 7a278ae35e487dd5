"""Backups by the clock: made when due, the newest few kept, others' left alone, failures told and survived."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "helpers"))
from stores import damage, save, save_pair

from ganguard.errors import UsageError
from ganguard.store import backup, envelope
from ganguard.store.scheduled import BackupPlan, ScheduledBackups, interval

DAY = 86_400


def backups(tmp_path, entry, *, keep=2, every_s=DAY):
    told = []
    plan = BackupPlan(every_s=every_s, keep=keep, folder=tmp_path / "elsewhere")
    return ScheduledBackups(plan, entry.summary.run, told.append), told


def names_in(folder):
    return sorted(path.name for path in folder.glob("*.pth"))


def age(folder, days):
    """Make every backup that many days older."""
    for path in folder.glob("*.pth"):
        then = path.stat().st_mtime - days * DAY
        os.utime(path, (then, then))


def test_an_interval_is_a_number_and_a_unit():
    assert [interval(text) for text in ("30m", "12h", "1d", "1.5 W")] == [1800, 43_200, DAY, 907_200]
    for wrong in ("", "1", "d", "0d", "-1d", "1 day", "1s"):
        with pytest.raises(UsageError, match="30m, 12h, 1d"):
            interval(wrong)


def test_one_is_made_at_once_and_the_next_only_when_it_is_due(tmp_path):
    entry = save(tmp_path / "checkpoints", 1)
    for _ in range(2):  # a second start of the training
        made, told = backups(tmp_path, entry)
        made.saved(entry)
        made.saved(entry)
    assert len(names_in(tmp_path / "elsewhere")) == 1
    age(tmp_path / "elsewhere", 1)
    made, told = backups(tmp_path, entry)
    made.saved(entry)
    assert len(names_in(tmp_path / "elsewhere")) == 2
    assert "Backed up and verified" in told[0]


def test_pairs_go_as_one_and_the_newest_stay(tmp_path):
    folder = tmp_path / "elsewhere"
    for epoch in range(1, 5):
        entry = save_pair(tmp_path / "checkpoints", epoch)
        made, _ = backups(tmp_path, entry)
        made.saved(entry)
        age(folder, 1)
    assert [name.split("_scheduled_")[0].split("_", 1) for name in names_in(folder)] == [
        [part, f"epoch_{epoch:03d}"] for part in ("critic", "generator") for epoch in (3, 4)
    ]
    for path in folder.glob("*.pth"):
        envelope.verify(path)


def test_backups_made_by_hand_and_those_of_another_run_stay(tmp_path):
    folder = tmp_path / "elsewhere"
    other = save(tmp_path / "other", 1, run="another")
    backups(tmp_path, other, keep=1)[0].saved(other)
    entry = save(tmp_path / "checkpoints", 1)
    by_hand = backup.back_up(entry.path, folder)[0]
    for _ in range(3):
        age(folder, 1)
        backups(tmp_path, entry, keep=1)[0].saved(entry)
    assert by_hand.exists()
    assert len(names_in(folder)) == 3


def test_a_backup_that_fails_is_told_and_tried_again_later(tmp_path, monkeypatch):
    entry = save(tmp_path / "checkpoints", 1)
    (tmp_path / "elsewhere").write_text("a file where the folder should be")
    made, told = backups(tmp_path, entry)
    made.saved(entry)
    made.saved(entry)
    assert len(told) == 1
    assert "No backup in" in told[0]
    (tmp_path / "elsewhere").unlink()
    later = time.monotonic() + 601
    monkeypatch.setattr(time, "monotonic", lambda: later)
    made.saved(entry)
    assert len(names_in(tmp_path / "elsewhere")) == 1


def test_a_damaged_checkpoint_is_no_backup_and_removes_none(tmp_path):
    entry = save(tmp_path / "checkpoints", 1)
    backups(tmp_path, entry, keep=1)[0].saved(entry)
    age(tmp_path / "elsewhere", 1)
    before = names_in(tmp_path / "elsewhere")
    damage(entry.path)
    made, told = backups(tmp_path, entry, keep=1)
    made.saved(entry)
    assert "No backup" in told[0]
    assert names_in(tmp_path / "elsewhere") == before
