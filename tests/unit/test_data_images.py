"""LabelledImages: what a loader gets, from the cache and without one."""

import errno
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from ganguard.data import LabelledImages, open_images
from ganguard.data.pixels import load
from ganguard.data.sources import FolderSource
from ganguard.errors import DataError, DoesNotFit


@pytest.fixture
def data(tmp_path):
    generator = np.random.default_rng(0)
    for index in range(12):
        path = tmp_path / "my data" / ("cats", "dogs", "owls")[index % 3] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)
    return tmp_path / "my data"


def opened(data, cache_dir, **options):
    options = {"image_size": 16, "channels": 3, "say": lambda _: None, **options}
    return open_images(str(data), cache_dir=Path(cache_dir), **options)


def every(found):
    return found.__getitems__(list(range(len(found))))


@pytest.fixture(params=["cached", "on the fly"])
def found(request, data, tmp_path):
    return opened(data, tmp_path / "cache", cache_limit=10**9 if request.param == "cached" else 0)


def test_one_item(found):
    image, label = found[7]
    assert (image.dtype, image.shape) == (torch.uint8, (3, 16, 16))
    assert isinstance(label, int)
    assert label == 1
    assert found.label_names == ("cats", "dogs", "owls")
    assert found.name == "my_data"
    assert found.labels.dtype == np.int64


def test_a_batch_equals_its_items(found):
    images, labels = found.__getitems__([5, 0, 11, 5])
    assert (images.dtype, images.shape) == (torch.uint8, (4, 3, 16, 16))
    assert (labels.dtype, labels.tolist()) == (torch.int64, [1, 0, 2, 1])
    for row, index in enumerate([5, 0, 11, 5]):
        assert torch.equal(images[row], found[index][0])


def test_a_batch_is_memory_of_its_own(found):
    before = found[0][0].clone()
    images, labels = found.__getitems__([0, 1])
    images.zero_()
    labels.fill_(99)
    assert torch.equal(found[0][0], before)
    assert found[0][1] == 0
    held = [found[0][0], found[0][0]]
    assert held[0].data_ptr() != held[1].data_ptr()


def test_positions_from_the_end_and_outside(found):
    assert torch.equal(found[-1][0], found[11][0])
    for index in (12, -13):
        with pytest.raises(IndexError):
            found[index]


def test_on_the_fly_equals_cached_bit_for_bit(data, tmp_path):
    (data / "dogs" / "half.png").write_bytes((data / "dogs" / "1.png").read_bytes()[:500])
    cached = opened(data, tmp_path / "one")
    direct = opened(data, tmp_path / "two", cache_limit=0)
    assert not list((tmp_path / "two").glob("*/images.npy"))
    assert torch.equal(every(cached)[0], every(direct)[0])
    assert cached.labels.tolist() == direct.labels.tolist()
    assert cached.skipped == direct.skipped == ("dogs/half.png",)
    assert cached.fingerprint == direct.fingerprint


def test_the_cache_is_an_ordinary_npy_file(data, tmp_path):
    found = opened(data, tmp_path / "cache")
    (path,) = (tmp_path / "cache").glob("*/images.npy")
    array = np.load(path)
    assert array.dtype == np.uint8
    assert np.array_equal(array, every(found)[0].numpy())


@pytest.mark.parametrize(("name", "channels"), [("emoji", 3), ("fashion-mnist-mini", 1)])
def test_built_in_sets_on_the_fly_equal_cached(name, channels, tmp_path):
    options = {"image_size": 32, "channels": channels, "limit": 100}
    cached = opened(name, tmp_path / "one", **options)
    direct = opened(name, tmp_path / "two", cache_limit=0, **options)
    assert torch.equal(every(cached)[0], every(direct)[0])
    assert 3 < every(cached)[0].float().std() < 120


