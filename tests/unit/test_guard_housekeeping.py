"""Laws 1 and 8: once a save stands nothing can fail it, and what follows it delays neither training nor leaving."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.append(str(Path(__file__).parents[1] / "helpers"))
from stores import SOURCE, needs_root, small_disk

from ganguard import Guard, housekeeping
from ganguard.cli import checkpoints, running
from ganguard.errors import Stopped
from ganguard.store import durable, envelope, interruption, removal
from ganguard.store.catalog import Catalog
from ganguard.store.lock import BACKUP, REMOVAL, Lock
from ganguard.store.pair import HISTORY, Pair
from ganguard.store.scheduled import BackupPlan, ScheduledBackups
from ganguard.store.shelf import Shelf

LATEST = "latest_checkpoint.pth"
PAIR = Pair(name="DRUSEN")


def networks(width=3):
    torch.manual_seed(0)
    G, D = nn.Linear(2, width), nn.Linear(width, 1)
    return {
        "generator": G,
        "critic": D,
        "opt_g": torch.optim.SGD(G.parameters(), 0.1),
        "opt_d": torch.optim.SGD(D.parameters(), 0.1),
    }


class Run:
    """A run whose iterations do nothing but count: each is saved."""

    def __init__(self, folder):
        self.folder = folder
        self.said = []

    def to(self, total, at=lambda step: None, **options):
        width = options.pop("width", 3)
        options = {"save_every_batches": 1, "keep_every": 0, **options}
        with Guard(self.folder, networks(width), say=self.said.append, **options) as guard:
            for step in guard.steps(total):
                at(step)
        return guard

    def told(self, text):
        return [line for line in self.said if text in line]

    def steps(self, layout=None, folder=None):
        return sorted(head.summary.step for head in Catalog.of(Shelf(folder or self.folder, layout)).heads)


@pytest.fixture
def ran(tmp_path):
    return Run(tmp_path / "ck")


@pytest.fixture
def impatient(monkeypatch):
    """Leaving waits a moment only."""
    monkeypatch.setattr(housekeeping, "_LEAVING_S", 0.3)


def a_plan(tmp_path, every_s=1e-9, keep=2):
    return BackupPlan(every_s=every_s, keep=keep, folder=tmp_path / "backups")


# Once the head has its name.


@pytest.mark.parametrize("layout", [None, PAIR], ids=["single", "pair"])
def test_law_1_no_answer_about_a_file_that_stands_fails_the_save_or_the_run(ran, monkeypatch, layout):
    """A drive or a network share that answers with errors from the moment that the checkpoint has its name."""
    sick = set()
    renamed, looked, opened = Path.replace, Path.stat, Path.open

    def replacing(path, target):
        done = renamed(path, target)
        if target.name.endswith("step_00000002.pth"):
            sick.add(str(target))
        return done

    def refusing(real):
        def call(path, *words, **more):
            if str(path) in sick:
                raise OSError(errno.EIO, "Input/output error", str(path))
            return real(path, *words, **more)

        return call

    monkeypatch.setattr(Path, "replace", replacing)
    monkeypatch.setattr(Path, "stat", refusing(looked))
    monkeypatch.setattr(Path, "open", refusing(opened))
    guard = ran.to(2, layout=layout)
    assert ran.told("saved ")[-1].count("step_00000002.pth") == (2 if layout else 1)
    assert not ran.told("NOT SAVED")
    monkeypatch.undo()
    assert guard.savings["step"]["bytes"] == sum(p.stat().st_size for p in ran.folder.rglob("*step_*.pth"))
    assert ran.steps(layout) == [1, 2]


@pytest.fixture
def folders_cannot_be_flushed(monkeypatch):
    """``fsync`` of a folder fails once ``file`` has its name; set ``well`` to mend that."""
    real = os.fsync

    class Disk:
        file = None
        well = False

    def fsync(descriptor):
        broken = Disk.file and Disk.file.exists() and not Disk.well
        if broken and stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, "Input/output error")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return Disk


@pytest.mark.parametrize("layout", [None, PAIR], ids=["single", "pair"])
def test_law_1_a_folder_that_cannot_be_flushed_after_the_rename_is_told_and_tried_again(
    ran, folders_cannot_be_flushed, layout
):
    """The checkpoint stands, its second file too; older ones stay until the new one is durable."""
    disk = folders_cannot_be_flushed
    home = ran.folder / HISTORY if layout else ran.folder
    disk.file = home / f"{'generator_DRUSEN' if layout else 'checkpoint'}_step_00000003.pth"

    def at(step):
        if step == 4:  # the save of the third is over
            assert ran.steps(layout)[-2:] == [2, 3]
            disk.well = True

    ran.to(4, at, layout=layout, keep=1)
    assert "tried again" in ran.told("a power cut may undo " + disk.file.name)[0]  # it may still fail at once
    assert not ran.told("NOT SAVED")
    assert ran.steps(layout) == [4]


def test_law_1_what_is_not_durable_at_the_end_is_tried_once_more(ran, folders_cannot_be_flushed):
    disk = folders_cannot_be_flushed
    disk.file = ran.folder / "checkpoint_step_00000002.pth"
    ran.to(2, keep=1)
    assert ran.told("still not be flushed")
    assert ran.steps() == [1, 2]


def test_law_1_a_cleanup_takes_no_checkpoint_for_one_that_has_its_name_but_is_not_flushed(
    ran, folders_cannot_be_flushed, monkeypatch
):
    """The cleanup after the first save looks at the folder when the second has just got its name."""
    disk = folders_cannot_be_flushed
    disk.file = ran.folder / "checkpoint_step_00000002.pth"
    real, first = removal.prune, threading.Event()

    def prune(*words, **more):
        while not first.is_set() and not disk.file.exists():
            time.sleep(0.001)
        first.set()
        return real(*words, **more)

    monkeypatch.setattr(removal, "prune", prune)
    ran.to(2, keep=1)
    assert ran.steps() == [1, 2]


def test_law_1_an_emergency_that_cannot_be_read_back_stands_and_is_told_as_not_verified(ran, monkeypatch):
    real = envelope.verify_open

    def unreadable(file, path):
        if path.name.startswith("EMERGENCY"):
            raise OSError(errno.EIO, "Input/output error")
        return real(file, path)

    monkeypatch.setattr(envelope, "verify_open", unreadable)
    with pytest.raises(Stopped):
        ran.to(9, lambda step: step == 2 and signal.raise_signal(signal.SIGTERM), save_every_batches=0)
    (line,) = ran.told("saved ")
    assert "not verified" in line
    assert "input/output error" in line


# In a thread of its own.


def test_law_8_what_follows_a_save_is_not_done_by_the_thread_that_trains(ran, tmp_path, monkeypatch):
    """So no lock, no slow disk and no held file counts as time that saving took."""
    moved, removed = Path.replace, Path.unlink
    where = {}

    def note(path, target):
        if target.name == LATEST or "_scheduled_" in target.name:
            where[target.name.split("_")[0], path.parent.name] = threading.current_thread()
        return moved(path, target)

    def note_removal(path, **more):
        if path.name.startswith("checkpoint_step"):
            where["removal"] = threading.current_thread()
        return removed(path, **more)

    monkeypatch.setattr(Path, "replace", note)
    monkeypatch.setattr(Path, "unlink", note_removal)
    guard = ran.to(4, keep=1, backups=a_plan(tmp_path))
    assert len(where) == 3
    assert threading.main_thread() not in where.values()
    assert ran.steps() == [4]
    assert envelope.verify(ran.folder / LATEST)["step"] == 4
    assert ran.steps(folder=tmp_path / "backups")[-1] == 4
    assert guard.savings["backups"]["count"] == len(ran.told("Backed up and verified"))


def typed(command, where):
    """Type a whole command in a folder; it is to end well."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run(command, shell=True, cwd=where, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("where", ["a folder of one's own", "the repository"])
