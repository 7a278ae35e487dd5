"""``gan.py compare``: the same latents and labels through several checkpoints, in one picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ganguard.errors import DamagedCheckpoint, DoesNotFit, UsageError
from ganguard.networks.latents import draw_latents
from ganguard.networks.loaded import LoadedGenerator
from ganguard.networks.loading import load_generator
from ganguard.reports.comparison import Block, save_comparison
from ganguard.store import names
from ganguard.store.durable import why
from ganguard.store.summary import score_kind

_COLUMNS = 10
_ROWS = 2


def compare(
    files: Sequence[Path],
    out: Path,
    *,
    seed: int | None,
    device: str = "cpu",
    say: Callable[[str], None],
) -> list[str]:
    """Write the picture; returns which files were left out because they are damaged, in words.

    Args:
        files: checkpoints, in the order of the picture.
        out: a name that exists gets a number.
        seed: of the latents; None takes those of the run's sample grids, where one of the files holds them.

    Raises:
        CheckpointError: one cannot be used for another reason than damage, or none is good.
        UsageError: the picture cannot be written.
    """
    generators, damaged = _load(files, device)
    for generator in generators:
        for note in generator.origin.notes:
            say(note)
    _require_alike(generators)
    latents, rows, columns = _inputs(generators, seed)
    headings = [generators[0].present(row) for row in rows[:columns]]
    blocks = [Block(title=g.origin.position, lines=_lines(g), images=g.images_of(latents, rows)) for g in generators]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        path = names.free(out.parent, out.name)
        save_comparison(blocks, path, columns=columns, headings=headings)
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {why(error)}.") from error
    kinds = {score_kind(g.origin.score) for g in generators if g.origin.score}
    if len(kinds) > 1:
        say("Their scores were made in different ways, so they cannot be compared.")
    say(f"{', '.join(g.origin.position for g in generators)} beside each other: {path}")
    return damaged


def _load(files: Sequence[Path], device: str) -> tuple[list[LoadedGenerator], list[str]]:
    generators, damaged = [], []
    for file in files:
        try:
            generators.append(load_generator(file).to(device))
        except DamagedCheckpoint as error:
            damaged.append(str(error))
    if not generators:
        raise DamagedCheckpoint(*damaged)
    return generators, damaged


def _require_alike(generators: Sequence[LoadedGenerator]) -> None:
    first = generators[0]
    for other in generators[1:]:
        if _inside(other) != _inside(first):
            raise DoesNotFit(
                f"{other.origin.file} and {first.origin.file} hold generators of different kinds (labels, latents or "
                "size of the images), so the same latents and labels cannot go through both."
            )


def _inside(generator: LoadedGenerator) -> tuple[object, ...]:
    shape = generator.sample(1).shape
    return generator.latent_size, generator.label_names, generator.multi_label, tuple(shape)


def _inputs(generators: Sequence[LoadedGenerator], seed: int | None) -> tuple[Tensor, Tensor, int]:
    """Latents (N, latent_size), label vectors (N, labels), and columns."""
    fixed = next((g.fixed for g in generators if g.fixed), None)
    if seed is None and fixed is not None:
        latents, rows = fixed
        period = _period(rows)
    else:
        every = generators[0].rows(None)
        period = len(every)
        rows = every.repeat(_ROWS, 1)
        latents = draw_latents(len(rows), generators[0].latent_size, seed=seed or 0)
    columns = min(period, _COLUMNS)
    places = [row * period + column for row in range(_ROWS) for column in range(columns)]
    kept = torch.tensor([place for place in places if place < len(latents)])
    return latents[kept], rows[kept], columns


def _period(rows: Tensor) -> int:
    """After how many rows the first one comes again."""
    again = (rows[1:] == rows[0]).all(1).nonzero()
    return int(again[0]) + 1 if len(again) else len(rows)


def _lines(generator: LoadedGenerator) -> list[str]:
    """What is known of a checkpoint, a line each."""
    score = generator.origin.score
    about = (score or {}).get("about") or {}
    lines = [f"{_shown(score['name'])} {score['value']:.4g}" if score else "FID not measured here"]
    if "extractor" in about:
        lines.append(f"({about['extractor']}, {about.get('samples', '?')} images)")
    lines += [f"{name} {value:.4g}" for name, value in generator.origin.means.items() if name.startswith("loss")]
    if generator.origin.file.name != names.epoch_end(generator.origin.epoch or 0):
        lines.append(generator.origin.file.name)
    return lines


def _shown(name: str) -> str:
    return "FID" if name == "fid" else name