def test_a_cache_that_exists_is_used_above_the_limit(data, tmp_path):
    opened(data, tmp_path)
    for path in data.rglob("*.png"):
        status = path.stat()
        path.write_bytes(bytes(status.st_size))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    found = opened(data, tmp_path, cache_limit=0)
    assert len(found) == 12
    assert every(found)[0].any()


def test_the_check_of_all_images_is_remembered(data, tmp_path):
    (data / "dogs" / "0.png").write_text("a text")
    told = []
    first = opened(data, tmp_path / "cache", cache_limit=0)
    for path in data.rglob("*.png"):  # unreadable from now on, as only decoding again would notice
        status = path.stat()
        path.write_bytes(bytes(status.st_size))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    second = opened(data, tmp_path / "cache", cache_limit=0, say=told.append)
    assert first.skipped == second.skipped == ("dogs/0.png",)
    assert len(first) == len(second) == 12
    assert any("dogs/0.png: not an image" in line for line in told)


def test_an_image_damaged_in_mid_training_is_replaced_by_one_of_its_class(data, tmp_path):
    found = opened(data, tmp_path / "cache", cache_limit=0)
    (data / "dogs" / "10.png").write_bytes(b"damaged")
    row = found.labels.tolist().index(1) + 1  # dogs/1.png comes before it
    with pytest.warns(RuntimeWarning, match="dogs/10.png"):
        image, label = found[row]
    assert label == 1
    assert torch.equal(image, found[row + 1][0])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_drive_that_is_gone_is_an_error(data, tmp_path):
    found = opened(data, tmp_path / "cache", cache_limit=0)
    data.rename(tmp_path / "gone")
    with pytest.raises(DataError, match="can no longer be read"):
        found[0]


def test_a_read_error_that_passes_is_waited_for(data):
    class Flaky(FolderSource):
        failures = 2

        def read(self, name):
            if self.failures:
                self.failures -= 1
                raise OSError(errno.EIO, "Input/output error")
            return super().read(name)

    image = load(Flaky(data), "dogs/1.png", 16, 3, retry_after_s=(0.01, 0.01))
    assert np.array_equal(image, load(FolderSource(data), "dogs/1.png", 16, 3))
    with pytest.raises(DataError, match=r"1.png can't be read \(Input/output error\)"):
        load(Flaky(data), "dogs/1.png", 16, 3, retry_after_s=(0.01,))


def test_pickled_it_is_small_and_opens_the_cache_itself(tmp_path):
    found = opened("emoji", tmp_path, image_size=64)
    content = pickle.dumps(found)
    assert len(content) < 30_000
    copy = pickle.loads(content)
    assert torch.equal(copy.__getitems__([3, 900])[0], found.__getitems__([3, 900])[0])
    assert copy.fingerprint == found.fingerprint


def test_pickled_without_a_cache(found):
    copy = pickle.loads(pickle.dumps(found))
    assert torch.equal(every(copy)[0], every(found)[0])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cache_limit", [10**9, 0], ids=["cached", "on the fly"])
def test_a_data_loader(tmp_path, workers, cache_limit):
    """On the fly the workers read one zip at the same time, which the parent opened before them."""
    found = opened("emoji", tmp_path, image_size=32, limit=300, cache_limit=cache_limit)
    loader = DataLoader(
        found,
        batch_size=16,
        num_workers=workers,
        collate_fn=LabelledImages.collate,
        multiprocessing_context="fork" if workers and os.name == "posix" else None,
    )
    batches = list(loader)
    assert [len(labels) for _, labels in batches] == [16] * 18 + [12]
    images, labels = every(found)
    assert torch.equal(torch.cat([images for images, _ in batches]), images)
    assert torch.equal(torch.cat([labels for _, labels in batches]), labels)


def test_the_default_collate_and_single_items_give_the_same_batches(found):
    whole = next(iter(DataLoader(found, batch_size=5, collate_fn=LabelledImages.collate)))
    single = LabelledImages.collate([found[index] for index in range(5)])
    for ours, other in zip(whole, single, strict=True):
        assert ours.dtype == other.dtype
        assert torch.equal(ours, other)


