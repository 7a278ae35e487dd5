"""Binary attributes of images from a table in CelebA's form.

The table is CelebA's own ``list_attr_celeba.txt`` (a count, the names, then a line an image, all separated by blanks)
or a CSV (comma, semicolon, tab or ``|``) with a header; its first column names the file. Values are 1 and -1, 1 and 0,
or true and false. A row belongs to the image whose path ends in the row's name, or the other way round, so that
``000001.jpg`` finds ``img_align_celeba/000001.jpg``.
"""

from __future__ import annotations

import csv
import difflib
import io
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ganguard.data.listing import counted, list_flat, named, places
from ganguard.data.sources import Entry, FileSource, Listing, nfc
from ganguard.errors import DataError
from ganguard.reports import console
from ganguard.store.durable import why
from ganguard.store.reading import read_whole

_VALUES = {"1": 1, "1.0": 1, "true": 1, "0": 0, "0.0": 0, "-1": 0, "-1.0": 0, "false": 0}
_OWN_TABLES = ("list_attr_celeba.txt", "list_attr_celeba.csv")
_DELIMITERS = ",;\t|"
_LARGEST_TABLE = 1 << 30  # bytes
_SHOWN = 5
_COLUMNS_SHOWN = 60


@dataclass(frozen=True)
class AttributeTable:
    """Which attributes to train on.

    Attributes:
        path: the table; None for the set's own, CelebA's beside or in the folder of images.
        names: columns of it, in any letter case; none for all.
    """

    path: Path | None = None
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Rows:
    """What was read: the columns' names as the table has them, and a byte for each column by file name."""

    path: Path
    columns: tuple[str, ...]
    values: Mapping[str, bytes]


def list_attributes(source: FileSource, table: AttributeTable, known: Sequence[str] = ()) -> Listing:
    """The source's images that the table knows, with the attributes asked for.

    Args:
        source, table: the images, and which attributes.
        known: those that a checkpoint was trained with, whose order is kept; none where a training begins.

    Raises:
        DoesNotFit: the attributes are not the known ones.
        DataError: no images; no table, or none that can be read; no such column; a value that isn't one of two; rows
            and images that don't match, or not in one way only; the same attributes for all.
    """
    flat = list_flat(source)
    rows = _in_order(_read(table.path or _own_table(source), table.names), known)
    row_of = _match([entry.name for entry in flat.entries], rows)
    entries = tuple(
        entry._replace(attributes=rows.values[row_of[entry.name]]) for entry in flat.entries if entry.name in row_of
    )
    if not entries:
        raise DataError(
            f"None of the {console.counted(len(rows.values), 'row')} of {rows.path} matches one of the "
            f"{counted(len(flat.entries))} in {source.path}: the first row is for "
            f"{next(iter(rows.values), 'nothing')}, the first image is {flat.entries[0].name}. "
            "Check that the table belongs to these images."
        )
    without = [entry.name for entry in flat.entries if entry.name not in row_of]
    return Listing(rows.columns, entries, (*flat.notices, *_notices(rows, entries, without)))


def _in_order(rows: _Rows, known: Sequence[str]) -> _Rows:
    """The columns in the order that is known, and under the names that are."""
    if not known:
        return rows
    found = places(rows.columns, known, "attributes")
    order = [found.index(place) for place in range(len(known))]
    values = {name: bytes(row[place] for place in order) for name, row in rows.values.items()}
    return _Rows(rows.path, tuple(known), values)


def _own_table(source: FileSource) -> Path:
    for folder in (source.path, source.path.parent):
        for name in _OWN_TABLES:
            if (folder / name).is_file():
                return folder / name
    raise DataError(
        f"Attributes were asked for, but {source.path} has no {_OWN_TABLES[0]} in it or beside it. "
        f"Give the table, as in --attributes my_table.csv."
    )


def _notices(rows: _Rows, entries: Sequence[Entry], without: Sequence[str]) -> Iterator[str]:
    yield f"Attributes from {rows.path}: {named(rows.columns)}."
    if without:
        have = "has" if len(without) == 1 else "have"
        yield f"{counted(len(without))} {have} no row in {rows.path}: left out ({named(without, _SHOWN)})."
    if missing := len(rows.values) - len(entries):
        what = (
            "1 row of {} is for an image that is"
            if missing == 1
            else f"{missing:,} rows of {{}} are for images that are"
        )
        yield f"{what.format(rows.path)} not there."
    combined = {entry.attributes for entry in entries}
    constant = [name for place, name in enumerate(rows.columns) if len({values[place] for values in combined}) == 1]
    if len(constant) == len(rows.columns):
        raise DataError(
            f"All {len(entries):,} images are alike in {named(constant)}; a conditional GAN needs something to tell "
            f"apart. Choose other attributes, or train progan_local.py, which needs none."
        )
    if constant:
        yield f"All images are alike in {named(constant)}: nothing can be learned about that."


def _match(images: Sequence[str], rows: _Rows) -> dict[str, str]:
    """The row's name for each image that has one."""
    by_tail: dict[str, list[str]] = {}
    for row in rows.values:
        for tail in _tails(row):
            by_tail.setdefault(tail, []).append(row)
    found: dict[str, str] = {}
    for image in images:
        written = nfc(image)
        longest = next(([name] for name in (written, *_tails(written)) if name in rows.values), None)
        fitting = longest or by_tail.get(written, [])
        if len(fitting) > 1:
            raise DataError(
                f"The image {image} fits {len(fitting):,} rows of {rows.path}: {named(fitting, _SHOWN)}. "
                f"Give --data the folder that the table's names begin in."
            )
        if fitting:
            found[image] = fitting[0]
    twice = [row for row, count in Counter(found.values()).items() if count > 1]
    if twice:
        fitting = [image for image, row in found.items() if row == twice[0]]
        raise DataError(
            f"The row {twice[0]} of {rows.path} fits {len(fitting):,} images: {named(fitting, _SHOWN)}. "
            f"Write their folders into the table, or give --data the folder that holds one of them."
        )
    return found


