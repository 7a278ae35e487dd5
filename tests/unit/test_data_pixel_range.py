"""Images with more than 8 bits a channel: one range for a whole set, which uses what the set really has."""

import os
import pickle

import numpy as np
import pytest
from deep_images import class_folders, deep_png, gray, ramp

from ganguard.data import open_images, open_pyramid
from ganguard.data.listing import list_classes
from ganguard.data.sources import FolderSource, digest
from ganguard.errors import DataError


def opened(data, tmp_path, **options):
    """The set, and what was said."""
    told = []
    options = {"image_size": 32, "channels": 1, "cache_dir": tmp_path / "cache", **options}
    return open_images(str(data), say=told.append, **options), told


def pixels(found):
    """(N, C, H, W) in the order of the files' numbers."""
    images = found.__getitems__(range(len(found)))[0].numpy()
    half = (len(images) + 1) // 2
    return np.stack([images[index // 2 + half * (index % 2)] for index in range(len(images))])


def cache_keys(tmp_path):
    return {path.parent.name.rpartition("-")[2] for path in (tmp_path / "cache").glob("*/images.npy")}


@pytest.mark.parametrize("cache_limit", [10**9, 0], ids=["cached", "on the fly"])
@pytest.mark.parametrize(
    ("bits", "kind"), [(8, "PNG"), (10, "TIFF"), (12, "PNG"), (12, "TIFF"), (14, "PNG"), (16, "PNG")]
)
def test_files_of_16_bits_use_the_bits_that_the_set_has(tmp_path, bits, kind, cache_limit):
    values = ramp(2**bits - 1)
    data = class_folders(tmp_path / "data", [gray(values, kind), gray(values // 3, kind)])
    found, told = opened(data, tmp_path, cache_limit=cache_limit)
    bright, dim = pixels(found)[:, 0]
    assert np.array_equal(bright, values >> (bits - 8))
    assert np.array_equal(dim, values // 3 >> (bits - 8))  # by the same rule, though it uses fewer bits
    (line,) = [line for line in told if "more than 8 bits" in line]
    assert f"from 0 to {2**bits - 1}: 0 becomes black, {2**bits - 1} white" in line


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        (ramp(255, np.int32), 0, 255),
        (ramp(1_000_000, np.int32), 0, 2**20 - 1),
        (ramp(4000, np.int32) - 1000, -1000, 3000),
        (ramp(1, np.float32), 0, 1),
        (ramp(7, np.float32) - 2.5, -2.5, 4.5),
        (ramp(1), 0, 1),
    ],
    ids=["32 bits, 0 to 255", "32 bits, 20 used", "signed", "0 to 1", "fractions", "a mask"],
)
def test_other_deep_pixels_use_their_range_too(tmp_path, values, low, high):
    data = class_folders(tmp_path / "data", [gray(values, "TIFF")] * 2, ".tif")
    found, told = opened(data, tmp_path)
    expected = np.minimum((values.astype(np.float64) - low) * 256 / (high - low), 255).astype(np.uint8)
    assert np.array_equal(pixels(found)[0, 0], expected)
    assert expected.min() == 0
    assert expected.max() >= 240
    assert any(f"{low} becomes black, {high} white" in line for line in told)
    assert found.skipped == ()


def test_what_is_no_number_is_black_and_counts_for_nothing(tmp_path):
    values = ramp(1, np.float32)
    values[0, :3] = (np.nan, np.inf, -np.inf)
    found, told = opened(class_folders(tmp_path / "data", [gray(values, "TIFF")] * 2, ".tif"), tmp_path)
    assert pixels(found)[0, 0, 0, :3].tolist() == [0, 255, 0]
    assert any("to 1: " in line for line in told)


@pytest.mark.parametrize("channels", [2, 3, 4], ids=["gray and alpha", "RGB", "RGB and alpha"])
def test_colours_of_16_bits_keep_all_of_them(tmp_path, channels):
    """Pillow cuts them to 8 bits: 12 used ones would come out at 0 to 15."""
    values = np.random.default_rng(0).integers(0, 4096, (32, 32, channels)).astype(np.uint16)
    if channels in (2, 4):
        values[..., -1] = 65535
    found, _ = opened(class_folders(tmp_path / "data", [deep_png(values)] * 2), tmp_path, channels=3)
    colours = np.repeat(values[..., :1], 3, 2) if channels == 2 else values[..., :3]
    assert np.array_equal(pixels(found)[0], colours.transpose(2, 0, 1) >> 4)
    assert found.pixel_range == "0:4095"


def test_in_a_mixed_set_images_of_8_bits_stay_as_they_are(tmp_path):
    shallow, deep = ramp(200, np.uint8), ramp(4095)
    found, told = opened(class_folders(tmp_path / "data", [gray(shallow), gray(deep), gray(deep)]), tmp_path)
    assert np.array_equal(pixels(found)[0, 0], shallow)
    assert np.array_equal(pixels(found)[1, 0], deep >> 4)
    (line,) = [line for line in told if "more than 8 bits" in line]
    assert line.startswith("2 images have")
    assert "the other 1 have 8 and stay as they are" in line


@pytest.mark.parametrize("highest", [255, 65535], ids=["8 bits", "16 bits, all used"])
def test_caches_from_before_there_were_ranges_are_used(tmp_path, highest):
    """Their key is that of the files and the sizes alone."""
    contents = [gray(ramp(highest, np.uint8 if highest == 255 else np.uint16))] * 2
    data = class_folders(tmp_path / "data", contents)
    found, _ = opened(data, tmp_path)
    key = digest("decoder 1, 32 px, 1 channels", list_classes(FolderSource(data)).entries)
    assert cache_keys(tmp_path) == {key[:16]}
    assert found.pixel_range == "full"


def test_another_range_has_a_cache_and_a_fingerprint_of_its_own(tmp_path):
    data = class_folders(tmp_path / "data", [gray(ramp(4095))] * 2)
    found = {text: opened(data, tmp_path, pixel_range=text)[0] for text in ("auto", "full", "0:1023")}
    assert len(cache_keys(tmp_path)) == len({images.fingerprint for images in found.values()}) == 3
    assert opened(data, tmp_path, pixel_range="0:4095")[0].fingerprint == found["auto"].fingerprint
    assert len(cache_keys(tmp_path)) == 3
    assert np.array_equal(pixels(found["full"])[0, 0], ramp(4095) >> 8)
    assert np.array_equal(pixels(found["0:1023"])[0, 0], np.minimum(ramp(4095) >> 2, 255))


def test_a_range_that_does_not_suit_is_told(tmp_path):
    data = class_folders(tmp_path / "data", [gray(ramp(4095))] * 2)
    _, told = opened(data, tmp_path, pixel_range="full")
    assert any("would make it 0:4095: a new run with --pixel-range=0:4095" in line for line in told)
    _, told = opened(data, tmp_path, pixel_range="0:4095")
    assert not any("a new run" in line for line in told)


@pytest.mark.parametrize("images", [1, 4], ids=["in one image", "in each"])
def test_a_hot_pixel_widens_the_range_and_is_told_with_the_cure(tmp_path, images):
    hot = ramp(4095)
    hot[5, 5] = 65535
    contents = [gray(hot if index < images else ramp(4095)) for index in range(4)]
    data = class_folders(tmp_path / "data", contents)
    found, told = opened(data, tmp_path)
    assert np.array_equal(pixels(found)[0, 0], hot >> 8)
    assert any("Nearly all of these values lie in 0:4095" in line and "--pixel-range=0:4095" in line for line in told)
    found, _ = opened(data, tmp_path, pixel_range="0:4095")
    assert np.array_equal(pixels(found)[0, 0], np.minimum(hot >> 4, 255))


def test_what_was_found_is_remembered(tmp_path):
    """A second start reads no image, and says the same."""
    data = class_folders(tmp_path / "data", [gray(ramp(4095)), gray(ramp(255, np.uint8))] * 2)
    first, told = opened(data, tmp_path)
    before = pixels(first).copy()
    for path in data.rglob("*.png"):
        status = path.stat()
        path.write_bytes(bytes(status.st_size))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    second, told_again = opened(data, tmp_path)
    assert np.array_equal(pixels(second), before)
    assert told_again[0] == told[0]
    assert "more than 8 bits" in told[0]


def test_full_takes_the_upper_8_of_16_bits_and_nothing_else(tmp_path):
    contents = [gray(ramp(4095)), gray(ramp(4095)), gray(ramp(1, np.float32), "TIFF"), gray(ramp(-9, np.int32), "TIFF")]
    found, told = opened(class_folders(tmp_path / "data", contents), tmp_path, pixel_range="full")
    assert found.skipped == ("a/2.png", "b/3.png")
    text = "\n".join(told)
    assert "a/2.png: floating-point pixels, which have no upper 8 bits: give --pixel-range=LOW:HIGH" in text
    assert "b/3.png: 32-bit pixels beyond 16 bits" in text


def test_a_damaged_deep_image_is_left_out_and_sets_no_range(tmp_path):
    broken = gray(np.random.default_rng(0).integers(0, 65536, (32, 32)).astype(np.uint16))[:-600]
    found, told = opened(class_folders(tmp_path / "data", [gray(ramp(4095))] * 2 + [broken]), tmp_path)
    assert found.pixel_range == "0:4095"
    assert any(line.strip().startswith("a/2.png: truncated PNG") for line in told)


def test_the_pyramid_has_the_same_range(tmp_path):
    values = ramp(4095)
    data = class_folders(tmp_path / "data", [gray(values)] * 3)
    options = {"largest": 32, "channels": 1, "say": lambda _: None}
    pyramid = open_pyramid(str(data), cache_dir=tmp_path / "one", **options)
    direct = open_pyramid(str(data), cache_dir=tmp_path / "two", cache_limit=0, **options)
    assert pyramid.pixel_range == "0:4095"
    assert pyramid.fingerprint == direct.fingerprint
    assert np.array_equal(pyramid.level(32)[0].numpy()[0], values >> 4)
    worker = pickle.loads(pickle.dumps(direct.level(32)))  # what a spawned worker gets
    assert np.array_equal(worker[0].numpy()[0], values >> 4)
    full = open_pyramid(str(data), cache_dir=tmp_path / "one", pixel_range="full", **options)
    assert full.fingerprint != pyramid.fingerprint
    assert full.level(32)[0].max() == 15


@pytest.mark.parametrize("text", ["0-4095", "5:5", "9:1", "0:inf", "nan:1", "", "auto:full"])
def test_a_range_that_is_none(tmp_path, text):
    with pytest.raises(DataError, match=r"auto, full, or two numbers from black to white, such as 0:4095"):
        opened(class_folders(tmp_path / "data", [gray(ramp(4095))] * 2), tmp_path, pixel_range=text)