def test_a_limit_is_balanced(data, tmp_path):
    found = opened(data, tmp_path / "cache", limit=7)
    assert np.bincount(found.labels).tolist() == [3, 2, 2]
    assert opened(data, tmp_path / "other", limit=7).fingerprint == found.fingerprint


def test_one_class_that_is_left_is_an_error(data, tmp_path):
    for path in [*(data / "dogs").iterdir(), *(data / "owls").iterdir()]:
        path.write_text("a text")
    for cache_limit in (10**9, 0):
        with pytest.raises(DataError, match=r"of one class, cats; .* two or more"):
            opened(data, tmp_path / "cache", cache_limit=cache_limit)


def test_a_class_that_lost_all_its_images_keeps_its_place_and_is_told(data, tmp_path):
    for path in (data / "dogs").iterdir():
        path.write_text("a text")
    told = []
    found = opened(data, tmp_path / "cache", say=told.append)
    assert found.label_names == ("cats", "dogs", "owls")
    assert set(found.labels.tolist()) == {0, 2}
    assert "No image of class dogs is left." in told


def test_names_that_a_console_cannot_show(data, tmp_path):
    (data / "cats" / "猫.png").write_text("a text")
    told = []

    def narrow(text):
        text.encode("cp1252")
        told.append(text)

    assert opened(data, tmp_path / "cache", say=narrow).skipped == ("cats/猫.png",)
    assert any("\\u732b" in line for line in told)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="names of any bytes")
def test_names_that_are_no_text(data, tmp_path):
    (data / "cats" / "0.png").rename(data / "cats" / os.fsdecode(b"\xff\xfe.png"))
    found = opened(data, tmp_path / "cache")
    assert len(found) == 12
    assert opened(data, tmp_path / "cache").fingerprint == found.fingerprint


@pytest.mark.parametrize("options", [{"image_size": 0}, {"channels": 2}, {"limit": 2}])
def test_impossible_settings(data, tmp_path, options):
    with pytest.raises(DataError):
        opened(data, tmp_path / "cache", **options)


def test_opening_a_set_loads_no_torch(data, tmp_path):
    code = (
        "import sys, pathlib; from ganguard.data import open_images;"
        "open_images(sys.argv[1], image_size=16, channels=3, cache_dir=pathlib.Path(sys.argv[2]));"
        "print('torch' in sys.modules, 'torchvision' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(data), str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "False False", done.stderr


def told_of(folder, tmp_path, images, **options):
    """What is said of ``images``, in turn in two class folders."""
    for index, image in enumerate(images):
        path = folder / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    told = []
    for cache_limit in (10**9, 0, 0):  # from the decoding, from the check of all images, from what that remembered
        lines = []
        opened(folder, tmp_path / f"cache {cache_limit}", say=lines.append, cache_limit=cache_limit, **options)
        told.append([line for line in lines if "A new run" in line or "several" in line])
    assert told[0] == told[1] == told[2]
    opened(folder, tmp_path / "cache 1000000000", say=lines.append, **options)
    assert all(line in lines for line in told[0])  # at every start
    return told[0]


def colours(width, height):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_images_smaller_than_the_size_are_remarked_on_with_the_size_that_suits(tmp_path):
    images = [colours(40, 90)] * 3 + [colours(64, 64)]
    (line,) = told_of(tmp_path / "data", tmp_path, images, image_size=64)
    assert line == (
        "3 of 4 images are smaller than 64 px and enlarged. A new run with --image-size 32 enlarges hardly any."
    )
    assert told_of(tmp_path / "data", tmp_path, images, image_size=32) == []


def test_images_of_28_pixels_at_32_are_framed_and_not_remarked_on(tmp_path):
    assert told_of(tmp_path / "data", tmp_path, [colours(28, 28)] * 2, image_size=32) == []


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "LA", "1"])
def test_gray_images_trained_as_rgb_are_remarked_on_however_they_are_stored(tmp_path, mode):
    gray = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)).convert(mode)
    (line,) = told_of(tmp_path / "data", tmp_path, [gray] * 4)
    assert line.startswith("All 4 images are gray, and trained as RGB. A new run with --channels 1 ")
    assert told_of(tmp_path / "data", tmp_path, [gray] * 4, channels=1) == []


