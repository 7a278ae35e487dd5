"""What a source's files are: images in class folders, or images without classes.

The classes are the top folders, sorted by name; nested files belong to their top folder. Hidden files and other
suffixes than those of images are left out.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

from ganguard.data.sources import Entry, File, FileSource, Listing, name_bytes
from ganguard.errors import DataError
from ganguard.reports import console

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
_SPLIT_NAMES = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})
_NAMED_AT_MOST = 20


def list_classes(source: FileSource) -> Listing:
    """Sort the source's images into classes.

    Folders that hold one folder and next to nothing else, as in a zip of a folder, are gone through.

    Raises:
        DataError: no images, no class folders around them, or only one.
    """
    images, others = _split(source)
    if not images:
        raise DataError(_nothing_found(source.path, others))
    prefix = _wrapping(images)
    inside: dict[str, list[File]] = {}
    for file in images:
        class_name, slash, _ = file.name.removeprefix(prefix).partition("/")
        within = slash and file.name.startswith(prefix)
        inside.setdefault(class_name if within else "", []).append(file)
    loose = len(inside.pop("", ()))
    place = source.path / prefix
    if not inside:
        raise DataError(_no_folders(place, loose))
    label_names = tuple(sorted(inside))
    empty = () if prefix else tuple(sorted(set(source.folders()) - set(label_names)))
    check_classes(place, label_names, len(images) - loose, empty)
    entries = tuple(
        Entry(file.name, label, file.size, file.stamp)
        for label, class_name in enumerate(label_names)
        for file in sorted(inside[class_name])
    )
    notices = (*_class_notices(place, prefix, label_names, loose, empty), *_other_files(source.path, others))
    return Listing(label_names, entries, notices)


def list_flat(source: FileSource) -> Listing:
    """All images of the source by name, whatever folders they lie in; without labels.

    Raises:
        DataError: no images.
    """
    images, others = _split(source)
    if not images:
        raise DataError(_nothing_found(source.path, others))
    entries = tuple(Entry(file.name, 0, file.size, file.stamp) for file in sorted(images))
    return Listing((), entries, tuple(_other_files(source.path, others)))


def check_classes(place: Path | str, present: Collection[str], images: int, empty: Collection[str] = ()) -> None:
    """Raises ``DataError`` where there are not two classes to tell apart; ``empty`` folders would be more."""
    if len(present) == 1:
        without = f" (no image lies in {named(empty)})" if empty else ""
        all_of = "The only image in" if images == 1 else f"All {images:,} images in"
        raise DataError(
            f"{all_of} {place} {'is' if images == 1 else 'are'} of one class, {next(iter(present))}{without}; a "
            f"conditional GAN needs two or more to tell apart. Put each class into a folder of its own, or train "
            f"progan_local.py, which needs none."
        )


def _split(source: FileSource) -> tuple[list[File], Counter[str]]:
    """The images, and how many other files there are by suffix."""
    images: list[File] = []
    others: Counter[str] = Counter()
    for file in source.files():
        suffix = posixpath.splitext(file.name)[1].lower()
        if suffix in SUFFIXES:
            images.append(file)
        else:
            others[suffix or "no suffix"] += 1
    return images, others


def _wrapping(images: list[File]) -> str:
    """The folders around the class folders: ``"cats and dogs/"``, often ``""``.

    Each holds one folder with images, and most images lie in folders within that; a stray one changes nothing.
    """
    prefix = ""
    while True:
        inside = [file.name.removeprefix(prefix) for file in images if file.name.startswith(prefix)]
        folders = {name.partition("/")[0] for name in inside if "/" in name}
        if len(folders) != 1:
            return prefix
        folder = f"{folders.pop()}/"
        if 2 * sum("/" in name.removeprefix(folder) for name in inside if name.startswith(folder)) <= len(images):
            return prefix
        prefix += folder


def _nothing_found(path: Path, others: Counter[str]) -> str:
    seen = f", only other files ({_most_common(others)})" if others else ""
    return (
        f"{path} holds no images{seen}. Expected are images, for gan.py in class folders, such as "
        f"{path / 'cats' / '1.jpg'}; known suffixes: {' '.join(sorted(SUFFIXES))}."
    )


def _no_folders(place: Path, loose: int) -> str:
    return (
        f"{place} holds {counted(loose)} but no class folders. Put the images of each class into a folder of its own, "
        f"such as {place / 'cats' / '1.jpg'}, or give a table of their attributes, as in "
        f"--attributes list_attr_celeba.csv."
    )


def _class_notices(
    place: Path, prefix: str, label_names: tuple[str, ...], loose: int, empty: tuple[str, ...]
) -> Iterator[str]:
    if prefix:
        yield f"The classes are the folders in {place}: {named(label_names)}."
    if loose:
        verb = "lies" if loose == 1 else "lie"
        yield f"{counted(loose)} {verb} directly in {place}, in no class folder: left out."
    if empty:
        yield f"No image lies in {named(empty)}: left out of the classes."
    if {name.lower() for name in label_names} <= _SPLIT_NAMES:
        yield (
            f"The classes are named {', '.join(label_names)}, which looks like a split of a data set: "
            f"did you mean {place / label_names[0]}?"
        )


def _other_files(path: Path, others: Counter[str]) -> Iterator[str]:
    if others:
        what = "1 file in {} is no image" if others.total() == 1 else f"{others.total():,} files in {{}} are no images"
        yield f"{what.format(path)} ({_most_common(others)}): left out."


def _most_common(others: Counter[str]) -> str:
    return ", ".join(f"{count:,} {suffix}" for suffix, count in others.most_common(3))


def counted(images: int) -> str:
    """``1 image``, ``2 images``."""
    return console.counted(images, "image")


def named(names: Collection[str], at_most: int = _NAMED_AT_MOST) -> str:
    """The names in a row, and how many more there are."""
    shown = ", ".join(list(names)[:at_most])
    return shown if len(names) <= at_most else f"{shown} and {len(names) - at_most:,} more"


def balanced_subset(listing: Listing, limit: int) -> Listing:
    """At most ``limit`` images, as evenly from all classes as they allow; the same ones each time.

    Which images of a class are taken depends on their names alone, so that new files displace few of the others.

    Raises:
        DataError: fewer images than classes were asked for.
    """
    classes = len({entry.label for entry in listing.entries})
    if limit < classes:
        raise DataError(
            f"A limit of {counted(limit)} is less than the {classes:,} classes. "
            f"Raise the limit, so that every class has an image."
        )
    ranked = sorted(listing.entries, key=lambda entry: hashlib.sha256(name_bytes(entry.name)).digest())
    seen: Counter[int] = Counter()
    turns = []
    for entry in ranked:
        seen[entry.label] += 1
        turns.append((seen[entry.label], entry.label, entry))
    chosen = sorted(entry for _, _, entry in sorted(turns)[:limit])
    chosen.sort(key=lambda entry: (entry.label, entry.name))
    return listing._replace(entries=tuple(chosen))
