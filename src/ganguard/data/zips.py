"""A zip of images, read without unpacking it."""

from __future__ import annotations

import os
import posixpath
import zipfile
from pathlib import Path

from ganguard.data.sources import File, Found, is_hidden, safe_name
from ganguard.errors import DataError

_ENCRYPTED = 1  # bit of a member's flags


class ZipSource:
    """A zip file, read without unpacking it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = safe_name(path.stem)
        self._opened: tuple[int, zipfile.ZipFile, dict[str, zipfile.ZipInfo]] | None = None

    def find(self) -> Found:
        members = self._open()[1]
        if any(info.flag_bits & _ENCRYPTED for info in members.values()):
            raise DataError(f"{self.path} needs a password. Unpack it, and give the folder.")
        shown = {name: info for name, info in sorted(members.items()) if not any(map(is_hidden, name.split("/")))}
        files = tuple(File(name, i.file_size, i.CRC) for name, i in shown.items() if not name.endswith("/"))
        tops = {name.partition("/")[0] for name in shown if "/" in name} - {""}  # ``./``, the zip itself
        return Found(files, tuple(sorted(tops)))

    def read(self, name: str) -> bytes:
        archive, members = self._open()
        return archive.read(members[name])

    def start(self, name: str, count: int) -> bytes:
        archive, members = self._open()
        with archive.open(members[name]) as file:
            return file.read(count)

    def _open(self) -> tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]:
        """The archive, and its members by their names in one spelling."""
        # A forked worker shares its parent's file position, so each process opens the zip itself.
        if self._opened is None or self._opened[0] != os.getpid():
            try:
                archive = zipfile.ZipFile(self.path)
            except zipfile.BadZipFile as error:
                raise DataError(f"{self.path} is not a whole zip file ({error}). Copy it again.") from error
            except OSError as error:
                raise DataError(f"{self.path} can't be read ({error.strerror}). Check that it is there.") from error
            self._opened = os.getpid(), archive, {_member(info.filename): info for info in archive.infolist()}
        return self._opened[1:]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_opened": None}


def _member(name: str) -> str:
    """A member's name with single forward slashes, as a path below the zip: some programs write ``\\``, ``./``, ``..``.

    Nothing is unpacked, so that no name can lead anywhere else. A folder's ends in ``/``.
    """
    slashed = name.replace("\\", "/")
    path = posixpath.normpath("/" + slashed.lstrip("/")).lstrip("/")
    return f"{path}/" if slashed.endswith("/") else path
