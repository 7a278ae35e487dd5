"""The best pair so far: bare state dicts and a JSON that tells how to rebuild them, replaced as one.

Killed at any moment, the folder holds the whole pair before or the whole new one, which ``mend`` then gives its names.
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
from ganguard.store import durable, set_aside
from ganguard.store.durable import why
from ganguard.store.envelope import HashingFile

_WEIGHTS = (GENERATOR, DISCRIMINATOR)


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
    ) -> None:
        """Replace the pair by these networks.

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
            self._mend()
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
            with durable.written_atomically(self._new(MANIFEST)) as file:
                file.write(manifest.to_json())
            self._give_names(manifest)
        except (OSError, CheckpointError) as error:
            if not self._new(MANIFEST).exists():
                self._drop_unfinished()
            raise SaveFailed(f"{self.folder}: {why(error)}" if isinstance(error, OSError) else str(error)) from error

    def _new(self, name: str) -> Path:
        return self.folder / f"{name}{NEW}"

    def _write_weights(self, name: str, module: nn.Module) -> str:
        """Returns the file's digest."""
        plain = state.to_plain(module.state_dict(), name, keep=_on_host)
        with durable.written_atomically(self._new(name)) as file:
            hashed = HashingFile(file)
            try:
                torch.save(plain, hashed)  # type: ignore[arg-type]  # anything with write() serves
            except Exception as error:
                raise hashed.error or error from None
            if hashed.error is not None:  # the writer went on as if nothing had been
                raise hashed.error
        return hashed.digest

    def _mend(self) -> list[str]:
        for name in (self._new(MANIFEST), self.folder / MANIFEST):
            manifest = best_files.read(name)
            if manifest is not None and all(self._found(manifest, weights) for weights in _WEIGHTS):
                self._give_names(manifest)
                break
        self._drop_unfinished()
        return self._make_room()

    def _found(self, manifest: Manifest, name: str) -> Path | None:
        return best_files.find(self.folder / name, manifest.digests.get(name, ""))

    def _give_names(self, manifest: Manifest) -> None:
        waiting = [name for name in _WEIGHTS if self._found(manifest, name) == self._new(name)]
        if best_files.read(self._new(MANIFEST)) == manifest:
            waiting.append(MANIFEST)
        for name in waiting:
            durable.replace(self._new(name), self.folder / name)
            durable.sync_folder(self.folder)

    def _drop_unfinished(self) -> None:
        """The JSON first: without it, the others mean nothing."""
        with contextlib.suppress(OSError):
            for name in (MANIFEST, *_WEIGHTS):
                durable.remove(self._new(name))
            durable.clear_temporaries(self.folder)

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