def test_law_8_a_lock_that_others_hold_holds_up_neither_training_nor_leaving(
    ran, tmp_path, impatient, monkeypatch, where
):
    """Saves go on; at the end what was not done is told, with a command, which is typed here as it stands."""
    monkeypatch.chdir(tmp_path if where == "a folder of one's own" else SOURCE.parent)
    (tmp_path / "backups").mkdir()
    ran.folder.mkdir()
    with Lock(tmp_path / "backups", BACKUP), Lock(ran.folder, REMOVAL):
        ran.to(4, keep=1, backups=a_plan(tmp_path))
    assert ran.steps() == [1, 2, 3, 4]
    assert ran.told("until the next start")
    ran.said.clear()
    with Lock(tmp_path / "backups", BACKUP):
        ran.to(5, keep=1, backups=a_plan(tmp_path))
    assert ran.steps() == [5]
    assert not list((tmp_path / "backups").glob("*.pth"))
    (line,) = ran.told("was given up")
    typed(line.partition("To make one now: ")[2], Path.cwd())
    (copy,) = (tmp_path / "checkpoint_backups").glob("*.pth")
    assert envelope.verify(copy)["step"] == 5
    ran.to(6, keep=1, backups=a_plan(tmp_path))
    assert ran.steps(folder=tmp_path / "backups") == [6]


