"""What a source's files are: images in class folders, or images without classes.

The classes are the top folders, sorted by name; nested files belong to their top folder. Hidden files, other suffixes
than those of images, and what ``exclusions`` knows are left out. A name is the same in all its Unicode forms.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from ganguard.data.exclusions import SUFFIXES, Data, LeftOut, data_of
from ganguard.data.sources import Entry, File, FileSource, Found, Listing, name_bytes, nfc
from ganguard.errors import DataError, DoesNotFit
from ganguard.reports import console

_SPLIT_NAMES = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})
_NAMED_AT_MOST = 20
_SHOWN = 5


def list_classes(source: FileSource, known: Sequence[str] = ()) -> Listing:
    """Sort the source's images into classes.

    Folders that hold one folder and next to nothing else, as in a zip of a folder, are gone through.

    Args:
        source: the images.
        known: the classes that a checkpoint was trained with, whose order is kept; none where a training begins.

    Raises:
        DataError: no images; no class folders around them, or only one.
        DoesNotFit: the classes are not the known ones.
    """
    data, notices = _data(source)
    prefix = _wrapping(data.images)
    inside: dict[str, list[File]] = {}
    for file in data.images:
        class_name, slash, _ = file.name.removeprefix(prefix).partition("/")
        within = slash and file.name.startswith(prefix)
        inside.setdefault(class_name if within else "", []).append(file)
    loose = len(inside.pop("", ()))
    place = source.path / prefix
    if not inside:
        raise DataError(_no_folders(place, loose), *notices)
    present = sorted(inside, key=nfc)
    label_names = tuple(known) or tuple(dict.fromkeys(map(nfc, present)))
    empty = () if prefix else tuple(sorted(set(data.folders) - set(inside)))
    told = (*notices, *_class_notices(place, prefix, present, loose, empty))
    labels = dict(zip(present, places(present, label_names, "classes", told), strict=True))
    check_classes(place, label_names, len(data.images) - loose, empty, notices)
    entries = [Entry(f.name, labels[folder], f.size, f.stamp) for folder in present for f in inside[folder]]
    return Listing(label_names, tuple(sorted(entries, key=_by_label_and_name)), told)


def list_flat(source: FileSource) -> Listing:
    """All images of the source by name, whatever folders they lie in; without labels.

    Raises:
        DataError: no images.
    """
    data, notices = _data(source)
    entries = [Entry(file.name, 0, file.size, file.stamp) for file in data.images]
    return Listing((), tuple(sorted(entries, key=_by_label_and_name)), notices)


def places(names: Sequence[str], known: Sequence[str], what: str, notices: Sequence[str] = ()) -> list[int]:
    """For each of ``names`` its place among the ``known`` ones: as it is written, else in another Unicode form.

    Args:
        names, known: of classes or attributes.
        what: which of these they are.
        notices: what was left out, which may be the reason for a difference.

    Raises:
        DoesNotFit: a name is not known, or a known one lacks.
    """
    place = {nfc(name): index for index, name in enumerate(known)} | {name: i for i, name in enumerate(known)}
    found = [place.get(name, place.get(nfc(name))) for name in names]
    new = [name for name, index in zip(names, found, strict=True) if index is None]
    there = set(found)
    lacking = [name for index, name in enumerate(known) if index not in there]
    if new or lacking:
        raise DoesNotFit(*_other_names(new, lacking, what), *notices)
    return [index for index in found if index is not None]


def _other_names(new: Sequence[str], lacking: Sequence[str], what: str) -> list[str]:
    alike = [(old, name) for old in lacking for name in new if _on_other_systems(old) == _on_other_systems(name)]
    return [
        f"The {what} are others than those that the checkpoint was trained with (label_names); nothing was changed:",
        *([f"  not there: {named(lacking)}"] if lacking else []),
        *([f"  not known: {named(new)}"] if new else []),
        *(f"  {old!r} and {name!r} differ in letter case or a blank only" for old, name in alike[:1]),
        "To go on with this run, give it the names that it knows. To start afresh (the old run is set aside, not "
        "lost): --no-checkpoint.",
    ]


def check_classes(
    place: Path | str,
    present: Collection[str],
    images: int,
    empty: Collection[str] = (),
    notices: Sequence[str] = (),
) -> None:
    """Raises ``DataError`` where there are not two classes to tell apart; ``empty`` folders would be more."""
    if len(present) == 1:
        without = f" (no image lies in {named(empty)})" if empty else ""
        all_of = "The only image in" if images == 1 else f"All {images:,} images in"
        refusal = (
            f"{all_of} {place} {'is' if images == 1 else 'are'} of one class, {next(iter(present))}{without}; a "
            f"conditional GAN needs two or more to tell apart. Put each class into a folder of its own, or train "
            f"progan_local.py, which needs none."
        )
        raise DataError(refusal, *notices)


def _data(source: FileSource) -> tuple[Data, tuple[str, ...]]:
    """The images, and what was left out, in words.

    Raises:
        DataError: no images.
    """
    found = source.find()
    data = data_of(found, source)
    notices = (*_excluded(source.path, data), *_not_followed(found))
    if not data.images:
        raise DataError(_nothing_found(source.path, data.others), *notices)
    return data, (*notices, *_other_files(source.path, data.others))


def _by_label_and_name(entry: Entry) -> tuple[int, str, str]:
    return entry.label, nfc(entry.name), entry.name


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
    place: Path, prefix: str, present: Sequence[str], loose: int, empty: tuple[str, ...]
) -> Iterator[str]:
    label_names = list(dict.fromkeys(map(nfc, present)))
    if prefix:
        yield f"The classes are the folders in {place}: {named(label_names)}."
    if loose:
        verb = "lies" if loose == 1 else "lie"
        yield f"{counted(loose)} {verb} directly in {place}, in no class folder: left out."
    if empty:
        yield f"No image lies in {named(empty)}: left out of the classes."
    for name in (name for name, count in Counter(map(nfc, present)).items() if count > 1):
        yield f"{name} is the name of two folders in {place}, in two Unicode forms: they are one class."
    yield from _alike(label_names)
    if {name.lower() for name in label_names} <= _SPLIT_NAMES:
        likely = next((name for name in label_names if name.lower().startswith("train")), label_names[0])
        yield (
            f"The classes are named {', '.join(label_names)}, which looks like a split of a data set: "
            f"did you mean {place / likely}?"
        )


def _alike(label_names: Sequence[str]) -> Iterator[str]:
    """Names that Windows, and most Macs, take for one."""
    groups: dict[str, list[str]] = {}
    for name in label_names:
        groups.setdefault(_on_other_systems(name), []).append(name)
    for group in (group for group in groups.values() if len(group) > 1):
        names = " and ".join(map(repr, group))
        yield (
            f"{names} differ in letter case or a blank at the end only: {len(group)} classes here, one folder on "
            f"Windows. Where they mean the same, put their images into one."
        )


def _on_other_systems(name: str) -> str:
    """Letter case, and blanks and dots at the end, do not count on Windows."""
    return nfc(name).casefold().rstrip(" .")


def _excluded(path: Path, data: Data) -> Iterator[str]:
    if data.generated and data.images:
        yield f"All images in {path} were made by ganguard: training learns from generated images."
    if of_systems := [left for left in data.left_out if left.system]:
        images = sum(left.images for left in of_systems)
        verb = "lies" if images == 1 else "lie"
        yield f"{counted(images)} {verb} in folders that systems keep ({named(_names(of_systems))}): left out."
    if of_trainings := [left for left in data.left_out if not left.system]:
        images = sum(left.images for left in of_trainings)
        verb = "belongs" if images == 1 else "belong"
        advice = ["put them into a folder without such files"] if any(left.beside for left in of_trainings) else []
        advice += [] if all(left.beside for left in of_trainings) else ["put what ganguard made among other images"]
        yield (
            f"{counted(images)} {verb} to trainings: left out ({named(_names(of_trainings))}). To train on "
            f"them, {', and '.join(advice)}."
        )


def _names(left_out: Sequence[LeftOut]) -> list[str]:
    return [left.folder if left.system else f"{left.images:,} in {left.folder}, {_why(left)}" for left in left_out]


def _why(left: LeftOut) -> str:
    return f"beside {left.beside}" if left.beside else "made by ganguard"


def _not_followed(found: Found) -> Iterator[str]:
    if found.dangling:
        what = "1 link leads" if len(found.dangling) == 1 else f"{len(found.dangling):,} links lead"
        yield f"{what} nowhere: left out ({named(found.dangling, _SHOWN)}). Fetch or mount what is behind."
    if found.unreadable:
        what = "1 file or folder" if len(found.unreadable) == 1 else f"{len(found.unreadable):,} files or folders"
        yield f"{what} can't be read: left out ({named(found.unreadable, _SHOWN)}). Check the permissions."


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
    ranked = sorted(listing.entries, key=lambda entry: hashlib.sha256(name_bytes(nfc(entry.name))).digest())
    seen: Counter[int] = Counter()
    turns = []
    for entry in ranked:
        seen[entry.label] += 1
        turns.append((seen[entry.label], entry.label, entry))
    chosen = sorted(entry for _, _, entry in sorted(turns)[:limit])
    chosen.sort(key=_by_label_and_name)
    return listing._replace(entries=tuple(chosen))
