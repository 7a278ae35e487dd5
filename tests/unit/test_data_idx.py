"""IDX folders, and torchvision's sets laid down as torchvision lays them down."""

import gzip
import hashlib
import pickle
import socket
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ganguard.data import AttributeTable, open_images
from ganguard.data.idx import FASHION, read_idx
from ganguard.errors import DataError

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
LABELS = np.array([3, 0, 1, 2, 1, 9], np.uint8)
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 28, 28), dtype=np.uint8)


def idx(array):
    head = bytes((0, 0, 8, array.ndim)) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return head + array.tobytes()


def laid_down(folder, images=IMAGES, labels=LABELS, zipped=True):
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in (("train-images-idx3-ubyte", images), ("train-labels-idx1-ubyte", labels)):
        content = array if isinstance(array, bytes) else idx(array)
        (folder / f"{name}{'.gz' if zipped else ''}").write_bytes(gzip.compress(content) if zipped else content)
    return folder


def opened(data, tmp_path, **options):
    options = {"image_size": 32, "channels": 1, "say": lambda _: None, **options}
    return open_images(str(data), cache_dir=tmp_path / "run" / "cache", **options)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("cache_limit", [10**9, 0], ids=["cached", "on the fly"])
def test_a_folder_of_idx_files(tmp_path, zipped, cache_limit):
    found = opened(laid_down(tmp_path / "digits", zipped=zipped), tmp_path, cache_limit=cache_limit)
    images, labels = pickle.loads(pickle.dumps(found)).__getitems__(range(6))
    assert torch.equal(images[:, 0, 2:-2, 2:-2], torch.from_numpy(IMAGES))
    assert torch.equal(images[:, 0, 0, 2:-2], torch.from_numpy(IMAGES[:, 0]))
    assert labels.tolist() == LABELS.tolist()
    assert found.label_names == tuple("0123456789")
    assert found.name == "digits"


@pytest.mark.parametrize(("place", "names"), [("Fashion-MNIST", FASHION), ("FashionMNIST/raw", FASHION)])
def test_fashion_mnist_is_known_by_its_folder(tmp_path, place, names):
    laid_down(tmp_path / place)
    assert opened(tmp_path / place.removesuffix("/raw"), tmp_path).label_names == names


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs Debian's dataset-fashion-mnist")
def test_the_whole_of_fashion_mnist_is_known_by_its_labels(tmp_path):
    for path in DEBIAN.glob("train-*"):
        (tmp_path / path.name).symlink_to(path)
    images, labels, names = read_idx(tmp_path)
    assert images.shape == (60_000, 28, 28)
    assert np.bincount(labels).tolist() == [6000] * 10
    assert names == FASHION


def test_a_file_that_changed_is_decoded_again(tmp_path):
    first = opened(laid_down(tmp_path / "data"), tmp_path)
    same = opened(laid_down(tmp_path / "data", zipped=True), tmp_path)
    second = opened(laid_down(tmp_path / "data", IMAGES[::-1].copy()), tmp_path)
    assert first.fingerprint == same.fingerprint != second.fingerprint
    assert torch.equal(second[0][0], first[5][0])


ERRORS = {
    "torn gzip": (lambda: gzip.compress(idx(IMAGES))[:-200], "not a whole gzip file"),
    "damaged gzip": (lambda: gzip.compress(idx(IMAGES))[:-8] + bytes(8), "not a whole gzip file"),
    "another magic": (lambda: gzip.compress(b"\0\0\x0d\3" + idx(IMAGES)[4:]), "begins with 00000d03, .* 00000803"),
    "empty": (lambda: b"", "begins with nothing"),
    "cut off": (lambda: idx(IMAGES)[:-1], r"6 x 28 x 28 bytes are announced, 4,703 are there"),
    "too long": (lambda: idx(IMAGES) + b"x", "not whole"),
    "no sizes": (lambda: idx(IMAGES)[:5], "not whole"),
    "other counts": (lambda: idx(IMAGES[:4]), "holds 4 images and train-labels-idx1-ubyte.gz 6 labels"),
}


@pytest.mark.parametrize(("content", "message"), ERRORS.values(), ids=ERRORS)
def test_what_is_not_whole_is_a_clear_error(tmp_path, content, message):
    folder = laid_down(tmp_path / "data")
    (folder / "train-images-idx3-ubyte.gz").write_bytes(content())
    with pytest.raises(DataError, match=message):
        opened(folder, tmp_path)


def test_a_set_of_no_images(tmp_path):
    with pytest.raises(DataError, match="holds no images"):
        opened(laid_down(tmp_path / "data", IMAGES[:0], LABELS[:0]), tmp_path)


@pytest.mark.parametrize("missing", ["train-images", "train-labels"])
def test_a_file_that_is_missing(tmp_path, missing):
    folder = laid_down(tmp_path / "data")
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(b"")
    next(folder.glob(f"{missing}*")).unlink()
    with pytest.raises(DataError, match=f"but not {missing}"):
        opened(folder, tmp_path)


def test_one_class_and_attributes(tmp_path):
    with pytest.raises(DataError, match="of one class, 3"):
        opened(laid_down(tmp_path / "data", labels=LABELS * 0 + 3), tmp_path)
    with pytest.raises(DataError, match="has classes"):
        opened(laid_down(tmp_path / "two"), tmp_path, attributes=AttributeTable(None, ("Male",)))


