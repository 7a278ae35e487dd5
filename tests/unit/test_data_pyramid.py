"""The pyramid: one decoding, every size from 4 px, the same images in the same order at each."""

import gzip
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image
from systems import KILLED
from torch import nn
from torch.utils.data import DataLoader

from ganguard import Guard
from ganguard.data import UnlabelledImages, open_images, open_pyramid, pyramid_bytes
from ganguard.data.reduction import box_means
from ganguard.errors import DataError, Stopped

SIZES = (4, 8, 16, 32)
BUILD = """
import os, sys
from pathlib import Path
from ganguard.data import open_pyramid
from ganguard.store import durable
names_left, taken = int(sys.argv[3]), durable.replace
def replace(source, target):
    global names_left
    if source.is_dir():
        if not names_left:
            os._exit(9)
        names_left -= 1
    taken(source, target)
durable.replace = replace
open_pyramid(sys.argv[1], largest=int(sys.argv[4]), channels=3, cache_dir=Path(sys.argv[2]), say=lambda text: None)
"""


@pytest.fixture
def data(tmp_path):
    """Ten images, flat and in folders."""
    rng = np.random.default_rng(0)
    for index in range(10):
        path = tmp_path / "scans" / ("", "left", "right/old")[index % 3] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (48, 40, 3), dtype=np.uint8)).save(path)
    return tmp_path / "scans"


def opened(data, cache_dir, **options):
    options = {"largest": 32, "channels": 3, "say": lambda _: None, **options}
    return open_pyramid(str(data), cache_dir=cache_dir, **options)


def pixels(level):
    return level.__getitems__(range(len(level))).numpy()


def means(images, size):
    """Box means by another way: floating-point means, which are exact here, and rounding halves up."""
    factor = images.shape[-1] // size
    boxes = images.reshape(*images.shape[:-2], size, factor, size, factor).astype(np.float64)
    return np.floor(boxes.mean(axis=(-3, -1)) + 0.5).astype(np.uint8)


def files(cache_dir):
    return {path.parent.name.split("-")[1]: path for path in cache_dir.glob("*/images.npy")}


def test_every_level_holds_the_box_means_of_the_largest(data, tmp_path):
    pyramid = opened(data, tmp_path / "cache")
    assert (pyramid.sizes, pyramid.cached, len(pyramid), pyramid.channels) == (SIZES, SIZES, 10, 3)
    largest = pixels(pyramid.level(32))
    assert largest.std() > 20
    for size in SIZES[:-1]:
        assert np.array_equal(pixels(pyramid.level(size)), means(largest, size))


def test_box_means_do_not_overflow():
    white = np.full((1, 1024, 1024), 255, np.uint8)
    assert {int(level.min()) for level in box_means(white, [1024, 64, 4])} == {255}
    chequered = np.indices((2, 2)).sum(0).astype(np.uint8)[None]
    assert box_means(chequered, [1])[0].tolist() == [[[1]]]  # a half is rounded up


def test_all_levels_are_one_set_in_one_order(data, tmp_path):
    pyramid = opened(data, tmp_path / "cache")
    levels = [pyramid.level(size) for size in SIZES]
    assert {level.fingerprint for level in levels} == {pyramid.fingerprint}
    assert {len(level) for level in levels} == {10}
    assert opened(data, tmp_path / "cache", largest=16).fingerprint == pyramid.fingerprint
    assert opened(data, tmp_path / "other", cache_limit=0).fingerprint == pyramid.fingerprint
    assert opened(data, tmp_path / "cache", channels=1).fingerprint != pyramid.fingerprint
    (data / "left" / "1.png").unlink()
    assert opened(data, tmp_path / "cache").fingerprint != pyramid.fingerprint


def test_a_batch_is_images_alone_and_equals_single_items(data, tmp_path):
    level = opened(data, tmp_path / "cache").level(8)
    (whole,) = DataLoader(level, batch_size=10, collate_fn=UnlabelledImages.collate)
    assert (whole.dtype, whole.shape) == (torch.uint8, (10, 3, 8, 8))
    assert torch.equal(UnlabelledImages.collate([level[index] for index in range(10)]), whole)


def test_a_level_reads_its_own_small_array_and_no_other(data, tmp_path):
    pyramid = opened(data, tmp_path / "cache")
    level = pyramid.level(8)
    before = pixels(level)
    sent = pickle.dumps(level)
    assert len(sent) < 3000
    for size, path in files(tmp_path / "cache").items():
        if size != "8px":
            shutil.rmtree(path.parent)
    shutil.rmtree(data)
    assert np.array_equal(pixels(pickle.loads(sent)), before)


