"""TensorBoard's files: one value per position, whatever stopped the run; and nothing that befalls them stops it."""

import contextlib
import os
import random
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from systems import DIE, DIED
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ganguard.reports import event_files
from ganguard.reports.board import Board
from ganguard.store import durable


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "logs" / "tensorboard"


def unsaid(text):
    pytest.fail(f"said: {text}")


def life(folder, start, end, life=0, say=unsaid):
    """Go on from a position to another: a value a step, a picture and the epoch's row every tenth."""
    board = Board(folder, step=start, say=say)
    for step in range(start + 1, end + 1):
        board.scalars(step, {"step/loss": step + life / 10})
        if step % 10 == 0:
            board.image(step, "samples", torch.full((3, 4, 4), life, dtype=torch.uint8))
            board.epochs([{"epoch": step // 10, "step": step, "loss": step + life / 10}])
    return board


def shown(folder, tag="step/loss"):
    """(step, value) as TensorBoard's own reader gives them."""
    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0}).Reload()
    if tag in reader.Tags()["images"]:
        return [event.step for event in reader.Images(tag)]
    return [(event.step, round(event.value, 3)) for event in reader.Scalars(tag)]


def tear(folder):
    """Half a record at the end, as a killed machine may leave it."""
    newest = event_files.in_order(folder)[-1]
    with newest.open("ab") as file:
        file.write(newest.read_bytes()[:17])


@pytest.mark.parametrize("damage", [lambda folder: None, tear], ids=["whole", "torn"])
def test_one_value_per_position_after_three_interruptions_and_one_return(folder, damage):
    ends = [(0, 37), (30, 55), (50, 78), (20, 44)]
    for number, (start, end) in enumerate(ends):
        life(folder, start, end, number)
        damage(folder)
    expected = [(step, step + (0 if step <= 20 else 3) / 10) for step in range(1, 45)]
    assert shown(folder) == expected
    assert shown(folder, "samples") == [10, 20, 30, 40]
    assert shown(folder, "epoch/loss") == [row for row in expected if row[0] % 10 == 0]


def test_the_files_hold_each_position_once(folder):
    """No reader has to hide anything: TensorBoard's two do so by different rules."""
    for number, (start, end) in enumerate([(0, 37), (30, 55), (20, 44)]):
        life(folder, start, end, number)
        tear(folder)
    events = [event for path in event_files.in_order(folder) for _, event in event_files.events(path)]
    steps = [event.step for event in events if any(value.tag == "step/loss" for value in event.summary.value)]
    assert steps == list(range(1, 45))


def test_what_is_taken_out_is_kept_beside_the_folder(folder):
    life(folder, 0, 37)
    life(folder, 30, 31)
    aside = folder.with_name("tensorboard_after_step_30.events")
    steps = [event.step for _, event in event_files.events(aside)]
    assert steps == list(range(31, 38))


def test_files_that_hold_nothing_later_are_not_touched(folder):
    life(folder, 0, 20)
    (first,) = event_files.in_order(folder)
    before = (first.read_bytes(), first.stat().st_mtime_ns, first.stat().st_ino)
    life(folder, 20, 30)
    assert (first.read_bytes(), first.stat().st_mtime_ns, first.stat().st_ino) == before


def test_values_in_any_order_survive_a_cut(folder):
    board = Board(folder, step=0, say=unsaid)
    for step in (1, 9, 2, 8, 3):
        board.scalars(step, {f"tag{step}": 1.0})
    Board(folder, step=5, say=unsaid)
    kept = [event.step for path in event_files.in_order(folder) for _, event in event_files.events(path)]
    assert kept == [1, 1, 1, 2, 3]  # the file's own beginning is of step 1


def test_a_cut_that_fails_loses_nothing_and_is_made_later(folder, monkeypatch):
    said = []
    life(folder, 0, 20)
    (file,) = event_files.in_order(folder)
    before = file.read_bytes()
    with monkeypatch.context() as broken:
        broken.setattr(durable, "replace", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
        Board(folder, step=10, say=said.append)
    assert file.read_bytes() == before
    assert len(said) == 1
    assert "could not be cut back to step 10: Permission denied" in said[0]
    assert [p.name for p in folder.iterdir()] == [file.name]
    life(folder, 10, 12, 1)
    assert shown(folder) == [*((s, s) for s in range(1, 11)), (11, 11.1), (12, 12.1)]


@pytest.mark.parametrize("moment", ["sync_file", "replace"])
def test_a_kill_during_a_cut_loses_and_doubles_nothing(folder, moment):
    life(folder, 0, 20)
    code = (
        "import os, signal, sys; from pathlib import Path; from ganguard.reports.board import Board\n"
        "from ganguard.store import durable\n"
        f"durable.{moment} = lambda *_: {DIE}\n"
        "Board(Path(sys.argv[1]), step=10, say=print)"
    )
    assert subprocess.run([sys.executable, "-c", code, folder], check=False).returncode == DIED
    life(folder, 10, 12, 1)
    assert [step for step, _ in shown(folder)] == list(range(1, 13))


def test_a_file_is_read_after_those_that_are_there_even_if_the_clock_was_put_back(folder, monkeypatch):
    life(folder, 0, 10)
    monkeypatch.setattr("time.time", lambda: 1_000_000_000.0)
    life(folder, 10, 20, 1)
    life(folder, 20, 30, 2)
    assert [step for step, _ in shown(folder)] == list(range(1, 31))
    assert len(event_files.in_order(folder)) == 3


def test_what_a_resume_repeats_stands_there_once(folder):
    life(folder, 0, 10)
    board = Board(folder, step=10, say=unsaid)
    board.scalars(10, {"step/loss": 99.0, "step/new": 1.0})
    board.image(10, "samples", torch.zeros(1, 4, 4, dtype=torch.uint8))
    assert shown(folder)[-1] == (10, 10)
    assert shown(folder, "samples") == [10]
    assert shown(folder, "step/new") == [(10, 1)]


def test_history_fills_what_is_missing(folder):
    rows = [{"epoch": e, "step": 10 * e, "images": 80 * e, "loss": float(e), "name": "no number"} for e in range(1, 6)]
    older = [{"epoch": 1, "step": 0, "loss": 7.0}]  # of a script that counted no steps
    Board(folder, step=20, say=unsaid).epochs([*older, *rows[:2]])
    board = Board(folder, step=50, say=unsaid)
    board.epochs(rows)
    board.epochs(rows)
    assert shown(folder, "epoch/loss") == [(10, 1), (20, 2), (30, 3), (40, 4), (50, 5)]
    assert EventAccumulator(str(folder)).Reload().Tags()["scalars"] == ["epoch/loss"]


def test_values_that_are_not_finite_are_kept(folder):
    Board(folder, step=0, say=unsaid).scalars(1, {"nan": float("nan"), "inf": float("inf")})
    assert np.isnan(shown(folder, "nan")[0][1])
    assert shown(folder, "inf") == [(1, float("inf"))]


def test_pictures_are_shown_as_they_are(folder, tmp_path):
    Image.new("RGB", (5, 3), (10, 20, 30)).save(tmp_path / "grid.png")
    said = []
    board = Board(folder, step=0, say=said.append)
    board.image(1, "file", tmp_path / "grid.png")
    board.image(1, "tensor", torch.arange(12, dtype=torch.uint8).reshape(1, 3, 4))
    board.image(1, "gone", tmp_path / "gone.png")
    (tmp_path / "text.png").write_text("no picture")
    board.image(1, "text", tmp_path / "text.png")
    assert [line.split(" is not shown")[0] for line in said] == [
        f"The picture {tmp_path / name}" for name in ("gone.png", "text.png")
    ]
    reader = EventAccumulator(str(folder)).Reload()
    (picture,) = reader.Images("file")
    assert (picture.width, picture.height) == (5, 3)
    assert picture.encoded_image_string == (tmp_path / "grid.png").read_bytes()
    assert (reader.Images("tensor")[0].width, reader.Images("tensor")[0].height) == (4, 3)


def test_what_was_written_survives_a_sigkill(folder):
    code = (
        "import os, signal, sys; from pathlib import Path; from ganguard.reports.board import Board\n"
        "board = Board(Path(sys.argv[1]), step=0, say=print)\n"
        "for step in range(1, 6): board.scalars(step, {'loss': step})\n"
        f"{DIE}"
    )
    subprocess.run([sys.executable, "-c", code, folder], check=False)
    assert [step for step, _ in shown(folder, "loss")] == [1, 2, 3, 4, 5]


def test_it_draws_no_random_numbers_and_starts_no_thread(folder):
    torch.manual_seed(1), random.seed(1), np.random.seed(1)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    threads = threading.active_count()
    life(folder, 0, 20).close()
    life(folder, 5, 20).close()
    assert threading.active_count() == threads
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.array_equal(np.random.get_state()[1], states[2])


def test_a_start_that_writes_nothing_leaves_no_file(folder):
    Board(folder, step=0, say=unsaid).close()
    assert not folder.exists()


def test_without_the_package_it_says_so_once_and_does_nothing(folder, monkeypatch):
    for name in [n for n in sys.modules if n.split(".")[0] == "tensorboard"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    said = []
    life(folder, 0, 10, say=said.append).close()
    assert len(said) == 1
    assert "TensorBoard is not installed" in said[0]
    assert not folder.exists()


def test_importing_it_loads_no_tensorboard():
    code = "import sys, ganguard.reports.board; sys.exit(any(n in sys.modules for n in ('tensorboard', 'torch')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture
def small_disk(tmp_path):
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting needs root on Linux")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk):
    ballast = disk / "ballast"
    assert disk.is_mount()  # else it would be the machine's own disk that is filled
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    return ballast


def test_on_a_full_disk_values_wait_and_come_in_order_once_there_is_room(small_disk, capfd):
    said = []
    folder = small_disk / "tensorboard"
    board = life(folder, 0, 5, say=said.append)
    ballast = fill(small_disk)
    for step in range(6, 200):
        board.scalars(step, {"step/loss": step})
    assert len(said) == 1
    assert "cannot be written: the disk is full" in said[0]
    assert [step for step, _ in shown(folder)] == list(range(1, shown(folder)[-1][0] + 1))  # whole records only
    ballast.unlink()
    board.scalars(200, {"step/loss": 200})
    board.close()
    assert [step for step, _ in shown(folder)] == list(range(1, 201))
    assert len(said) == 1
    assert "Traceback" not in capfd.readouterr().err


def test_what_a_full_disk_never_took_is_told_at_the_end(small_disk):
    said = []
    board = Board(small_disk / "tensorboard", step=0, say=said.append)
    fill(small_disk)
    board.scalars(1, {"loss": 1.0})
    board.scalars(2, {"loss": 1.0})
    board.close()
    assert said[-1] == "The disk took no more of TensorBoard's values: 2 writes are lost."
    board.close()
    assert len(said) == 2


def test_a_folder_that_cannot_be_made_is_told_once(tmp_path):
    (tmp_path / "logs").write_text("a file in the way")
    said = []
    life(tmp_path / "logs" / "tensorboard", 0, 10, say=said.append)
    assert len(said) == 1


def test_what_waits_in_memory_is_limited(folder, monkeypatch):
    monkeypatch.setattr("ganguard.reports.board._MOST_KEPT_BACK", 1000)
    folder.parent.mkdir()
    folder.write_text("a file in the way")
    said = []
    board = Board(folder, step=0, say=said.append)
    for step in range(1, 101):
        board.scalars(step, {"loss": step})
    folder.unlink()
    board.close()
    steps = [step for step, _ in shown(folder, "loss")]
    assert steps == list(range(101 - len(steps), 101))
    assert 10 < len(steps) < 40
