"""A TOML file as people's editors leave it: a byte order mark is nothing, and what cannot be read is explained."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from ganguard.errors import UsageError

_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_BACKSLASHES = (
    'Between "double quotes" a backslash begins an escape. Write paths between single quotes, such as '
    r"'C:\Users\me\photos', or with forward slashes."
)


def parse(content: bytes, path: Path) -> dict[str, Any]:
    """The values in a file's ``content``; ``path`` is what it is called in messages.

    Raises:
        UsageError: it is no TOML, or a text in it holds what only a backslash can have brought there.
    """
    text = _decoded(content, path)
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"at line (\d+)", f"{error}")
        line = text.splitlines()[int(found[1]) - 1] if found else text.rstrip().rpartition("\n")[2]
        hint = f" {_BACKSLASHES}" if "\\" in line and '"' in line else ""
        raise UsageError(f"--config {path} is not TOML: {error}.{hint}") from error
    except (ValueError, RecursionError) as error:  # numbers of 5,000 digits, a thousand brackets
        raise UsageError(f"--config {path} is not TOML that can be read: {error}.") from error
    for key, value in values.items():
        if isinstance(value, str) and re.search(r"[\x00-\x1f\x7f]", value):
            raise UsageError(f"--config {path}: {key} is {value!r}, with a control character in it. {_BACKSLASHES}")
    return values


def _decoded(content: bytes, path: Path) -> str:
    if content.startswith(_UTF_16):
        raise UsageError(f"--config {path} is saved as UTF-16. Save it as UTF-8, which editors offer under Save as.")
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UsageError(
            f"--config {path} is not UTF-8 text in line {line}. Save it as UTF-8, which editors offer under Save as."
        ) from error
