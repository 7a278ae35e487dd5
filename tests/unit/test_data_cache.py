"""The cache: whole or not there, whatever happens to the process, the disk or the files."""

import contextlib
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from systems import needs_posix

from ganguard.data import open_images
from ganguard.errors import DataError

BUILD = """
import sys
from pathlib import Path
from ganguard.data import open_images
data, cache_dir = sys.argv[1], Path(sys.argv[2])
found = open_images(data, image_size=32, channels=3, cache_dir=cache_dir, say=lambda text: print(text, flush=True))
print("fingerprint", found.fingerprint, flush=True)
"""
BUILD_SILENTLY = """
import sys
from pathlib import Path
from ganguard.data import open_images
open_images(sys.argv[1], image_size=32, channels=3, cache_dir=Path(sys.argv[2]), say=lambda text: None)
"""
WITHOUT_LOCKS = """
import errno
import ganguard.store.lock as lock
def refuse(descriptor):
    raise OSError(errno.ENOLCK, "No locks available")
lock._lock_region = refuse
"""


def picture(path, seed, size=(40, 40)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, compress_level=1)


@pytest.fixture
def data(tmp_path):
    for index in range(6):
        picture(tmp_path / "data" / "ab"[index % 2] / f"{index}.png", index)
    return tmp_path / "data"


@pytest.fixture(scope="module")
def slow_data(tmp_path_factory):
    """Enough decoding for a process to be stopped in the middle of it."""
    folder = tmp_path_factory.mktemp("slow")
    picture(folder / "a" / "0.png", 0, (1400, 1400))
    (folder / "b").mkdir()
    for index in range(1, 60):
        os.link(folder / "a" / "0.png", folder / "ab"[index % 2] / f"{index}.png")
    return folder


def opened(data, cache_dir, say=None, **options):
    lines = []
    options = {"image_size": 32, "channels": 3, **options}
    found = open_images(str(data), cache_dir=Path(cache_dir), say=say or lines.append, **options)
    return found, lines


def pixels_of(found):
    return found.__getitems__(range(len(found)))[0].numpy()