@pytest.mark.parametrize(
    ("name", "folder", "names"), [("mnist", "MNIST", tuple("0123456789")), ("fashion-mnist", "FashionMNIST", FASHION)]
)
def test_torchvisions_mnists_where_they_are_already_there(tmp_path, name, folder, names):
    laid_down(tmp_path / "run" / "datasets" / folder / "raw", zipped=False)
    found = opened(name, tmp_path)
    assert (found.name, found.label_names) == (name, names)
    assert found.labels.tolist() == LABELS.tolist()
    assert opened(name, tmp_path, root=tmp_path / "run" / "datasets").fingerprint == found.fingerprint


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """Ten images in CIFAR-10's format; torchvision is told their checksums in place of the real ones."""
    torchvision = pytest.importorskip("torchvision.datasets")
    folder = tmp_path / "sets" / torchvision.CIFAR10.base_folder
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)

    def put(name, content):
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    batches = [rng.integers(0, 256, (2, 3072), dtype=np.uint8) for _ in range(6)]
    sums = [[f"data_batch_{i}", put(f"data_batch_{i}", {"data": batches[i], "labels": [i, 0]})] for i in range(1, 6)]
    monkeypatch.setattr(torchvision.CIFAR10, "train_list", sums)
    test = [["test_batch", put("test_batch", {"data": batches[0], "labels": [0, 1]})]]
    monkeypatch.setattr(torchvision.CIFAR10, "test_list", test)
    meta = {"filename": "batches.meta", "key": "label_names"}
    names = {"label_names": ["airplane", "automobile", "bird", "cat", "deer", "dog"]}
    monkeypatch.setattr(torchvision.CIFAR10, "meta", {**meta, "md5": put("batches.meta", names)})
    return folder.parent, np.concatenate(batches[1:]).reshape(-1, 3, 32, 32)


@pytest.mark.parametrize("cache_limit", [10**9, 0], ids=["cached", "on the fly"])
def test_cifar10_where_it_is_already_there(cifar, tmp_path, cache_limit):
    root, pixels = cifar
    found = opened("cifar10", tmp_path, channels=3, root=root, cache_limit=cache_limit)
    images, labels = found.__getitems__(range(10))
    assert np.array_equal(images.numpy(), pixels)
    assert labels.tolist() == [1, 0, 2, 0, 3, 0, 4, 0, 5, 0]
    assert found.label_names[:3] == ("airplane", "automobile", "bird")


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*arguments, **options):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(("name", "kind"), [("mnist", "MNIST"), ("cifar10", "CIFAR10"), ("celeba", "CelebA")])
def test_neither_there_nor_a_network_is_one_clear_sentence(tmp_path, name, kind):
    told = []
    with pytest.raises(
        DataError, match=rf"{kind} is not in .*datasets, and downloading .*datasets\.{kind}\("
    ) as caught:
        opened(name, tmp_path, say=told.append)
    assert "\n" not in str(caught.value)
    assert any(f"Downloading {kind}" in line for line in told)
    assert socket.getdefaulttimeout() is None


@pytest.mark.usefixtures("no_network")
def test_a_damaged_pickle_is_never_loaded(cifar, tmp_path):
    root, _ = cifar
    batch = root / "cifar-10-batches-py" / "data_batch_1"
    batch.write_bytes(b"cos\nmkdir\n(S'" + (tmp_path / "ran").as_posix().encode() + b"'\ntR.")
    pickle.loads(batch.read_bytes())
    (tmp_path / "ran").rmdir()
    with pytest.raises(DataError, match="CIFAR10 is not in"):
        opened("cifar10", tmp_path, channels=3, root=root)
    assert not (tmp_path / "ran").exists()


def test_celeba_where_it_is_already_there(tmp_path):
    folder = tmp_path / "sets" / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    for number in (1, 2):
        Image.new("RGB", (178, 218), (99 * number, 0, 0)).save(folder / "img_align_celeba" / f"{number:06}.jpg")
    (folder / "list_attr_celeba.txt").write_text("2\nSmiling Male\n000001.jpg  1 -1\n000002.jpg -1 -1\n")
    asked = {"channels": 3, "root": tmp_path / "sets"}
    found = opened("celeba", tmp_path, attributes=AttributeTable(None, ("smiling",)), **asked)
    assert (found.name, found.label_names, found.labels.tolist()) == ("celeba", ("Smiling",), [[1], [0]])
    with pytest.raises(DataError, match=r"no class folders.*--attributes"):
        opened("celeba", tmp_path, **asked)


def test_a_folder_of_that_name_comes_before_torchvision(tmp_path, monkeypatch):
    laid_down(tmp_path / "mnist")
    monkeypatch.chdir(tmp_path)
    assert len(opened("mnist", tmp_path)) == 6


def test_the_stamp_of_an_image_is_its_checksum(tmp_path):
    from ganguard.data.idx import idx_source

    entries = idx_source(laid_down(tmp_path / "data")).listing().entries
    assert [entry.stamp for entry in entries] == [zlib.crc32(image.tobytes()) for image in IMAGES]