def test_gray_images_among_others_are_not_remarked_on(tmp_path):
    images = [colours(32, 32), colours(32, 32).convert("L")] * 2
    assert told_of(tmp_path / "data", tmp_path, images) == []


def test_colours_trained_as_gray_are_remarked_on(tmp_path):
    images = [colours(32, 32)] * 3 + [colours(32, 32).convert("L")]
    (line,) = told_of(tmp_path / "data", tmp_path, images, channels=1)
    assert line == ("3 of 4 images are in colour, and made gray. A new run with --channels 3 keeps the colours.")


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "WEBP", "PNG"])
def test_pages_and_frames_that_are_not_used_are_told(tmp_path, kind):
    first, second = Image.new("RGB", (16, 16), "red"), Image.new("RGB", (16, 16), "blue")
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        first.save(tmp_path / "data" / name / f"1.{kind.lower()}", save_all=True, append_images=[second])
    told = []
    opened(tmp_path / "data", tmp_path / "cache", say=told.append)
    assert "2 images hold several pictures (pages or frames): only the first of each is used." in told


def test_class_folders_that_come_back_in_another_unicode_form_are_the_same_images(data, tmp_path):
    """A copy keeps the times: neither labels nor the fingerprint change, and nothing is decoded again."""
    (data / "owls").rename(data / "caf\u00e9")
    before = opened(data, tmp_path / "cache")
    (data / "caf\u00e9").rename(data / "cafe\u0301")
    told = []
    after = opened(data, tmp_path / "cache", label_names=before.label_names, say=told.append)
    assert after.label_names == before.label_names == ("caf\u00e9", "cats", "dogs")
    assert after.labels.tolist() == before.labels.tolist()
    assert after.fingerprint == before.fingerprint
    assert len(told) == 1
    assert torch.equal(every(after)[0], every(before)[0])


def test_labels_follow_the_order_that_a_checkpoint_knows(data, tmp_path):
    known = ("owls", "cats", "dogs")
    found = opened(data, tmp_path / "cache", label_names=known)
    plain = opened(data, tmp_path / "cache")
    assert found.label_names == known
    for label, name in enumerate(known):
        images = every(plain)[0][plain.labels == plain.label_names.index(name)]
        assert torch.equal(every(found)[0][found.labels == label], images)


@pytest.mark.parametrize("cache_limit", [10**9, 0])
def test_other_classes_are_refused_before_anything_is_decoded_or_written(data, tmp_path, cache_limit):
    with pytest.raises(DoesNotFit, match=r"not there: wolves\n  not known: owls"):
        opened(data, tmp_path / "cache", label_names=("cats", "dogs", "wolves"), cache_limit=cache_limit)
    with pytest.raises(DoesNotFit, match=r"not known: ankle-boot, bag"):
        opened("fashion-mnist-mini", tmp_path / "cache", label_names=("cats", "dogs"), channels=1)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("cache_limit", [10**9, 0])
@pytest.mark.parametrize("name", ["n" * 240, "数据" * 40])
def test_a_data_folder_with_a_name_of_240_bytes(data, tmp_path, name, cache_limit):
    found = opened(data.rename(tmp_path / name), tmp_path / "cache", cache_limit=cache_limit)
    assert len(found) == 12
    assert all(len(os.fsencode(path.name)) < 240 for path in (tmp_path / "cache").rglob("*"))
