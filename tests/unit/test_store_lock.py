"""Law 10: one writer, for the life of its process and no longer."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "helpers"))
from stores import finished, needs_root, python, small_disk
from systems import needs_fork, needs_posix

from ganguard.errors import FolderInUse, SaveFailed
from ganguard.store.lock import REMOVAL, TRAINING, Lock

HOLD = """
import os, sys, time
from pathlib import Path
from ganguard.store.lock import Lock
with Lock(Path(sys.argv[1])):
    if "fork" in sys.argv:  # a data worker, which outlives the training
        child = os.fork()
        if child == 0:
            os.close(1); os.close(2)
            time.sleep(30)
            os._exit(0)
        print(child, flush=True)
    print("held", flush=True)
    time.sleep(30)
"""
TRY = """
import sys
from pathlib import Path
from ganguard.store.lock import Lock
from ganguard.errors import FolderInUse
try:
    with Lock(Path(sys.argv[1])): print("acquired")
except FolderInUse as error: print(error)
"""


@pytest.fixture
def holder(tmp_path):
    process = python(HOLD, tmp_path)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_law_10_a_second_training_gets_an_error_that_names_the_first(tmp_path, holder):
    with pytest.raises(FolderInUse) as refused, Lock(tmp_path):
        pass
    assert f"process {holder.pid} on " in str(refused.value)
    assert str(tmp_path) in str(refused.value)
    assert "-c" in str(refused.value)  # its command


def test_law_10_the_lock_goes_with_a_killed_process_at_once(tmp_path, holder):
    holder.kill()
    holder.wait()
    with Lock(tmp_path):
        pass


@needs_fork
def test_law_10_workers_that_outlive_it_do_not_hold_it(tmp_path):
    process = python(HOLD, tmp_path, "fork")
    child = int(process.stdout.readline())
    assert process.stdout.readline() == "held\n"
    try:
        process.kill()
        process.wait()
        os.kill(child, 0)  # still there
        with Lock(tmp_path):
            assert "is in use by process" in finished(python(TRY, tmp_path))
    finally:
        os.kill(child, signal.SIGKILL)
        process.communicate()


@needs_fork
def test_law_10_a_worker_that_ends_does_not_release_it(tmp_path):
    with Lock(tmp_path) as lock:
        child = os.fork()
        if child == 0:
            lock.__exit__(None, None, None)
            os._exit(0)
        os.waitpid(child, 0)
        assert "is in use by process" in finished(python(TRY, tmp_path))


def test_law_10_a_second_one_in_the_same_process_is_refused_and_does_no_harm(tmp_path):
    with Lock(tmp_path):
        with pytest.raises(FolderInUse, match="by this process"), Lock(tmp_path / ".." / tmp_path.name):
            pass
        assert "is in use by process" in finished(python(TRY, tmp_path))
    assert finished(python(TRY, tmp_path)) == "acquired\n"


def test_law_10_a_lock_file_that_was_left_holds_nothing(tmp_path):
    (tmp_path / TRAINING).write_text("{ left by somebody")
    with Lock(tmp_path):
        pass
    assert (tmp_path / TRAINING).exists()


def test_law_10_copying_the_folder_in_the_holder_is_mended_before_the_next_save(tmp_path):
    """Closing any descriptor of the file drops a POSIX lock; ``reassert`` takes it again."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    with Lock(folder) as lock:
        shutil.copytree(folder, tmp_path / "copy")
        lock.reassert()
        assert "is in use by process" in finished(python(TRY, folder))


@needs_posix("closing any descriptor of a file drops its locks")
def test_law_10_where_somebody_took_it_in_between_the_first_is_told(tmp_path):
    with Lock(tmp_path) as lock:
        (tmp_path / TRAINING).read_bytes()
        process = python(HOLD, tmp_path)
        assert process.stdout.readline() == "held\n"
        with pytest.raises(FolderInUse, match=str(process.pid)):
            lock.reassert()
        process.kill()
        process.communicate()
        lock.reassert()
        assert "is in use by process" in finished(python(TRY, tmp_path))


@needs_posix("an open file can be removed")
def test_law_10_a_folder_that_was_removed_is_made_and_locked_anew(tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    with Lock(folder) as lock:
        shutil.rmtree(folder)
        lock.reassert()
        assert "is in use by process" in finished(python(TRY, folder))
    assert finished(python(TRY, folder)) == "acquired\n"


@needs_posix("a folder with an open file can be renamed")
def test_law_8_a_drive_that_went_and_came_back_is_locked_again(tmp_path):
    """A failed attempt must not be the last one."""
    drive = tmp_path / "drive"
    folder = drive / "checkpoints"
    folder.mkdir(parents=True)
    with Lock(folder) as lock:
        drive.rename(tmp_path / "unplugged")
        drive.write_text("not a folder")
        for _ in range(2):
            with pytest.raises(SaveFailed, match="cannot be made"):
                lock.reassert()
        drive.unlink()
        (tmp_path / "unplugged").rename(drive)
        lock.reassert()
        assert "is in use by process" in finished(python(TRY, folder))


@needs_root
def test_a_folder_that_cannot_be_written_is_told_as_such(tmp_path):
    with small_disk(tmp_path / "disk", "1m") as folder:
        os.system(f"mount -o remount,ro {folder}")
        with pytest.raises(SaveFailed, match="read-only"), Lock(folder):
            pass
        os.system(f"mount -o remount,rw {folder}")
        with Lock(folder):
            pass


@needs_root
def test_on_a_full_disk_the_lock_still_holds(tmp_path):
    with small_disk(tmp_path / "disk", "64k") as folder:
        (folder / "filler").write_bytes(bytes(64 * 1024))
        with Lock(folder):
            assert "is in use by another process" in finished(python(TRY, folder))


def test_a_short_lock_is_waited_for(tmp_path):
    code = HOLD.replace("Lock(Path(sys.argv[1]))", "Lock(Path(sys.argv[1]), '.ganguard.removal.lock')")
    process = python(code.replace("time.sleep(30)", "time.sleep(0.5)"), tmp_path)
    assert process.stdout.readline() == "held\n"
    began = time.monotonic()
    with Lock(tmp_path, REMOVAL, wait_s=20), Lock(tmp_path):  # the two names are two locks
        assert time.monotonic() - began < 15
    finished(process)
