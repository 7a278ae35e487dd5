"""``ganguard.load_generator``: a trained generator from whichever file holds one."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ganguard import content, state
from ganguard.errors import (
    CheckpointError,
    DamagedCheckpoint,
    DoesNotFit,
    NoCheckpoint,
    UnreadableCheckpoint,
    UsageError,
)
from ganguard.networks import as_stored, best_files, progressive_loaded
from ganguard.networks.cgan import build_generator
from ganguard.networks.cgan_spec import CganSpec
from ganguard.networks.label_rows import label_rows
from ganguard.networks.loaded import GeneratorOrigin, LoadedCgan, LoadedGenerator
from ganguard.store import body, catalog, envelope, names, runfile, search, spared
from ganguard.store.catalog import Catalog, Entry
from ganguard.store.envelope import State
from ganguard.store.plans import some
from ganguard.store.summary import Kind, from_json

_TRIES = 3
_DIFFERENCES_SHOWN = 5


def load_generator(path: str | Path) -> LoadedGenerator:
    """A generator ready to use, on the CPU, in evaluation mode and without gradients. Changes nothing on disk.

    Args:
        path: a checkpoint, whose averaged generator (EMA) is taken; or ``best_generator.pth``, with
            ``best_generator.json`` beside it. Of a folder: the best pair in it where there is one, else the newest good
            checkpoint of its run, or of the run in its folder ``checkpoints``.

    Every byte is compared with its digest before it is believed, and nothing in the file is run as code.

    Raises:
        NoCheckpoint: there is no such file, or no good one in that folder.
        DamagedCheckpoint: the bytes are not those that were written, or nothing vouches for them.
        UnreadableCheckpoint: it cannot be read now, or is no file of torch.
        RefusedCheckpoint: it holds more than plain types and tensors.
        DoesNotFit: it does not tell how its generator is built.
    """
    path = Path(path)
    notes: tuple[str, ...] = ()
    if path.is_dir():
        path, notes = _in_folder(path)
    if path.suffix == ".json":
        path = path.with_suffix(names.SUFFIX)
    try:
        entry = catalog.read(path)
    except FileNotFoundError:
        entry = None
    if entry is not None and entry.state in (State.WHOLE, State.NEWER, State.UNREADABLE):
        return _from_checkpoint(_without_alias(entry), notes)
    if best_files.manifests(path):
        return _from_pair(path)
    if entry is None:
        raise NoCheckpoint(f"There is no file {path}.{_similar(path)}")
    if entry.state is State.OLDER:
        raise _unknown(path)
    return _from_checkpoint(entry)


def _in_folder(folder: Path) -> tuple[Path, tuple[str, ...]]:
    """The file of ``folder`` that is meant, and what was stepped over to it."""
    best = folder / best_files.GENERATOR
    if best_files.manifests(best):
        return best, ()
    there = _catalog(folder)
    runs = there.runs()
    run = runfile.read(there.shelf)
    if run is None and len(runs) > 1:
        raise NoCheckpoint(f"{there.folder} holds checkpoints of {len(runs)} runs. Name the file that you mean.")
    run = run or runfile.identify(there)
    if run is None:
        pairs = [str(path.with_suffix(names.SUFFIX)) for path in sorted(folder.glob(f"*/{best_files.MANIFEST}"))]
        below = f" Name one of the pairs below it: {some(pairs)}." if pairs else ""
        raise NoCheckpoint(f"There is no checkpoint of ganguard in {folder}.{below}")
    met = search.newest_valid(there, run, verified=True)
    if met.found is None:
        reasons = [f"  {note}" for note in met.notes]
        raise NoCheckpoint(f"{there.folder} holds no good checkpoint of its run {run.run}.", *reasons)
    return met.found.path, (*met.notes, f"Taken instead: {met.found.path}.") if met.notes else ()


def _catalog(folder: Path) -> Catalog:
    """The checkpoints of a folder, or of its folder ``checkpoints``; of pairs, those of its only data set.

    Raises:
        NoCheckpoint: it holds several.
    """
    for place in (folder, folder / "checkpoints"):
        found = [there for there in map(Catalog.of, runfile.shelves(place)) if there.entries] if place.is_dir() else []
        if len(found) > 1:
            several = ", ".join(str(there.shelf.pair.name if there.shelf.pair else "gan.py") for there in found)
            raise NoCheckpoint(f"{place} holds checkpoints of several runs: {several}. Name the file that you mean.")
        if found:
            return found[0]
    return Catalog.of(folder)


def _without_alias(entry: Entry) -> Entry:
    """The immutable file that an alias stands for, where it is good: the alias may be moved on at any moment."""
    with contextlib.suppress(CheckpointError):
        lasting = Catalog.beside(entry.path).by_its_own_name(entry)
        if lasting is not entry:
            envelope.verify(lasting.path)
        return lasting
    return entry


def _from_checkpoint(entry: Entry, notes: tuple[str, ...] = ()) -> LoadedGenerator:
    path = entry.path
    if entry.state is State.WHOLE and entry.summary and entry.summary.kind is Kind.COMPANION:
        raise DoesNotFit(f"{path} is the second file of a checkpoint and holds no generator. Name the first.")
    search.require_readable(entry)
    try:
        summary = from_json(envelope.verify(path))
    except DamagedCheckpoint as error:
        raise DamagedCheckpoint(f"{error}. Name another file, or its folder for the newest good one.") from error
    assert summary is not None  # it was understood before, and verified since
    loaded = body.load_file(path)
    if "ema" not in loaded:
        raise DoesNotFit(f"{path} holds no averaged generator: gan.py did not write it. {_OWN_NETWORK}")
    content.check(loaded, path)
    summary = spared.filled(summary, loaded, path)
    origin = GeneratorOrigin(
        file=path,
        epoch=summary.epoch,
        batch=summary.batch,
        step=summary.step,
        score=summary.score,
        means=summary.means,
        notes=notes,
    )
    config = loaded.get("config") or {}
    if config.get("network") == progressive_loaded.NETWORK:
        return _progressive(loaded, origin)
    return _made(str(config.get("network", "cgan")), config, loaded["ema"], origin, fixed=loaded.get("fixed"))


def _progressive(loaded: Mapping[str, Any], origin: GeneratorOrigin) -> LoadedGenerator:
    try:
        generator = progressive_loaded.of_checkpoint(loaded, origin)
    except (UsageError, TypeError, ValueError, KeyError, IndexError, AttributeError, RuntimeError) as error:
        raise DoesNotFit(f"{origin.file} does not tell how its generator is built. {_OWN_NETWORK}") from error
    _require_finite(generator.module.state_dict(), origin.file)
    return generator


def _from_pair(path: Path) -> LoadedGenerator:
    for _ in range(_TRIES):  # a training may replace the pair while it is read
        for manifest in best_files.manifests(path):
            weights = _weights(path, manifest.generator_digest)
            if weights is not None:
                origin = GeneratorOrigin(file=path, epoch=manifest.epoch, step=manifest.step, score=manifest.score)
                return _made(manifest.network, manifest.spec, weights, origin)
    raise DamagedCheckpoint(
        f"{path} is not the file that {path.with_suffix('.json').name} tells of: one of the two is damaged or was "
        "replaced. Put back both files of one pair, or name a checkpoint."
    )


def _weights(path: Path, digest: str) -> dict[str, Any] | None:
    """What the file with this digest holds; None where there is none, or it went while it was read."""
    file = best_files.find(path, digest)
    if file is None:
        return None
    try:
        weights = body.load_file(file)
    except UnreadableCheckpoint:
        if best_files.has(file, digest):
            raise
        return None
    return weights if best_files.has(file, digest) else None


def _made(
    network: str, config: Mapping[str, Any], weights: Any, origin: GeneratorOrigin, *, fixed: Any = None
) -> LoadedGenerator:
    """The one place that knows which kinds of networks there are."""
    if network != "cgan":
        raise DoesNotFit(f"{origin.file} holds a generator of the kind {network}, which this ganguard cannot build.")
    try:
        spec = CganSpec.from_config(config)
        module = as_stored.built(lambda: build_generator(spec), weights)
        shown = _fixed(fixed, spec)
    except as_stored.Unfit as error:
        raise _of_another(origin.file, error.differences) from error
    except (DoesNotFit, UsageError, RuntimeError) as error:
        raise DoesNotFit(f"{origin.file} does not tell how its generator is built. {error} {_OWN_NETWORK}") from error
    _require_finite(module.state_dict(), origin.file)
    return LoadedCgan(module, spec, origin, fixed=shown)


def _fixed(stored: Any, spec: CganSpec) -> tuple[Tensor, Tensor] | None:
    """Latents and label vectors of the sample grids; checkpoints may hold class numbers in place of vectors."""
    if stored is None:
        return None
    latents, labels = (stored.get(key) if isinstance(stored, dict) else None for key in ("latents", "labels"))
    if not isinstance(labels, Tensor) or not isinstance(latents, Tensor):
        raise DoesNotFit("It holds no latents and labels of sample grids.")
    rows = label_rows(labels, spec.label_names, multi_label=spec.multi_label) if spec.label_names else labels
    if latents.shape != (len(rows), spec.latent_size):
        raise DoesNotFit("It holds latents of sample grids that are another generator's.")
    return latents.float(), rows


def _of_another(file: Path, unfit: list[str]) -> DoesNotFit:
    lines = [f"  {line}" for line in unfit[:_DIFFERENCES_SHOWN]]
    if len(unfit) > _DIFFERENCES_SHOWN:
        lines.append(f"  and {len(unfit) - _DIFFERENCES_SHOWN} more")
    return DoesNotFit(f"The weights in {file} are not those of the generator that it tells of:", *lines)


def _require_finite(weights: Mapping[str, Tensor], file: Path) -> None:
    if not state.are_finite(weights.values()):
        raise CheckpointError(
            f"{file} holds parameters that are not finite; nothing can be made from it. Name another."
        )


_OWN_NETWORK = (
    "To use its weights, load them into the network that they were trained in: torch.load(…, weights_only=True)."
)


def _unknown(path: Path) -> CheckpointError:
    """Why a file that carries no digest, and has no JSON beside it, is not believed or cannot be rebuilt."""
    if path.name == best_files.DISCRIMINATOR:
        return DoesNotFit(f"{path} is the discriminator of a pair. Name {best_files.GENERATOR} beside it.")
    loaded = body.load_file(path)
    if "netG_state_dict" in loaded:
        return DoesNotFit(
            f"{path} was written by an older script and does not tell how its generator is built. {_OWN_NETWORK}"
        )
    if "progress" in loaded:
        return DamagedCheckpoint(
            f"{path} has lost its digest, so nothing vouches for its bytes. Name another checkpoint, or the folder."
        )
    return DoesNotFit(
        f"{path} holds weights, but nothing tells how their network is built: there is no "
        f"{path.with_suffix('.json').name} beside it. Put that back, or name a checkpoint."
    )


def _similar(path: Path) -> str:
    there = [p.name for p in path.parent.glob(f"*{names.SUFFIX}")] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, there, n=1)
    return f" Did you mean {path.parent / close[0]}?" if close else ""