def test_law_8_a_cleanup_is_done_while_a_backup_waits_or_copies(ran, tmp_path, impatient):
    """What is being copied stays meanwhile."""
    (tmp_path / "backups").mkdir()
    caught_up = []

    def at(step):
        deadline = 500
        while step == 5 and ran.steps() != [4] and deadline:
            deadline -= 1
            threading.Event().wait(0.01)
        caught_up.append(ran.steps())

    with Lock(tmp_path / "backups", BACKUP):
        ran.to(5, at, keep=1, backups=a_plan(tmp_path))
    assert len(caught_up[-1]) <= 2  # the newest, and the one that waits to be copied
    assert 4 in caught_up[-1]


@pytest.mark.parametrize("hangs", ["point_all", "prune", "make"])
def test_law_8_leaving_waits_once_for_what_hangs_and_tells_once_what_is_left(ran, tmp_path, monkeypatch, hangs):
    """On a disk that does not even answer, so that nothing there can be given up."""
    monkeypatch.setattr(housekeeping, "_LEAVING_S", 1.0)
    monkeypatch.setattr(housekeeping, "_ENDING_S", 0.5)
    home = {"point_all": housekeeping.aliases, "prune": housekeeping.removal, "make": ScheduledBackups}[hangs]
    let_go, asked_at = threading.Event(), []
    monkeypatch.setattr(home, hangs, lambda *_words, **_more: let_go.wait(60))

    def at(step):
        if step == 2:
            asked_at.append(time.monotonic())
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Stopped):
        ran.to(9, at, backups=a_plan(tmp_path) if hangs == "make" else None)
    took = time.monotonic() - asked_at[0]
    let_go.set()
    assert 1.4 < took < 2.5
    assert len(ran.told("until the next start")) == (hangs != "make")
    assert len(ran.told("was given up")) == (hangs == "make")


def test_law_8_leaving_a_finished_run_waits_once_too(ran, monkeypatch):
    monkeypatch.setattr(housekeeping, "_LEAVING_S", 1.0)
    monkeypatch.setattr(housekeeping, "_ENDING_S", 0.5)
    let_go, ended_at = threading.Event(), []
    monkeypatch.setattr(housekeeping.removal, "prune", lambda *_words, **_more: let_go.wait(60))
    ran.to(3, lambda step: ended_at.append(time.monotonic()))
    took = time.monotonic() - ended_at[-1]
    let_go.set()
    assert 1.4 < took < 2.5
    assert len(ran.told("until the next start")) == 1


def test_law_8_what_was_left_is_not_told_where_nothing_was(ran, tmp_path):
    """A stop hurries, but no backup is due."""
    ran.to(1, backups=a_plan(tmp_path, every_s=3600))
    with pytest.raises(Stopped):
        ran.to(9, lambda step: step == 3 and signal.raise_signal(signal.SIGINT), backups=a_plan(tmp_path, every_s=3600))
    assert not ran.told("given up")
    assert not ran.told("next start")


def test_law_8_the_removal_of_an_old_backup_does_not_lock_a_cleanup_out(ran, tmp_path, monkeypatch):
    """Both take the lock of removals; the one may take long, where other programs hold files open."""
    real, saved = removal.remove_all, threading.Event()

    def slow(*words, **more):
        if more.get("tag"):
            assert saved.wait(30)
            for _ in range(20):
                interruption.ask()
                time.sleep(0.01)
        return real(*words, **more)

    monkeypatch.setattr(removal, "remove_all", slow)
    monkeypatch.setattr(removal, "_WAIT_S", 5.0)
    ran.to(4, lambda step: step == 4 and saved.set(), keep=1, backups=a_plan(tmp_path, keep=1))
    assert not ran.told("in use")
    assert ran.steps() == [4]


