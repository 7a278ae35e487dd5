"""Checkpoints of two files: what the two are called, and which parts lie in which.

The head holds everything but the companion's part; the checkpoint exists with its head. Pairs of several runs lie side
by side in one folder, told apart by ``Pair.name``.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import xxhash

from ganguard.errors import UsageError

HISTORY = "history"
_LONGEST = 100  # bytes; file systems end at 255 for a whole file name
_WORD = re.compile(r"[A-Za-z0-9-]+")
_PLACE = r"(epoch_\d+(_batch_\d+)?|step_\d+)"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The layout of a run whose checkpoints are pairs.

    Args:
        name: tells runs apart that share a folder, such as the data folder's name; see ``name_of``.
        head: what the first file's name begins with.
        companion: what the second file's name begins with.
        head_alias: the fixed name of the newest head; default ``<head>_<name>_local.pth``.
        companion_alias: likewise of the newest companion.
        head_parts: the parts that are the head's ``state_dict`` and ``optimizer``.
        companion_parts: likewise the companion's; all other parts lie in the head.

    Raises:
        UsageError: a name cannot be a part of a file name, or two are the same.
    """

    name: str
    head: str = "generator"
    companion: str = "critic"
    head_alias: str = ""
    companion_alias: str = ""
    head_parts: tuple[str, str] = ("generator", "opt_g")
    companion_parts: tuple[str, str] = ("critic", "opt_d")

    def __post_init__(self) -> None:
        if not self.name or self.name != clean(self.name):
            raise UsageError(
                f"{self.name!r} cannot be a part of file names everywhere. Use {clean(self.name or 'data')!r}, say."
            )
        for word in (self.head, self.companion):
            if not _WORD.fullmatch(word):
                raise UsageError(f"{word!r} cannot begin a file name: use letters, digits and hyphens.")
        for alias in (self.head_alias, self.companion_alias):
            if alias and (not re.fullmatch(r'[^./\\:*?"<>|\x00-\x1f][^/\\:*?"<>|\x00-\x1f]*\.pth', alias)):
                raise UsageError(f"{alias!r} cannot be the fixed name of a checkpoint: use a bare file name in .pth.")
        if self.head.casefold() == self.companion.casefold() or len({a.casefold() for a in self.aliases}) == 1:
            raise UsageError(f"The two files of {self.name} need different names.")
        if len({*self.head_parts, *self.companion_parts}) < 4:
            raise UsageError("A part lies in one file of a pair only, as its state_dict or its optimizer.")
        if any(self.is_versioned(alias) for alias in self.aliases):
            raise UsageError(f"{' and '.join(self.aliases)}: a fixed name must not look like one of an epoch.")

    @property
    def key(self) -> str:
        """What tells runs in one folder apart: on some file systems upper and lower case are one."""
        return unicodedata.normalize("NFC", self.name).casefold()

    @property
    def words(self) -> tuple[str, str]:
        """What file names begin with, the head's last."""
        return self.companion, self.head

    @property
    def aliases(self) -> tuple[str, str]:
        """The fixed names, the head's last."""
        return (
            self.companion_alias or f"{self.companion}_{self.name}_local.pth",
            self.head_alias or f"{self.head}_{self.name}_local.pth",
        )

    def is_versioned(self, file_name: str) -> bool:
        """Whether files of this pair's epochs and steps are called like that."""
        words = f"({re.escape(self.head)}|{re.escape(self.companion)})"
        return bool(re.fullmatch(rf"{words}_{re.escape(self.name)}_{_PLACE}(_\d+)?\.pth", file_name, re.IGNORECASE))

    def is_emergency(self, file_name: str) -> bool:
        """Whether emergencies of pairs with these words are called like that, whatever their run."""
        return file_name.startswith(tuple(f"EMERGENCY_{word}_" for word in self.words))


def name_of(folder: Path | str) -> str:
    """A name for ``Pair``: the last part of a path, with what file names cannot hold replaced."""
    name = Path(folder).resolve().name or "data"
    cleaned = clean(name)
    if cleaned == name:
        return name
    mark = xxhash.xxh3_64_hexdigest(name.encode(errors="surrogateescape"))[:4]  # two such names stay two
    return f"{clean(_shortened(cleaned, _LONGEST - 5))}-{mark}"


def clean(name: str) -> str:
    """``name`` with what some system's file names cannot hold replaced by underscores; at most 100 bytes."""
    plain = "".join(c if c.isalnum() or c in " -_.()+" else "_" for c in unicodedata.normalize("NFC", name))
    return _shortened(plain, _LONGEST).strip(" .") or "data"


def _shortened(text: str, most: int) -> str:
    return text.encode(errors="ignore")[:most].decode(errors="ignore")
