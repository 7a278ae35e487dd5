"""torchvision's MNIST, Fashion-MNIST, CIFAR-10 and CelebA by name: from a folder laid out as torchvision lays it out,
downloaded by torchvision where they aren't there.

MNIST's and CelebA's files are read as they are; CIFAR-10's are pickles, which torchvision checks against their
known MD5 before they are loaded.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from ganguard.data.arrays import Arrays, ArraySource
from ganguard.data.idx import idx_folder, idx_source
from ganguard.data.sources import FolderSource
from ganguard.errors import DataError

TORCHVISION_NAMES = ("celeba", "cifar10", "fashion-mnist", "mnist")
CELEBA_TABLE = "list_attr_celeba.txt"
_ANSWER_WITHIN_S = 30.0

Say = Callable[[str], None]


def torchvision_source(name: str, root: Path, say: Say) -> FolderSource | ArraySource:
    """The training images of one of ``TORCHVISION_NAMES`` (all images of CelebA) below ``root``.

    Raises:
        DataError: it isn't there and can't be downloaded, or is damaged.
    """
    if name == "cifar10":
        return _cifar(root, say)
    if name == "celeba":
        return _celeba(root, say)
    return _mnist(name, root, say)


def _mnist(name: str, root: Path, say: Say) -> FolderSource | ArraySource:
    from torchvision import datasets

    kind = {"mnist": datasets.MNIST, "fashion-mnist": datasets.FashionMNIST}[name]
    folder = root / kind.__name__
    if idx_folder(folder) is None:
        _download(kind.__name__, root, say, partial(kind, root, download=True))
    return idx_source(idx_folder(folder) or folder, name)


def _cifar(root: Path, say: Say) -> FolderSource | ArraySource:
    from torchvision.datasets import CIFAR10

    try:
        CIFAR10(root)
    except RuntimeError:  # torchvision's word for "not there, or damaged"
        _download("CIFAR10", root, say, partial(CIFAR10, root, download=True))
    return ArraySource("cifar10", root / CIFAR10.base_folder, partial(_read_cifar, root))


def _read_cifar(root: Path) -> Arrays:
    from torchvision.datasets import CIFAR10

    whole = CIFAR10(root)
    return Arrays(np.ascontiguousarray(whole.data), np.asarray(whole.targets, np.int64), tuple(whole.classes))


def _celeba(root: Path, say: Say) -> FolderSource | ArraySource:
    from torchvision.datasets import CelebA

    folder = root / CelebA.base_folder
    if not ((folder / "img_align_celeba").is_dir() and (folder / CELEBA_TABLE).is_file()):
        _download("CelebA", root, say, partial(CelebA, root, split="all", download=True))
    return FolderSource(folder / "img_align_celeba", "celeba")


def _download(kind: str, root: Path, say: Say, download: Callable[[], object]) -> None:
    say(f"Downloading {kind} into {root} with torchvision.")
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _answers_awaited():
            download()
    except (OSError, RuntimeError) as error:
        first = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise DataError(
            f"{kind} is not in {root}, and downloading it failed ({first}). Where there is a network, run "
            f"torchvision.datasets.{kind}({str(root)!r}, download=True), or copy a folder made so to {root}."
        ) from error


@contextlib.contextmanager
def _answers_awaited() -> Iterator[None]:
    """A server that never answers is an error in time; torchvision itself would wait forever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_ANSWER_WITHIN_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
