"""``progan_local.py generate``: the command line."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ganguard.cli import options, progan, running
from ganguard.cli.constants import edited
from ganguard.errors import EXIT_SIGNAL_BASE, NoCheckpoint, UsageError
from ganguard.reports import console
from ganguard.store import named, resume
from ganguard.store.catalog import Catalog
from ganguard.store.resume import Request
from ganguard.store.shelf import Shelf
from ganguard.training import runs_beside
from ganguard.training.progan_config import SIZES, ProganConfig


def parser(prog: str) -> argparse.ArgumentParser:
    parser = options.Parser(
        prog=prog,
        description="Make images with a trained generator: single files, a grid, a strip from latent to latent.",
        epilog="Safe beside a running training, whose checkpoints are only read.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="a generator's file (default: the newest); its average is used"
    )
    parser.add_argument(
        "--data-dir", default=argparse.SUPPRESS, metavar="DIR", help="whose newest it is (default: as for training)"
    )
    parser.add_argument(
        "--run-name", default=argparse.SUPPRESS, metavar="NAME", help="whose newest it is (default: of DATA_DIR)"
    )
    parser.add_argument(
        "--weights-dir", default=argparse.SUPPRESS, metavar="DIR", help="where it lies (default: as for training)"
    )
    parser.add_argument("--count", type=int, default=16, metavar="N", help="how many images (default: 16)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="the same seed, the same images (default: 0)")
    parser.add_argument(
        "--truncation", type=float, metavar="X", help="such as 0.7: more typical images, of less variety (default: off)"
    )
    parser.add_argument(
        "--size", type=int, choices=SIZES, metavar="PX", help="a smaller size (default: the one being trained)"
    )
    parser.add_argument(
        "--interpolate", type=int, metavar="N", help="a strip too: N images from each of 5 latents to the next"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("generated"),
        metavar="DIR",
        help="a new folder; one that holds anything gets a number (default: generated)",
    )
    options.add_machine(parser)
    return parser


def main(words: Sequence[str], *, prog: str, constants: Mapping[str, Any]) -> int:
    """Run the command; returns the exit code.

    Args:
        constants: the settings at the top of ``progan_local.py``.
    """
    return running.run(lambda: _interruptible(words, prog, constants))


def _interruptible(words: Sequence[str], prog: str, constants: Mapping[str, Any]) -> int:
    try:
        return _generate(words, prog, constants)
    except KeyboardInterrupt:
        console.say("Stopped; what was written stays.", stream=sys.stderr)
        return EXIT_SIGNAL_BASE + signal.SIGINT


def _whose(typed: ProganConfig, *, said: bool) -> ProganConfig:
    """With the name of the run that is meant; where nothing was ``said`` of it, and there is one only, that."""
    runs = [] if said else runs_beside.progressive_in(typed.weights_dir)
    return replace(typed, run_name=runs[0].name) if len(runs) == 1 else runs_beside.settled(typed)


def _file(config: ProganConfig, typed: Path | None) -> Path:
    """The generator's file that was typed, or the newest of the data folder.

    Raises:
        NoCheckpoint: there is none.
    """
    shelf = Shelf(Path(config.weights_dir), config.layout)
    file = config.named_file(str(typed)) if typed else None
    if file is not None and not named.means_the_newest(Catalog.of(shelf), file):
        return file
    with contextlib.suppress(NoCheckpoint):  # its advice is for trainings
        if start := resume.plan(shelf, Request(), verified=False).start:
            return start.path
    others = ((run, ("--run-name", run.name)) for run in runs_beside.progressive_in(config.weights_dir))
    raise NoCheckpoint(
        f"There is no whole checkpoint of {shelf}. Train first, or name a file with --checkpoint.",
        *(f"  This may be one:  {console.command_with('--checkpoint', str(e.path))}" for e in resume.to_name(shelf)),
        *runs_beside.named(others),
    )


def _generate(words: Sequence[str], prog: str, constants: Mapping[str, Any]) -> int:
    asked = parser(prog).parse_args(words)
    if asked.count < 1:
        raise UsageError(f"--count must be at least 1, not {asked.count}.")
    if asked.interpolate is not None and asked.interpolate < 2:
        raise UsageError(f"--interpolate must be at least 2, not {asked.interpolate}.")
    if asked.truncation is not None and not asked.truncation > 0:
        raise UsageError(f"--truncation must be above 0, such as 0.7, not {asked.truncation}.")
    with running.loading_libraries():
        from ganguard.training import devices, generate, progan_pictures
    devices.use_threads(asked.threads)
    given = {**progan.without_sizes(edited(constants)), **vars(asked)}
    config = _whose(options.merge(ProganConfig, given), said=not given.keys().isdisjoint(("data_dir", "run_name")))
    file = _file(config, asked.checkpoint)
    generator = progan_pictures.open_generator(file, say=console.say).to(devices.best_for(asked.device))
    for note in generator.origin.notes:
        console.say(note, stream=sys.stderr)
    if asked.size:
        generator.at_size(asked.size)
    pictures = generate.Pictures(count=asked.count, labels=None, seed=asked.seed, truncation=asked.truncation)
    folder = generate.new_folder(asked.out)
    generate.write_pictures(generator, pictures, folder, say=console.say)
    if asked.interpolate:
        progan_pictures.write_strip(
            generator,
            folder / "strip.png",
            stops=5,
            steps=asked.interpolate,
            seed=asked.seed,
            truncation=asked.truncation,
            say=console.say,
        )
    return 0
