"""A set of images is known again by its sketch: whatever was added to it, and wherever it lies."""

import os
import shutil
import unicodedata

import pytest

from ganguard.data.listing import list_flat
from ganguard.data.sketch import Sketch
from ganguard.data.sources import FolderSource
from ganguard.data.zips import ZipSource


def write(folder, numbers, *, salt=0, length=200):
    """Files of one length; a number and a salt decide the content."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        content = b"%08d" % (number * 1000 + salt)
        (folder / f"ação_{number:04d}.png").write_bytes(content.rjust(length, b"\0"))  # it begins like all others
    return folder


def sketch(place):
    source = ZipSource(place) if place.suffix == ".zip" else FolderSource(place)
    return Sketch(source, list_flat(source).entries)


@pytest.mark.parametrize("count", [7, 32, 500])
def test_the_same_images_are_the_same_under_other_times_names_of_folders_and_unicode_forms(tmp_path, count):
    recorded = sketch(write(tmp_path / "a", range(count))).text
    assert len(recorded) < 1000
    shutil.copytree(tmp_path / "a", tmp_path / "b" / "c", copy_function=shutil.copyfile)
    for path in list((tmp_path / "b" / "c").iterdir()):
        os.utime(path, (1, 1))
        path.rename(path.with_name(unicodedata.normalize("NFD", path.name)))
    assert sketch(tmp_path / "b" / "c").overlap(recorded).is_same
    shutil.make_archive(tmp_path / "one", "zip", tmp_path / "a")
    shutil.copy(tmp_path / "one.zip", tmp_path / "two.zip")
    assert sketch(tmp_path / "two.zip").overlap(sketch(tmp_path / "one.zip").text).is_same


@pytest.mark.parametrize(
    ("now", "other"),
    [
        (range(0, 5000), False),
        (range(0, 50), False),
        (range(100, 500), False),
        (range(150, 650), False),
        (range(400, 900), True),
        (range(500, 1000), True),
    ],
    ids=["tenfold", "a tenth of it", "a fifth gone", "a third replaced", "a fifth of it and many new", "none of it"],
)
def test_a_set_that_grew_or_shrank_is_the_same_and_one_with_few_in_common_is_not(tmp_path, now, other):
    recorded = sketch(write(tmp_path / "a", range(500))).text
    overlap = sketch(write(tmp_path / "b", now)).overlap(recorded)
    assert (overlap.is_other, overlap.is_same) == (other, False)


def test_the_same_names_and_lengths_with_other_content_are_other_images(tmp_path):
    recorded = sketch(write(tmp_path / "a", range(40), length=300_000)).text
    assert sketch(write(tmp_path / "b", range(40), length=300_000, salt=1)).overlap(recorded).is_other


@pytest.mark.parametrize("text", ["", "xyz", "12:ab zz:cd", ":", "\x1b[31m"])
def test_what_is_no_sketch_says_nothing(tmp_path, text):
    assert sketch(write(tmp_path / "a", range(3))).overlap(text) is None


@pytest.mark.parametrize("text", ["-1:ab", "f" * 40 + ":ab", "12"])
def test_a_forged_sketch_fits_nothing(tmp_path, text):
    assert sketch(write(tmp_path / "a", range(3))).overlap(text).is_other