def test_law_8_a_stop_gives_a_backup_up_and_removes_what_it_has_copied(ran, tmp_path, monkeypatch):
    """In the middle of the copy, whose disk is slow."""
    real, begun = durable.sync_file, threading.Event()
    monkeypatch.setattr(durable, "_PIECE", 4096)
    monkeypatch.setattr(durable, "read_only_protects", lambda *_: True)  # so that the copy is a backup's

    def slow(descriptor):
        if threading.current_thread() is not threading.main_thread():
            begun.set()
            threading.Event().wait(0.05)
        real(descriptor)

    monkeypatch.setattr(durable, "sync_file", slow)

    def at(step):
        if step == 2:
            assert begun.wait(30)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Stopped):
        ran.to(9, at, width=200_000, backups=a_plan(tmp_path))
    (line,) = ran.told("was given up")
    assert ran.said.index(line) < len(ran.said) - 1
    assert "To go on" in ran.said[-1]
    assert [p.name for p in (tmp_path / "backups").iterdir()] == [BACKUP]


@needs_root
def test_law_8_a_save_that_lacks_room_waits_for_a_cleanup_that_is_under_way(tmp_path):
    with small_disk(tmp_path / "disk", "4m") as disk:
        ran = Run(disk / "ck")
        ran.folder.mkdir()
        let_go = threading.Event()

        def hold():
            with Lock(ran.folder, REMOVAL):
                let_go.wait(30)

        other = threading.Thread(target=hold)
        other.start()

        def at(step):
            if step == 4:  # three are there; the cleanup waits for the lock, and the next does not fit
                threading.Timer(0.3, let_go.set).start()

        ran.to(6, at, keep=1, width=40_000, patience_s=0)
        other.join()
        assert not ran.told("NOT SAVED")
        assert ran.steps() == [6]


@pytest.mark.parametrize("step_that_fails", ["point_all", "prune"])
def test_law_8_what_failed_there_is_called_by_its_name(ran, monkeypatch, step_that_fails):
    def broken(*_words, **_more):
        raise OSError(errno.EIO, "Input/output error")

    home = {"point_all": housekeeping.aliases, "prune": housekeeping.removal}[step_that_fails]
    monkeypatch.setattr(home, step_that_fails, broken)
    ran.to(2)
    assert bool(ran.told("Fixed names were not moved on: the disk")) == (step_that_fails == "point_all")
    assert bool(ran.told("Old checkpoints were not cleaned up: the disk")) == (step_that_fails == "prune")


@pytest.mark.parametrize("all_of_it", [True, False])
def test_what_has_vanished_is_told_as_it_is(ran, all_of_it):
    def at(step):
        if step == 3:
            while any(thread.name == "ganguard-housekeeping" for thread in threading.enumerate()):
                time.sleep(0.01)
            for path in [*ran.folder.glob("*.pth")] * all_of_it + [ran.folder / "run.json"]:
                path.chmod(0o666)
                path.unlink()

    ran.to(3, at, keep=9)
    assert len(ran.told("the older checkpoints too")) == all_of_it
    assert len(ran.told("run.json has vanished; it is written anew")) == (not all_of_it)
    assert (ran.folder / "run.json").exists()
    assert ran.steps() == ([3] if all_of_it else [1, 2, 3])


def test_law_8_nothing_that_goes_wrong_there_is_hidden_or_ends_the_run(ran, tmp_path, monkeypatch):
    def broken(*_words, **_more):
        raise ZeroDivisionError("no")

    monkeypatch.setattr(housekeeping.aliases, "point_all", broken)
    monkeypatch.setattr(housekeeping.removal, "prune", broken)
    ran.to(2, backups=a_plan(tmp_path))
    assert ran.told("no.")
    assert ran.steps() == [1, 2]
    assert ran.told("Backed up")


def test_saves_that_the_budget_leaves_out_are_told_once(ran):
    ran.to(9, save_every_batches=None, save_budget=0.0, at=lambda step: None)
    assert len(ran.told("some saves are left out")) <= 1
    with Guard(ran.folder, networks(), say=ran.said.append, save_budget=0.0) as guard:
        for _ in guard.epochs(3):
            guard.tick()
    assert len(ran.told("some saves are left out")) == 1


def test_nothing_was_lost_is_not_said_where_an_error_ends_a_training(ran, capsys):
    def work():
        def at(step):
            if step == 3:
                raise OSError(errno.ENOSPC, "No space left on device", "/dev/shm/torch_1")

        ran.to(9, at, save_every_batches=0)

    before = signal.getsignal(signal.SIGINT)
    assert running.run(work) == 2
    signal.signal(signal.SIGINT, before)
    assert ran.told("what came after the last save is lost")
    shown = capsys.readouterr().err
    assert "/dev/shm/torch_1: the disk is full" in shown
    assert "Nothing was lost" not in shown