def test_spawned_workers_read_the_cache(data, tmp_path):
    level = opened(data, tmp_path / "cache").level(8)
    loader = DataLoader(level, 4, num_workers=1, collate_fn=level.collate, multiprocessing_context="spawn")
    assert np.array_equal(torch.cat(list(loader)).numpy(), pixels(level))


def test_the_space_that_it_takes_is_known_before(data, tmp_path):
    opened(data, tmp_path / "cache")
    on_disk = {size: path.stat().st_size for size, path in files(tmp_path / "cache").items()}
    assert on_disk == {f"{size}px": taken for size, taken in pyramid_bytes(10, 3, 32).items()}


@pytest.mark.parametrize(("levels", "cached"), [(0, ()), (1, (4,)), (3, (4, 8, 16)), (4, SIZES)])
def test_what_exceeds_the_limit_is_decoded_while_training(data, tmp_path, levels, cached):
    (data / "left" / "half.png").write_bytes((data / "left" / "1.png").read_bytes()[:1000])
    limit = sum(list(pyramid_bytes(11, 3, 32).values())[:levels])
    told = []
    pyramid = opened(data, tmp_path / "limited", cache_limit=limit, say=told.append)
    whole = opened(data, tmp_path / "whole")
    assert pyramid.cached == cached
    assert pyramid.skipped == whole.skipped == ("left/half.png",)
    assert sorted(files(tmp_path / "limited")) == sorted(f"{size}px" for size in cached)
    for size in SIZES:
        assert np.array_equal(pixels(pyramid.level(size)), pixels(whole.level(size)))
    assert any("images are decoded while training" in line for line in told) == (levels < 4)
    assert opened(data, tmp_path / "limited", cache_limit=limit).fingerprint == whole.fingerprint


def test_a_raised_limit_adds_the_levels_that_are_missing(data, tmp_path):
    sizes = pyramid_bytes(10, 3, 32)
    opened(data, tmp_path / "cache", cache_limit=sizes[4] + sizes[8])
    kept = files(tmp_path / "cache")["8px"].stat().st_mtime_ns
    told = []
    pyramid = opened(data, tmp_path / "cache", say=told.append)
    assert pyramid.cached == SIZES
    assert files(tmp_path / "cache")["8px"].stat().st_mtime_ns == kept
    assert np.array_equal(pixels(pyramid.level(4)), means(pixels(pyramid.level(32)), 4))
    assert sum("Decoding" in line for line in told) == 1
    assert opened(data, tmp_path / "cache", cache_limit=0).cached == SIZES