def overwrite(path, content):
    """Other content of the same length and time: what only a look into the file can notice."""
    status = path.stat()
    path.write_bytes(content.ljust(status.st_size, b"\0")[: status.st_size])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def started(data, cache_dir, prefix=""):
    return subprocess.Popen(
        [sys.executable, "-c", prefix + BUILD, str(data), str(cache_dir)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_work(cache_dir, process):
    """Until the build has written some images."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if any(path.stat().st_size > 128 for path in cache_dir.glob("*.building-*/images.npy")):
            return
        time.sleep(0.005)
    pytest.fail(f"no build seen: {process.communicate()}")


def work_folders(cache_dir):
    return list(cache_dir.glob("*.building-*"))


def only_cache(cache_dir):
    (folder,) = [path for path in cache_dir.iterdir() if path.is_dir()]
    return folder


def test_the_second_start_reads_the_cache_and_no_image(data, tmp_path):
    first, told = opened(data, tmp_path / "cache")
    before = pixels_of(first)
    assert any("Decoding 6 images once" in line and "free" in line for line in told)
    for path in data.rglob("*.png"):
        overwrite(path, b"no image any more")
    second, told = opened(data, tmp_path / "cache")
    assert not any("Decoding" in line for line in told)
    assert np.array_equal(pixels_of(second), before)
    assert second.fingerprint == first.fingerprint
    assert second.skipped == ()


@pytest.mark.parametrize("change", ["content", "time", "added", "removed", "renamed"])
def test_changed_files_are_decoded_again(data, tmp_path, change):
    first, _ = opened(data, tmp_path / "cache")
    target = data / "a" / "0.png"
    if change == "content":
        picture(target, 99, (41, 40))
    elif change == "time":
        os.utime(target, ns=(0, 12345))
    elif change == "added":
        picture(data / "a" / "9.png", 9)
    elif change == "removed":
        target.unlink()
    else:
        target.rename(target.with_name("9.png"))
    second, told = opened(data, tmp_path / "cache")
    assert any("Decoding" in line for line in told)
    assert second.fingerprint != first.fingerprint


@pytest.mark.parametrize("options", [{"image_size": 16}, {"channels": 1}, {"limit": 4}])
def test_other_settings_have_a_cache_of_their_own(data, tmp_path, options):
    first, _ = opened(data, tmp_path / "cache")
    second, told = opened(data, tmp_path / "cache", **options)
    assert any("Decoding" in line for line in told)
    assert second.fingerprint != first.fingerprint
    again, told = opened(data, tmp_path / "cache")
    assert not any("Decoding" in line for line in told)
    assert again.fingerprint == first.fingerprint


def test_a_moved_folder_keeps_its_fingerprint_and_cache(data, tmp_path):
    first, _ = opened(data, tmp_path / "cache")
    (tmp_path / "elsewhere").mkdir()
    moved = data.rename(tmp_path / "elsewhere" / "data")
    second, told = opened(moved, tmp_path / "cache")
    assert second.fingerprint == first.fingerprint
    assert not any("Decoding" in line for line in told)


def test_a_cache_from_before_a_change_is_named_and_left_alone(data, tmp_path):
    first, told = opened(data, tmp_path / "cache")
    before = pixels_of(first).copy()
    opened(data, tmp_path / "cache", image_size=16)
    old = next((tmp_path / "cache").glob("*-32px-*/"))
    picture(data / "a" / "0.png", 99, (41, 40))
    assert not any("before its files changed" in line for line in told)
    _, told = opened(data, tmp_path / "cache")
    (line,) = [line for line in told if "before its files changed" in line]
    size = sum(path.stat().st_size for path in old.iterdir())
    assert str(old) in line
    assert f"{size / 1000:.1f} kB" in line
    assert np.array_equal(pixels_of(first), before)


def shorten(folder):
    with (folder / "images.npy").open("r+b") as file:
        file.truncate(5000)


def lengthen(folder):
    with (folder / "images.npy").open("ab") as file:
        file.write(b"x")


def zero_header(folder):
    with (folder / "images.npy").open("r+b") as file:
        file.write(bytes(128))


def other_key(folder):
    meta = json.loads((folder / "cache.json").read_text())
    (folder / "cache.json").write_text(json.dumps({**meta, "key": "0" * 32}))


def other_count(folder):
    meta = json.loads((folder / "cache.json").read_text())
    (folder / "cache.json").write_text(json.dumps({**meta, "skipped": [["a/0.png", "?"]]}))


def torn_meta(folder):
    (folder / "cache.json").write_text('{"key": ')


def empty(folder):
    for path in folder.iterdir():
        path.unlink()


@pytest.mark.parametrize("tear", [shorten, lengthen, zero_header, other_key, other_count, torn_meta, empty])
def test_a_torn_cache_is_built_again(data, tmp_path, tear):
    first, _ = opened(data, tmp_path / "cache")
    before = pixels_of(first).copy()
    del first  # Windows neither changes nor replaces a file that is mapped
    gc.collect()
    tear(only_cache(tmp_path / "cache"))
    second, told = opened(data, tmp_path / "cache")
    assert any("not whole" in line for line in told)
    assert np.array_equal(pixels_of(second), before)
    assert work_folders(tmp_path / "cache") == []


def test_damaged_images_are_named_skipped_counted_and_remembered(data, tmp_path):
    clean, _ = opened(data, tmp_path / "clean")
    (data / "a" / "text.jpg").write_text("a text")
    (data / "b" / "empty.png").write_bytes(b"")
    (data / "a" / "half.png").write_bytes((data / "a" / "0.png").read_bytes()[:700])
    first, told = opened(data, tmp_path / "cache")
    second, told_again = opened(data, tmp_path / "cache")
    assert first.skipped == second.skipped == ("a/half.png", "a/text.jpg", "b/empty.png")
    for lines in (told, told_again):
        text = "\n".join(lines)
        assert "3 of 9 images can't be used and are left out:" in text
        assert "b/empty.png: empty file" in text
        assert "a/text.jpg: not an image" in text
    assert len(first) == len(second) == 6
    assert np.array_equal(pixels_of(second), pixels_of(clean))
    assert second.labels.tolist() == clean.labels.tolist()


def test_what_an_earlier_version_left_out_stays_so_and_is_told(data, tmp_path):
    """A run that goes on from then sees the same images; its cache says nothing of what they are like."""
    (data / "a" / "text.jpg").write_text("a text")
    first, told = opened(data, tmp_path / "cache")
    assert not any("earlier version" in line for line in told)
    (meta,) = (tmp_path / "cache").glob("*/cache.json")
    meta.write_text(json.dumps({k: v for k, v in json.loads(meta.read_bytes()).items() if k != "seen"}))
    second, told = opened(data, tmp_path / "cache")
    assert second.fingerprint == first.fingerprint
    assert second.skipped == ("a/text.jpg",)
    (line,) = (line for line in told if "left these out" in line)
    assert f"remove {meta.parent} to try them again" in line


def test_what_an_earlier_version_left_out_of_a_set_without_a_cache_names_its_record(data, tmp_path):
    (data / "a" / "text.jpg").write_text("a text")
    opened(data, tmp_path / "cache", cache_limit=0)
    (record,) = (tmp_path / "cache").glob("*.checked.json")
    record.write_text(json.dumps({k: v for k, v in json.loads(record.read_bytes()).items() if k != "seen"}))
    _, told = opened(data, tmp_path / "cache", cache_limit=0)
    (line,) = (line for line in told if "left these out" in line)
    assert f"remove {record} to try them again" in line


def test_a_set_without_a_readable_image(tmp_path):
    for name in ("a/1.png", "b/1.jpg"):
        (tmp_path / "data" / name).parent.mkdir(parents=True)
        (tmp_path / "data" / name).write_text("a text")
    for limit in (10**9, 0):
        with pytest.raises(DataError, match=r"None of the 2 images.*a/1.png \(not an image"):
            opened(tmp_path / "data", tmp_path / "cache", cache_limit=limit)
    assert work_folders(tmp_path / "cache") == []


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs permissions that bind")
def test_an_image_that_may_not_be_read_stops_and_is_not_called_damaged(data, tmp_path):
    (data / "a" / "0.png").chmod(0)
    with pytest.raises(DataError, match=r"0.png can't be read"):
        opened(data, tmp_path / "cache")


@pytest.mark.parametrize("becomes", ["nothing", "a folder"])
def test_an_image_that_cannot_be_read_any_more_stops_the_build(data, tmp_path, becomes):
    def vanish(line):
        if "Decoding" in line:
            (data / "b" / "5.png").unlink()
            if becomes == "a folder":
                (data / "b" / "5.png").mkdir()

    with pytest.raises(DataError, match=r"5.png can't be read"):
        opened(data, tmp_path / "cache", say=vanish)
    assert work_folders(tmp_path / "cache") == []
    found, _ = opened(data, tmp_path / "cache")
    assert len(found) == 5
    assert found.skipped == ()


@pytest.mark.parametrize("how", ["killed", pytest.param("ctrl-c", marks=needs_posix("Ctrl+C to one other process"))])
def test_a_build_that_was_stopped_leaves_nothing_broken(slow_data, tmp_path, how):
    cache_dir = tmp_path / "cache"
    process = started(slow_data, cache_dir)
    wait_for_work(cache_dir, process)
    process.kill() if how == "killed" else process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    assert process.returncode != 0
    assert "fingerprint" not in out
    assert len(work_folders(cache_dir)) == (1 if how == "killed" else 0)
    found, told = opened(slow_data, cache_dir)
    assert any("Decoding" in line for line in told)
    assert work_folders(cache_dir) == []
    images = pixels_of(found)
    assert len(images) == 60
    assert (images == images[0]).all()
    assert images[0].any()


def test_what_a_killed_build_left_is_removed_by_any_later_start(slow_data, data, tmp_path):
    cache_dir = tmp_path / "cache"
    process = started(slow_data, cache_dir)
    wait_for_work(cache_dir, process)
    process.kill()
    process.communicate()
    assert work_folders(cache_dir)
    opened(data, cache_dir)
    assert work_folders(cache_dir) == []


@pytest.mark.parametrize("prefix", ["", WITHOUT_LOCKS], ids=["locks", "no locks"])
def test_two_builders_at_once_both_end_well(slow_data, tmp_path, prefix):
    cache_dir = tmp_path / "cache"
    first = started(slow_data, cache_dir, prefix)
    wait_for_work(cache_dir, first)
    second = started(slow_data, cache_dir, prefix)
    outputs = [process.communicate(timeout=60) for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], outputs
    fingerprints = {line for out, _ in outputs for line in out.splitlines() if line.startswith("fingerprint")}
    assert len(fingerprints) == 1
    assert work_folders(cache_dir) == []
    builds = sum("Decoding" in out for out, _ in outputs)
    assert builds == (2 if prefix else 1)
    _, told = opened(slow_data, cache_dir)
    assert not any("Decoding" in line for line in told)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    if not sys.platform.startswith("linux") or os.geteuid() != 0 or subprocess.run(mount, check=False).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_too_little_space_is_said_before_decoding(data, small_disk):
    with pytest.raises(DataError) as caught:
        opened(data, small_disk / "cache", image_size=512)
    needed, free = 128 + 6 * 3 * 512 * 512 + 1_000_000, shutil.disk_usage(small_disk).free
    assert f"{needed:,} bytes" in str(caught.value)
    assert f"{free:,} bytes free" in str(caught.value)
    assert work_folders(small_disk / "cache") == []


def test_a_disk_that_fills_up_while_decoding(data, small_disk):
    def fill_up(line):
        if "Decoding" in line:
            with (small_disk / "filler").open("wb") as file:
                file.write(bytes(shutil.disk_usage(small_disk).free - 100_000))

    with pytest.raises(DataError, match="the disk is full"):
        opened(data, small_disk / "cache", say=fill_up, image_size=200)
    assert work_folders(small_disk / "cache") == []
    (small_disk / "filler").unlink()
    assert len(opened(data, small_disk / "cache", image_size=200)[0]) == 6


def test_a_cache_folder_that_cannot_be_made(data, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="can't be written"):
        opened(data, tmp_path / "file" / "cache")


def test_progress_lines_where_there_is_no_terminal(data, tmp_path, monkeypatch):
    monkeypatch.setattr("ganguard.data.progress._LINE_EVERY_S", 0.0)
    _, told = opened(data, tmp_path / "cache")
    assert [line for line in told if line.startswith("decoding images: 4 of 6, about ")]


@pytest.fixture
def terminal():
    """Both ends of a pseudo-terminal; the second is a process's stdout."""
    pty = pytest.importorskip("pty")
    leader, follower = pty.openpty()
    yield leader, follower
    for end in (leader, follower):
        with contextlib.suppress(OSError):
            os.close(end)


def all_shown(leader):
    seen = b""
    with contextlib.suppress(OSError):  # the other end is closed
        while piece := os.read(leader, 65536):
            seen += piece
    return seen


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252"])
def test_a_bar_where_there_is_a_terminal(data, tmp_path, terminal, encoding):
    leader, follower = terminal
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "TERM": "xterm", "COLUMNS": "100"}
    command = [sys.executable, "-c", BUILD, str(data), str(tmp_path / "cache")]
    process = subprocess.Popen(command, stdout=follower, stderr=follower, env=environment)
    os.close(follower)
    seen = all_shown(leader)
    assert process.wait() == 0, seen
    assert b"6/6" in seen


def test_a_terminal_that_is_closed_does_not_stop_the_build(slow_data, tmp_path, terminal):
    leader, follower = terminal
    command = [sys.executable, "-c", BUILD_SILENTLY, str(slow_data), str(tmp_path / "cache")]
    environment = {**os.environ, "TERM": "xterm"}
    process = subprocess.Popen(command, stdout=follower, stderr=subprocess.PIPE, env=environment)
    os.close(follower)
    wait_for_work(tmp_path / "cache", process)
    os.close(leader)
    _, errors = process.communicate(timeout=60)
    assert process.returncode in (0, 120), errors  # 120: Python could not flush its stdout at the end
    _, told = opened(slow_data, tmp_path / "cache")
    assert not any("Decoding" in line for line in told)