# By position.


def test_law_3_scheduled_backups_never_remove_themselves(ran, tmp_path):
    """Files' times of a clock that was ahead then, or of copies."""
    ran.to(3, backups=a_plan(tmp_path))
    for path in (tmp_path / "backups").glob("*.pth"):
        os.utime(path, (path.stat().st_mtime + 3e7,) * 2)
    ran.said.clear()
    ran.to(6, backups=a_plan(tmp_path))
    last = Path(ran.told("Backed up and verified")[-1].split(": ")[1])
    assert last.exists()
    assert envelope.verify(last)["step"] == 6


# What other programs hold open.


@pytest.fixture
def held(monkeypatch):
    """Windows: names of files that another program holds open, and read-only ones that nothing replaces or removes."""
    names = set()
    moved, removed = Path.replace, Path.unlink

    def refuse(path):
        with contextlib.suppress(FileNotFoundError):
            if not path.stat().st_mode & stat.S_IWRITE or path.name in names:
                raise PermissionError(errno.EACCES, "The process cannot access the file", str(path))

    def replacing(path, target):
        refuse(target)
        if path.name in names:
            raise PermissionError(errno.EACCES, "The process cannot access the file", str(path))
        return moved(path, target)

    def unlinking(path, missing_ok=False):
        refuse(path)
        return removed(path, missing_ok=missing_ok)

    monkeypatch.setattr(durable, "WINDOWS", True)
    monkeypatch.setattr(durable, "_PAUSE_S", 0.0)
    monkeypatch.setattr(Path, "replace", replacing)
    monkeypatch.setattr(Path, "unlink", unlinking)
    return names


def writable(folder):
    return sorted(p.name for p in folder.glob("*.pth") if p.stat().st_mode & stat.S_IWRITE)


def test_a_checkpoint_that_is_held_open_stops_no_cleanup_and_is_told_once(ran, held, capsys):
    held.add("checkpoint_step_00000002.pth")
    ran.to(6, keep=2)
    assert ran.steps() == [2, 5, 6]
    assert len(ran.told("could not be removed")) == 1
    assert writable(ran.folder) == []
    before = signal.getsignal(signal.SIGINT)
    assert checkpoints.main(["--cleanup", "--keep-latest", "1", "--checkpoint-dir", str(ran.folder)]) == 4
    signal.signal(signal.SIGINT, before)
    assert "checkpoint_step_00000002.pth could not be removed" in capsys.readouterr().out
    assert ran.steps() == [2, 6]


@pytest.mark.parametrize("word", ["generator", "critic"])
def test_of_a_pair_both_files_go_or_none(ran, held, word):
    held.add(f"{word}_DRUSEN_step_00000001.pth")
    ran.to(4, keep=2, layout=PAIR)
    assert ran.steps(PAIR) == [1, 3, 4]
    assert not Catalog.of(Shelf(ran.folder, PAIR)).orphans
    assert not list(ran.folder.rglob(".tmp-*"))


def test_law_2_a_held_alias_takes_the_write_protection_from_nothing_and_leaves_nothing_behind(ran, held, monkeypatch):
    """The fixed name is a hard link there, so that its rights are those of the checkpoint."""
    monkeypatch.setattr(durable, "read_only_protects", lambda *_: True)
    ran.to(1)
    assert (ran.folder / LATEST).samefile(ran.folder / "checkpoint_step_00000001.pth")
    held.add(LATEST)
    ran.to(3)
    assert ran.told(f"{LATEST} could not be moved on")
    assert writable(ran.folder) == []
    assert not list(ran.folder.glob(".tmp-*"))
    held.clear()
    ran.to(4)
    assert (ran.folder / LATEST).samefile(ran.folder / "checkpoint_step_00000004.pth")
    assert writable(ran.folder) == []


def test_law_2_a_deletion_that_is_refused_leaves_the_file_read_only(ran, held):
    ran.to(2)
    held.add("checkpoint_step_00000001.pth")
    before = signal.getsignal(signal.SIGINT)
    code = checkpoints.main(["--delete", "checkpoint_step_00000001.pth", "--checkpoint-dir", str(ran.folder)])
    signal.signal(signal.SIGINT, before)
    assert code != 0
    assert writable(ran.folder) == []