def test_a_build_that_is_killed_leaves_nothing_that_is_taken_for_whole(tmp_path):
    picture = tmp_path / "slow" / "0.png"
    picture.parent.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (1400, 1400, 3), dtype=np.uint8)
    Image.fromarray(noise).save(picture, compress_level=1)
    for index in range(1, 40):
        os.link(picture, picture.with_name(f"{index}.png"))
    command = [sys.executable, "-c", BUILD, str(picture.parent), str(tmp_path / "cache"), "9", "32"]
    process = subprocess.Popen(command)
    deadline = time.monotonic() + 120
    while not any(path.stat().st_size > 128 for path in tmp_path.glob("cache/*32px*.building-*/images.npy")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    assert process.wait() == KILLED
    assert len(list(tmp_path.glob("cache/*.building-*"))) == 4
    pyramid = opened(picture.parent, tmp_path / "cache")
    assert not list(tmp_path.glob("cache/*.building-*"))
    for size in SIZES:
        level = pixels(pyramid.level(size))
        assert len(level) == 40
        assert (level == level[0]).all()


@pytest.mark.parametrize("named", [0, 1, 3])
def test_a_build_that_ends_between_two_levels_is_completed(data, tmp_path, named):
    command = [sys.executable, "-c", BUILD, str(data), str(tmp_path / "cache"), str(named), "32"]
    assert subprocess.run(command, check=False).returncode == 9
    whole = [path for path in (tmp_path / "cache").glob("*/images.npy") if ".building-" not in str(path)]
    assert len(whole) == named
    pyramid = opened(data, tmp_path / "cache")
    assert pyramid.cached == SIZES
    assert not list(tmp_path.glob("cache/*.building-*"))
    for size in SIZES:
        assert np.array_equal(pixels(pyramid.level(size)), means(pixels(pyramid.level(32)), size))


def test_levels_that_contradict_each_other_are_an_error(data, tmp_path):
    opened(data, tmp_path / "cache", cache_limit=pyramid_bytes(10, 3, 32)[4])
    status = (data / "0.png").stat()
    (data / "0.png").write_bytes(bytes(status.st_size))
    os.utime(data / "0.png", ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(DataError, match="Not all of these caches are of the same images"):
        opened(data, tmp_path / "cache")


def seen_by(folder, pyramid, *, workers, stop_at=None):
    """The batches of a guarded loop that grows at each of three epochs, until its end or a signal; what it said."""
    batches, said = [], []
    try:
        with Guard(folder, {"net": nn.Linear(1, 1)}, say=said.append) as guard:
            for epoch in guard.epochs(3):
                level = pyramid.level(SIZES[epoch - 1])
                context = "fork" if workers and os.name == "posix" else None
                loader = DataLoader(
                    level, 4, True, num_workers=workers, collate_fn=level.collate, multiprocessing_context=context
                )
                for images in guard.batches(loader):
                    batches.append(images.clone())
                    if guard.step + 1 == stop_at:
                        signal.raise_signal(signal.SIGINT)
    except Stopped:
        pass
    return batches, said


def test_growing_mirroring_and_resuming_change_no_bit(data, tmp_path):
    pyramid = opened(data, tmp_path / "cache", flip=True)
    whole, said = seen_by(tmp_path / "whole", pyramid, workers=0)
    assert [images.shape[-1] for images in whole] == [4] * 3 + [8] * 3 + [16] * 3
    resumed = []
    for stop_at in (2, 3, 7, None):
        batches, lines = seen_by(tmp_path / "stopped", pyramid, workers=2 if stop_at == 7 else 0, stop_at=stop_at)
        resumed += batches
        said += lines
    assert not [line for line in said if "data set" in line.lower()]
    assert len(resumed) == 9
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(resumed, whole, strict=True))
    stored = pixels(pyramid.level(16).as_stored()).tolist()
    assert 0 < sum(image.tolist() in stored for image in whole[6]) + sum(i.tolist() in stored for i in whole[7]) < 8


def test_a_limit_takes_the_same_images_again(data, tmp_path):
    first, second = (opened(data, tmp_path / name, limit=4) for name in ("one", "two"))
    assert len(first) == 4
    assert np.array_equal(pixels(first.level(8)), pixels(second.level(8)))


def test_an_idx_folder_and_built_in_sets(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    folder = tmp_path / "digits"
    folder.mkdir()
    head = bytes((0, 0, 8, 3, 0, 0, 0, 5, 0, 0, 0, 28, 0, 0, 0, 28))
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + array.tobytes()))
    (folder / "train-labels-idx1-ubyte").write_bytes(bytes((0, 0, 8, 1, 0, 0, 0, 5, 0, 1, 0, 1, 0)))
    top = pixels(opened(folder, tmp_path / "cache", channels=1).level(32))
    assert np.array_equal(top[:, 0, 2:-2, 2:-2], array)
    emoji = opened("emoji", tmp_path / "cache", limit=50)
    labelled = open_images("emoji", image_size=32, channels=3, cache_dir=tmp_path / "c", limit=1376, say=print)
    assert np.isin(pixels(emoji.level(32)).sum((1, 2, 3)), labelled.__getitems__(range(1376))[0].sum((1, 2, 3))).all()


@pytest.mark.parametrize("options", [{"largest": 48}, {"largest": 2}, {"largest": 0}, {"channels": 2}])
def test_impossible_settings(data, tmp_path, options):
    with pytest.raises(DataError):
        opened(data, tmp_path / "cache", **options)


def test_what_is_not_there(data, tmp_path):
    with pytest.raises(DataError, match="no level of 64 px; there are 4, 8, 16, 32"):
        opened(data, tmp_path / "cache").level(64)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        opened(tmp_path / "empty", tmp_path / "cache")


def test_images_that_other_settings_would_suit_are_remarked_on(data, tmp_path):
    told = []
    opened(data, tmp_path / "cache", largest=128, say=told.append)
    assert (
        "All 10 images are smaller than 128 px and enlarged. A new run with --img-size 32 enlarges hardly any." in told
    )
    for path in data.rglob("*.png"):
        Image.open(path).convert("L").save(path)
    for cache_limit in (10**9, 0):
        told.clear()
        opened(data, tmp_path / f"cache {cache_limit}", cache_limit=cache_limit, say=told.append)
        (line,) = [line for line in told if "A new run" in line]
        assert line.startswith("All 10 images are gray, and trained as RGB. A new run with --channels-img 1 ")
