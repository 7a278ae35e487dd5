"""Which folders of a source are no data: those that systems keep for themselves, and those of trainings.

A system's folder is told by its name, which the system fixes. A training's is told by what lies in it, never by its
name, so that a class may be called ``logs``:

- ganguard's journal or TensorBoard's event files: no image in or below that folder is data;
- checkpoints, ``.pth`` or ``.ckpt``, or a cache of ganguard's: no image beside them is;
- nothing but pictures that ganguard made. Where others lie among them, somebody put them there, and they are data.

The folder that was named itself is what somebody asked for, whatever else lies in it.
"""

from __future__ import annotations

import posixpath
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ganguard import marking
from ganguard.data.sources import File, FileSource, Found

SUFFIXES = frozenset(
    {
        ".avif",
        ".bmp",
        ".gif",
        ".jfif",
        ".jpe",
        ".jpeg",
        ".jpg",
        ".pbm",
        ".pgm",
        ".png",
        ".ppm",
        ".tif",
        ".tiff",
        ".webp",
    }
)
_SYSTEM = frozenset(
    {
        "$recycle.bin",
        "@eadir",
        "@recycle",
        "#recycle",
        "#snapshot",
        "__macosx",
        "lost+found",
        "system volume information",
    }
)
_JOURNAL = re.compile(r"journal.*\.jsonl")
_JOURNAL_BEGINS = b'{"step":'
_EVENTS = "events.out.tfevents."
_HEAD_BYTES = 512
_CHECKPOINTS = (".pth", ".ckpt")
_CACHE = {"cache.json", "images.npy"}
_UNMARKED = re.compile(r"epoch_\d{4}(_\d{4}px)?\.png")  # sample grids from before pictures were marked


class LeftOut(NamedTuple):
    """A folder that is no data, and how many images lie in it.

    ``beside`` names the file that tells a training's; without one, all pictures in it are ganguard's.
    """

    folder: str
    images: int = 0
    system: bool = False
    beside: str = ""


class Data(NamedTuple):
    """What is data, and what is not.

    ``others`` counts files that are no images, by suffix; ``folders`` are the top folders without those of systems and
    trainings; ``generated`` says that ganguard made all the images that there are.
    """

    images: list[File]
    others: Counter[str]
    left_out: list[LeftOut]
    folders: tuple[str, ...]
    generated: bool


def data_of(found: Found, source: FileSource) -> Data:
    """Tell the images in ``source``, where ``found`` lies, from what is no data.

    Where there is nothing but ganguard's pictures, and no training, they were asked for.
    """
    folders = _sorted_into_folders(found.files)
    judge = _Judge(source, folders)
    reasons = {name: judge.reason(name) for name in folders}
    if not any(reason.beside if reason else folders[name].images for name, reason in reasons.items()):
        reasons = {name: reason if reason and reason.system else None for name, reason in reasons.items()}
    kept = [folder for name, folder in folders.items() if reasons[name] is None]
    counts: Counter[LeftOut] = Counter()
    for name, reason in reasons.items():
        if reason:
            counts[reason] += len(folders[name].images)
    of_others = {name.partition("/")[0] for name, reason in reasons.items() if reason}
    return Data(
        images=[image for folder in kept for image in folder.images],
        others=Counter(_suffix(file) or "no suffix" for folder in kept for file in folder.others),
        left_out=[reason._replace(images=count) for reason, count in sorted(counts.items()) if count],
        folders=tuple(top for top in found.folders if top not in of_others and not _system_folder(top)),
        generated=all(judge.holds_own_pictures_only(folder.images) for folder in kept if folder.images),
    )


class _Folder(NamedTuple):
    """What lies directly in a folder."""

    images: list[File]
    others: list[File]


def _sorted_into_folders(files: Iterable[File]) -> dict[str, _Folder]:
    folders: dict[str, _Folder] = {}
    for file in files:
        folder = folders.setdefault(posixpath.dirname(file.name), _Folder([], []))
        (folder.images if _suffix(file) in SUFFIXES else folder.others).append(file)
    return folders


class _Judge:
    """Says of a folder why it is no data; ``""`` is the source's own folder."""

    def __init__(self, source: FileSource, folders: Mapping[str, _Folder]) -> None:
        self._source = source
        self._folders = folders
        self._records = {name: found for name in folders if name and (found := self._record(name))}

    def reason(self, name: str) -> LeftOut | None:
        """None where it is data."""
        if system := _system_folder(name):
            return LeftOut(system, system=True)
        for above in _upwards(name):
            if above in self._records:
                return LeftOut(above, beside=self._records[above])
        if not name:
            return None
        if work := self._work(name):
            return LeftOut(name, beside=work)
        return LeftOut(name) if self.holds_own_pictures_only(self._folders[name].images) else None

    def holds_own_pictures_only(self, images: Sequence[File]) -> bool:
        return bool(images) and all(self._is_own(image.name) for image in images)

    def _record(self, folder: str) -> str:
        for file in self._folders[folder].others:
            name = posixpath.basename(file.name)
            journal = _JOURNAL.fullmatch(name) and self._head(file.name).startswith(_JOURNAL_BEGINS)
            if journal or name.startswith(_EVENTS):
                return name
        return ""

    def _work(self, folder: str) -> str:
        names = [posixpath.basename(file.name) for file in self._folders[folder].others]
        if set(names) >= _CACHE:
            return min(_CACHE)
        return next((name for name in names if name.lower().endswith(_CHECKPOINTS)), "")

    def _is_own(self, name: str) -> bool:
        if not name.lower().endswith(".png"):
            return False
        return bool(_UNMARKED.fullmatch(posixpath.basename(name))) or marking.is_marked(self._head(name))

    def _head(self, name: str) -> bytes:
        """The first bytes of a file; none where they can't be read, which reading all of it will tell."""
        try:
            return self._source.start(name, _HEAD_BYTES)
        except (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError):
            return b""


def _system_folder(folder: str) -> str:
    """The highest folder of a path that a system keeps for itself; ``""`` where there is none."""
    for above in reversed(list(_upwards(folder))):
        name = posixpath.basename(above).casefold()
        if name in _SYSTEM or name.startswith(".trash"):
            return above
    return ""


def _upwards(folder: str) -> Iterator[str]:
    """``a/b`` and ``a`` for ``a/b``."""
    while folder:
        yield folder
        folder = posixpath.dirname(folder)


def _suffix(file: File) -> str:
    return posixpath.splitext(file.name)[1].lower()
