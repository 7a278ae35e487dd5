"""The files of a run's best pair, and which of them belong together: the JSON names its weights by their digests.

A new pair is written under the same names with ``.new``, the JSON last; once that is there, the new pair counts, and
the renames that follow only tidy up. So at every moment one whole pair can be told from the files alone.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ganguard.errors import UnreadableCheckpoint
from ganguard.store import envelope, plain, reading
from ganguard.store.durable import why

GENERATOR = "best_generator.pth"
DISCRIMINATOR = "best_discriminator.pth"
MANIFEST = "best_generator.json"
NEW = ".new"
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What is needed to rebuild the networks of a pair, and where it comes from."""

    network: str
    """The kind of network: cgan, say."""
    spec: dict[str, Any]
    """Its settings."""
    discriminator: dict[str, Any]
    """What more the discriminator is built with."""
    score: dict[str, Any]
    """name, value, about (what it was made with)."""
    epoch: int
    step: int
    digests: dict[str, str]
    """xxh3-128 of ``best_generator.pth`` and ``best_discriminator.pth``."""
    versions: dict[str, str]
    format: int = FORMAT

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), indent=1).encode() + b"\n"

    @property
    def generator_digest(self) -> str:
        return str(self.digests.get(GENERATOR))


_IS_TABLE = plain.all_of(plain.table_of(plain.is_json), plain.is_json)
_IS_MANIFEST = plain.all_of(
    plain.record(network=plain.is_text, epoch=plain.is_count, step=plain.is_count),
    plain.record(spec=_IS_TABLE, discriminator=_IS_TABLE, versions=_IS_TABLE, digests=plain.table_of(plain.is_text)),
    plain.record(score=lambda value: value == {} or plain.is_score(value)),
)


def manifests(generator: Path) -> list[Manifest]:
    """What vouches for a generator's file: the JSON beside it, that of a replacement under way first.

    Raises:
        UnreadableCheckpoint: one cannot be read, or is of a newer version.
    """
    beside = generator.with_suffix(".json")
    found = (read(path) for path in (beside.with_name(beside.name + NEW), beside))
    return [manifest for manifest in found if manifest]


def read(path: Path) -> Manifest | None:
    """A pair's JSON; None where there is none, or something else.

    Raises:
        UnreadableCheckpoint: as ``manifests``.
    """
    try:
        values = reading.read_json(path)
        if values["format"] > FORMAT:
            raise UnreadableCheckpoint(f"{path} was written by a newer ganguard; update with: pip install -U ganguard")
        manifest = Manifest(**{item.name: values[item.name] for item in fields(Manifest)})
        return manifest if _IS_MANIFEST(asdict(manifest)) else None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UnreadableCheckpoint(f"{path} cannot be read: {why(error)}. Mend that first.") from error
    except (ValueError, KeyError, TypeError):
        return None


def find(path: Path, digest: str) -> Path | None:
    """The file at ``path``, or its replacement under way, that has this digest."""
    return next((place for place in (path, path.with_name(path.name + NEW)) if has(place, digest)), None)


def has(path: Path, digest: str) -> bool:
    """Whether a file is there and has this digest.

    Raises:
        UnreadableCheckpoint: it cannot be read.
    """
    try:
        return envelope.file_digest(path) == digest
    except FileNotFoundError:
        return False
    except OSError as error:
        raise UnreadableCheckpoint(f"{path} cannot be read: {why(error)}. Mend that first.") from error
