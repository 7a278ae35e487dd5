"""What a file of a best pair is, by the JSON beside it, which names the pair's bare weights by their digests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ganguard.networks import best_files
from ganguard.networks.best_files import Manifest

_NETWORK = {best_files.GENERATOR: "generator", best_files.DISCRIMINATOR: "discriminator"}


@dataclass(frozen=True, kw_only=True)
class BestFile:
    """One file of a best pair."""

    path: Path
    manifest: Manifest
    good: bool
    """Whether its bytes are those that the JSON describes."""

    @property
    def words(self) -> str:
        return f"bare weights of the best {_NETWORK[self.path.name]}"

    @property
    def verdict(self) -> str:
        return "good" if self.good else f"is damaged, or not the file that {best_files.MANIFEST} describes"

    @property
    def told(self) -> dict[str, Any]:
        """What the JSON says."""
        manifest = self.manifest
        return {
            "bytes_are": "as written" if self.good else self.verdict,
            "network": manifest.network,
            "score": manifest.score,
            "epoch": manifest.epoch,
            "step": manifest.step,
            "settings": manifest.spec,
            "versions": manifest.versions,
        }


def about(path: Path) -> BestFile | None:
    """What a file of a best pair is; None where it is none, or has no JSON beside it.

    Raises:
        UnreadableCheckpoint: the file or its JSON cannot be read.
    """
    if path.name not in _NETWORK:
        return None
    vouching = [m for m in best_files.manifests(path.with_name(best_files.GENERATOR)) if path.name in m.digests]
    if not vouching:
        return None
    good = next((m for m in vouching if best_files.has(path, m.digests[path.name])), None)
    return BestFile(path=path, manifest=good or vouching[-1], good=good is not None)
