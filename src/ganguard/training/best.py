"""The best pair so far: bare state dicts and a JSON that tells how to rebuild them, replaced as one.

Killed at any moment, the folder holds the whole pair before or the whole new one, which ``mend`` then gives its names.
A pair whose score is of another kind than the new one's is no worse than it: it is set aside, not replaced.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from ganguard import restoring, state
from ganguard.errors import CheckpointError, SaveFailed
from ganguard.networks import best_files
from ganguard.networks.best_files import DISCRIMINATOR, GENERATOR, MANIFEST, NEW, Manifest
from ganguard.store import durable, names, set_aside
from ganguard.store.durable import why
from ganguard.store.envelope import HashingFile
from ganguard.store.summary import score_kind

_WEIGHTS = (GENERATOR, DISCRIMINATOR)
_TAG = "best"  # of temporary files
_DIGITS = 8  # of a digest in a folder's name


class Spec(Protocol):
    """What is needed to build networks again."""

    def to_config(self) -> dict[str, Any]: ...


class BestPair:
    """``best_generator.pth``, ``best_discriminator.pth`` and ``best_generator.json`` in one folder.

    One process writes at a time: the one that holds the lock of the run's checkpoints.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def mend(self) -> list[str]:
        """Finish or undo a replacement that was interrupted; to be called when a run starts.

        What lies at the names and is no pair of ours is set aside. Returns what is to be told; raises nothing.
        """
        try:
            return self._mend() if self.folder.is_dir() else []
        except (OSError, CheckpointError) as error:
            reason = why(error) if isinstance(error, OSError) else error
            return [f"The best pair in {self.folder} was left as it is: {reason}"]

    def write(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        *,
        spec: Spec,
        epoch: int,
        step: int,
        score: Mapping[str, Any],
        network: str = "cgan",
    ) -> list[str]:
        """Replace the pair by these networks; returns what is to be told.

        Args:
            generator: the averaged one, whose score it is.
            score: name, value, and about: what it was made with.
            network: the kind that ``ganguard.load_generator`` is to build from ``spec``.

        Raises:
            SaveFailed: the pair before stands, or the new one is whole and the next ``mend`` gives it its names.
        """
        modules = {GENERATOR: state.unwrap(generator), DISCRIMINATOR: state.unwrap(discriminator)}
        spectral = any("parametrizations" in key for key in modules[DISCRIMINATOR].state_dict())
        try:
            durable.make_folder(self.folder)
            told = self._mend()
            manifest = Manifest(
                network=network,
                spec=spec.to_config(),
                discriminator={"spectral": spectral},
                score={key: score[key] for key in ("name", "value", "about") if key in score},
                epoch=epoch,
                step=step,
                digests={name: self._write_weights(name, module) for name, module in modules.items()},
                versions=restoring.versions(),
            )
            with durable.written_atomically(self._new(MANIFEST), _TAG) as file:
                file.write(manifest.to_json())
            return told + self._give_names(manifest)
        except (OSError, CheckpointError) as error:
            if not self._new(MANIFEST).exists():
                self._drop_unfinished()
            raise SaveFailed(f"{self.folder}: {why(error)}" if isinstance(error, OSError) else str(error)) from error

    def _new(self, name: str) -> Path:
        return self.folder / f"{name}{NEW}"

    def _write_weights(self, name: str, module: nn.Module) -> str:
        """Returns the file's digest."""
        plain = state.to_plain(module.state_dict(), name, keep=_on_host)
        with durable.written_atomically(self._new(name), _TAG) as file:
            hashed = HashingFile(file)
            try:
                torch.save(plain, hashed)  # type: ignore[arg-type]  # anything with write() serves
            except Exception as error:
                raise hashed.error or error from None
            if hashed.error is not None:  # the writer went on as if nothing had been
                raise hashed.error
        return hashed.digest

    def _mend(self) -> list[str]:
        told: list[str] = []
        for name in (self._new(MANIFEST), self.folder / MANIFEST):
            manifest = best_files.read(name)
            if manifest is not None and all(self._found(manifest, weights) for weights in _WEIGHTS):
                told = self._give_names(manifest)
                break
        self._drop_unfinished()
        return told + self._make_room()

    def _found(self, manifest: Manifest, name: str) -> Path | None:
        return best_files.find(self.folder / name, manifest.digests.get(name, ""))

    def _give_names(self, manifest: Manifest) -> list[str]:
        """Let a pair that is whole take its place; returns what became of the one before, if that is to be told."""
        told = self._keep_other_kind(manifest)
        waiting = [name for name in _WEIGHTS if self._found(manifest, name) == self._new(name)]
        if best_files.read(self._new(MANIFEST)) == manifest:
            waiting.append(MANIFEST)
        for name in waiting:
            durable.replace(self._new(name), self.folder / name)
            durable.sync_folder(self.folder)
        return told

    def _keep_other_kind(self, new: Manifest) -> list[str]:
        """Set a pair aside whose score cannot be compared; into the same folder again after a crash halfway."""
        old = best_files.read(self.folder / MANIFEST)
        if old is None or old == new or score_kind(old.score) == score_kind(new.score):
            return []
        theirs = [name for name in _WEIGHTS if best_files.has(self.folder / name, old.digests.get(name, ""))]
        into = f"{names.SET_ASIDE}/best_of_epoch_{old.epoch:03d}_{old.generator_digest[:_DIGITS]}"
        set_aside.move(self.folder, [*theirs, MANIFEST], into)
        name, value = old.score.get("name", "score"), old.score.get("value")
        return [
            f"The best pair before, {name} {value} of epoch {old.epoch}, is of another kind; it is kept in "
            f"{self.folder / into}."
        ]

    def _drop_unfinished(self) -> None:
        """The JSON first: without it, the others mean nothing."""
        with contextlib.suppress(OSError):
            for name in (MANIFEST, *_WEIGHTS):
                durable.remove(self._new(name))
            durable.clear_temporaries(self.folder, _TAG)

    def _make_room(self) -> list[str]:
        """Set aside what is no pair of ours and would be written over."""
        manifest = best_files.read(self.folder / MANIFEST)
        there = [name for name in (*_WEIGHTS, MANIFEST) if (self.folder / name).exists()]
        ours = [MANIFEST] if manifest else []
        ours += [
            name for name in _WEIGHTS if manifest and best_files.has(self.folder / name, manifest.digests.get(name, ""))
        ]
        foreign = [name for name in there if name not in ours]
        if not foreign:
            return []
        into = set_aside.new_folder(self.folder, "not_ours")
        set_aside.move(self.folder, foreign, into)
        return [f"Not of the best pair, so set aside in {self.folder / into}: {', '.join(foreign)}."]


def _on_host(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", copy=True)