def _tails(name: str) -> Iterator[str]:
    """``b/c.jpg`` and ``c.jpg`` for ``a/b/c.jpg``."""
    while "/" in name:
        name = name.partition("/")[2]
        yield name


def _read(path: Path, names: Sequence[str]) -> _Rows:
    lines = _lines(path)
    announced, header = _header(lines)
    first = next(lines, None)
    if first is None:
        raise DataError(f"{path} holds no rows. Expected are a header and a row for each image.")
    columns = header if len(first[1]) == len(header) + 1 else header[1:]
    if not columns:
        raise DataError(
            f"{path} has names of files and no attributes: its header is {' '.join(header)!r}. Give each attribute a "
            f"column, separated by commas, semicolons, tabs, | or blanks."
        )
    chosen = _chosen(path, columns, names)
    values: dict[str, bytes] = {}
    seen: set[tuple[int, str]] = set()
    for number, row in itertools.chain([first], lines):
        name, picked = _row(path, number, row, columns, chosen)
        if name in values:
            raise DataError(f"{path} has more than one row for {name}, the second in line {number:,}. Remove one.")
        seen.update(zip(chosen, picked, strict=True))
        values[name] = bytes(_VALUES[value] for value in picked)
    if announced is not None and announced != len(values):
        raise DataError(f"{path} announces {announced:,} rows and has {len(values):,}. It is not whole: copy it again.")
    _check_one_no(path, columns, seen)
    return _Rows(path, tuple(columns[place] for place in chosen), values)


def _row(
    path: Path, number: int, row: Sequence[str], columns: Sequence[str], chosen: Sequence[int]
) -> tuple[str, list[str]]:
    """The file's name with forward slashes, and the values of the chosen columns, each a key of ``_VALUES``."""
    if len(row) != len(columns) + 1:
        raise DataError(
            f"Line {number:,} of {path} has {console.counted(len(row), 'field')}; expected are a file and "
            f"{console.counted(len(columns), 'value')}. "
            f"Correct the line."
        )
    picked = [row[1 + place].lower() for place in chosen]
    for place, value in zip(chosen, picked, strict=True):
        if value not in _VALUES:
            raise DataError(
                f"Line {number:,} of {path} has {value!r} for {columns[place]}; 1 or -1, 1 or 0, true or false is "
                f"expected. Correct it, or choose other attributes."
            )
    return nfc(row[0].replace("\\", "/").removeprefix("./")), picked


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The fields of each line that isn't blank, with the line's number."""
    try:
        content = read_whole(path, _LARGEST_TABLE)
    except OSError as error:
        raise DataError(f"The table {path} can't be read ({why(error)}). Check its name and permissions.") from error
    if b"\0" in content:
        raise DataError(f"{path} is no table of text. Save it as CSV with UTF-8 text.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    delimiter = _delimiter(text)
    if delimiter is None:
        yield from ((number, line.split()) for number, line in enumerate(text.splitlines(), 1) if line.strip())
        return
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        yield from ((reader.line_num, [field.strip() for field in row]) for row in reader if any(row))
    except csv.Error as error:
        raise DataError(f"Line {reader.line_num:,} of {path} can't be read ({error}). Correct it.") from error


def _delimiter(text: str) -> str | None:
    """What separates the fields of the header, the second line where the first is a count; None for blanks."""
    start = text.lstrip()
    lines = start.split("\n", 2)
    header = lines[1] if len(lines) > 1 and lines[0].strip().isdigit() else lines[0]
    most = max(_DELIMITERS, key=header.count)
    return most if most in header else None


def _header(lines: Iterator[tuple[int, list[str]]]) -> tuple[int | None, list[str]]:
    """How many rows are announced, where a first line does, and the header."""
    _, first = next(lines, (0, []))
    if len(first) == 1 and first[0].isdigit():
        return int(first[0]), next(lines, (0, []))[1]
    return None, first


def _chosen(path: Path, columns: Sequence[str], names: Sequence[str]) -> list[int]:
    """The places of the columns that are named, of all where none is."""
    if set(columns) & set(_VALUES) or len(set(columns)) < len(columns):
        raise DataError(
            f"The first line of {path} gives no names to its columns ({', '.join(columns[:5])}). "
            f"Put a line of different names above it, such as image_id,Smiling,Male."
        )
    if not names:
        return list(range(len(columns)))
    chosen = []
    for name in names:
        places = [place for place, column in enumerate(columns) if _plain(column) == _plain(name)]
        if not places:
            close = difflib.get_close_matches(_plain(name), {_plain(column): column for column in columns}, n=1)
            meant = "".join(f" Did you mean {column!r}?" for column in columns if close == [_plain(column)])
            raise DataError(f"{path} has no column {name!r}.{meant} It has: {named(columns, _COLUMNS_SHOWN)}.")
        if len(places) > 1:
            raise DataError(f"{path} has {len(places):,} columns named {name!r}. Rename all but one.")
        if places[0] in chosen:
            raise DataError(f"The attribute {name!r} is named twice. Name each once.")
        chosen += places
    return chosen


def _plain(column: str) -> str:
    return nfc(nfc(column.strip()).casefold()).replace(" ", "_")


def _check_one_no(path: Path, columns: Sequence[str], seen: set[tuple[int, str]]) -> None:
    for place, value in seen:
        if value.startswith("-1") and {(place, "0"), (place, "0.0")} & seen:
            raise DataError(f"{columns[place]} in {path} has both -1 and 0, and one of them can't mean no. Correct it.")
