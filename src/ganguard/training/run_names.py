"""What a run is called after its images: the last folder with a name that tells anything."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from ganguard.paths import expanded
from ganguard.store.pair import name_of

_PARTS_OF_A_SET = """
train training val valid validation test testing
treino treinamento validacao teste entrenamiento validacion prueba
"""
_HOLDING_A_SET = """
data dataset datasets image images img imgs photo photos picture pictures pics jpg jpeg png raw
dados datos imagem imagens imagen imagenes foto fotos downloads desktop documents
"""
_SAY_NOTHING = frozenset((_PARTS_OF_A_SET + _HOLDING_A_SET).split())


def place(data: str) -> str:
    """Where images lie, as a checkpoint records it: an absolute path, or the name of a set that is none."""
    path = expanded(data)
    return str(path.resolve()) if path.exists() else data


def is_there(place: str) -> bool:
    """Whether a recorded place still is one; the name of a set always is."""
    return not {"/", "\\"} & set(place) or Path(place).exists()


def same_place(one: str, other: str) -> bool:
    """Whether two recorded places are one, however they are spelled."""
    try:
        return one == other or Path(one).samefile(other)
    except OSError:
        return os.path.normcase(one) == os.path.normcase(other)


def name_for(data: str) -> str:
    """``cats/train`` and ``cats/images`` are ``cats``; ``OCT2017/train/DRUSEN`` is ``DRUSEN``; a zip has its own name.

    Folders above the home folder, and it, are no names of images: where nothing else tells, it is the last folder.
    """
    return next(possible_names(data))


def possible_names(data: str) -> Iterator[str]:
    """``name_for``, then longer names for the same images, then numbered ones: ``OCT2017``, ``OCT2017_train``, …"""
    path = _folder(data)
    yield name_of(_telling(path) or path)
    shortest = len((_telling(path) or path).parts) - 1
    for first in range(min(shortest, len(path.parts) - 2), 0, -1):
        yield name_of("_".join(path.parts[first:]))
    for number in count(2):
        yield f"{name_for(data)}_{number}"


def _folder(data: str) -> Path:
    path = Path(place(data))
    return path.with_suffix("") if path.suffix.lower() == ".zip" else path


def _telling(path: Path) -> Path | None:
    """The innermost folder with a name that tells something."""
    home = expanded("~")
    for folder in (path, *path.parents):
        if folder == home or folder in home.parents or folder == folder.parent:
            return None
        if _plain(folder.name) not in _SAY_NOTHING:
            return folder
    return None


def _plain(name: str) -> str:
    """In small letters, without accents."""
    return "".join(c for c in unicodedata.normalize("NFKD", name.casefold()) if not unicodedata.combining(c))
