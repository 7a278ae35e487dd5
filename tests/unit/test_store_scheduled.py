"""Backups by the clock: made when due, the newest few kept by position, others' left alone, failures survived."""

from __future__ import annotations

import datetime
import os
import sys
import time
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "helpers"))
from stores import damage, save, save_pair

from ganguard.errors import UsageError
from ganguard.store import backup, envelope
from ganguard.store.catalog import Catalog
from ganguard.store.scheduled import BackupPlan, ScheduledBackups, interval
from ganguard.store.shelf import Shelf

DAY = 86_400


def backups(tmp_path, entry, *, keep=2, every_s=DAY):
    """As a start of the training has them."""
    told = []
    plan = BackupPlan(every_s=every_s, keep=keep, folder=tmp_path / "elsewhere")
    shelf = Shelf(entry.path.parent, entry.summary.pair)
    return ScheduledBackups(plan, shelf, entry.summary.run, told.append), told


def saved(made, entry):
    if made.due:
        made.make(entry)


def days_ago(days):
    return (datetime.datetime.now().astimezone() - datetime.timedelta(days=days)).isoformat()


def names_in(folder):
    return sorted(path.name for path in folder.glob("*.pth"))


def epochs_in(folder):
    return sorted(head.summary.epoch for head in Catalog.all_in(folder).heads)


def test_an_interval_is_a_number_and_a_unit():
    assert [interval(text) for text in ("30m", "12h", "1d", "1.5 W")] == [1800, 43_200, DAY, 907_200]
    for wrong in ("", "1", "d", "0d", "-1d", "1 day", "1s"):
        with pytest.raises(UsageError, match="30m, 12h, 1d"):
            interval(wrong)


@pytest.mark.parametrize(("age", "count"), [(0.5, 1), (1.5, 2), (-3, 2)], ids=["fresh", "old", "clock put back"])
def test_one_is_made_at_once_and_the_next_only_when_it_is_due(tmp_path, age, count):
    first = save(tmp_path / "checkpoints", 1, saved_at=days_ago(age))
    saved(backups(tmp_path, first)[0], first)
    for path in (tmp_path / "elsewhere").glob("*.pth"):
        os.utime(path, (0, 0))  # copied since, or anything else that tells nothing
    made, told = backups(tmp_path, first)  # a second start of the training
    for epoch in (2, 3):
        saved(made, save(tmp_path / "checkpoints", epoch))
    assert len(names_in(tmp_path / "elsewhere")) == count
    assert len([line for line in told if "Backed up and verified" in line]) == count - 1


def test_pairs_go_as_one_and_the_newest_stay(tmp_path):
    folder = tmp_path / "elsewhere"
    for epoch in range(1, 5):
        entry = save_pair(tmp_path / "checkpoints", epoch)
        saved(backups(tmp_path, entry)[0], entry)
    assert [name.split("_scheduled_")[0].split("_", 1) for name in names_in(folder)] == [
        [part, f"epoch_{epoch:03d}"] for part in ("critic", "generator") for epoch in (3, 4)
    ]
    for path in folder.glob("*.pth"):
        envelope.verify(path)


@pytest.mark.parametrize("years", [-30, 1])
def test_law_3_they_are_kept_by_position_whatever_their_files_times(tmp_path, years):
    """A clock put back, or copied files, would else remove what was made a moment ago."""
    folder = tmp_path / "elsewhere"
    for epoch in range(1, 6):
        entry = save(tmp_path / "checkpoints", epoch)
        saved(backups(tmp_path, entry)[0], entry)
        assert epoch in epochs_in(folder)
        for path in folder.glob("*.pth"):
            os.utime(path, (time.time() + years * 365 * DAY,) * 2)
    assert epochs_in(folder) == [4, 5]


def test_law_3_the_one_just_made_stays_where_later_positions_lie(tmp_path):
    """The newest checkpoints were damaged, and the run went on from before their backups."""
    for epoch in (8, 9, 3):
        entry = save(tmp_path / "checkpoints", epoch)
        saved(backups(tmp_path, entry)[0], entry)
    assert epochs_in(tmp_path / "elsewhere") == [3, 8, 9]


def test_backups_made_by_hand_and_those_of_another_run_stay(tmp_path):
    folder = tmp_path / "elsewhere"
    other = save(tmp_path / "other", 1, run="another")
    saved(backups(tmp_path, other, keep=1)[0], other)
    entry = save(tmp_path / "checkpoints", 1)
    by_hand = backup.back_up(entry.path, folder)[0]
    for epoch in (2, 3, 4):
        entry = save(tmp_path / "checkpoints", epoch)
        saved(backups(tmp_path, entry, keep=1)[0], entry)
    assert by_hand.exists()
    assert len(names_in(folder)) == 3


def test_a_backup_that_fails_is_told_and_tried_again_later(tmp_path, monkeypatch):
    entry = save(tmp_path / "checkpoints", 1)
    (tmp_path / "elsewhere").write_text("a file where the folder should be")
    made, told = backups(tmp_path, entry)
    saved(made, entry)
    saved(made, entry)
    assert len(told) == 1
    assert "No backup in" in told[0]
    (tmp_path / "elsewhere").unlink()
    later = time.monotonic() + 601
    monkeypatch.setattr(time, "monotonic", lambda: later)
    saved(made, entry)
    assert len(names_in(tmp_path / "elsewhere")) == 1


def test_a_damaged_checkpoint_is_no_backup_and_removes_none(tmp_path):
    entry = save(tmp_path / "checkpoints", 1)
    saved(backups(tmp_path, entry, keep=1)[0], entry)
    before = names_in(tmp_path / "elsewhere")
    damage(entry.path)
    made, told = backups(tmp_path, entry, keep=1)
    saved(made, entry)
    assert "No backup" in told[0]
    assert names_in(tmp_path / "elsewhere") == before
