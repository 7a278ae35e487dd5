"""``gan.py generate`` and ``gan.py compare``: pictures of generators that were trained."""

from __future__ import annotations

import argparse
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from ganguard.cli import options, running
from ganguard.errors import EXIT_NO_CHECKPOINT, EXIT_SIGNAL_BASE, UsageError
from ganguard.reports import console
from ganguard.training.chosen import Places

_FORMS = "an epoch's number, a file, a folder, or best"
_EPILOG = """\
Safe beside a running training, whose checkpoints are only read. Exit codes: 0 done, 2 wrong usage, 3 a checkpoint is
missing, damaged, or of another kind."""


def main(words: Sequence[str], prog: str) -> int:
    """Run ``generate`` or ``compare``, the first of ``words``; returns the exit code."""
    command, *rest = words
    return running.run(lambda: _interruptible(command, rest, f"{prog} {command}"))


def _interruptible(command: str, words: Sequence[str], prog: str) -> int:
    try:
        return _generate(words, prog) if command == "generate" else _compare(words, prog)
    except KeyboardInterrupt:
        console.say("Stopped; what was written stays.", stream=sys.stderr)
        return EXIT_SIGNAL_BASE + signal.SIGINT


def _parser(prog: str, description: str) -> argparse.ArgumentParser:
    return options.Parser(
        prog=prog,
        description=description,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def _add_places(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("--run-dir", type=Path, default=Path(), metavar="DIR", help="the run's folder (default: .)")
    parser.add_argument(
        "--checkpoint-dir", type=Path, metavar="DIR", help="where the checkpoints are (default: RUN_DIR/checkpoints)"
    )
    options.add_machine(parser)
    return parser


def generate_parser(prog: str) -> argparse.ArgumentParser:
    parser = _parser(prog, "Make images with a trained generator: single files and a grid.")
    parser.add_argument(
        "--checkpoint", metavar="WHICH", help=f"{_FORMS} (default: the newest good checkpoint); its average is used"
    )
    labels = parser.add_mutually_exclusive_group()
    labels.add_argument(
        "--class", dest="class_", metavar="NAME", help="by name, or by number from 0 (default: all in turn)"
    )
    labels.add_argument(
        "--attributes", metavar="NAME,NAME", help="those that the images have; none for images without any"
    )
    parser.add_argument("--count", type=int, default=64, metavar="N", help="how many images (default: 64)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="the same seed, the same images (default: 0)")
    parser.add_argument(
        "--truncation", type=float, metavar="X", help="such as 0.7: more typical images, of less variety (default: off)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="a new folder; one that holds anything gets a number (default: RUN_DIR/generated)",
    )
    return _add_places(parser)


def compare_parser(prog: str) -> argparse.ArgumentParser:
    parser = _parser(prog, "Show the same latents and labels through several checkpoints, with FID and losses beside.")
    parser.add_argument("which", nargs="+", metavar="EPOCH", help=_FORMS)
    parser.add_argument("--seed", type=int, metavar="N", help="of the latents (default: those of the sample grids)")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="a PNG; a name that exists gets a number (default: in RUN_DIR/samples)"
    )
    return _add_places(parser)


def _generate(words: Sequence[str], prog: str) -> int:
    asked = generate_parser(prog).parse_args(words)
    if asked.count < 1:
        raise UsageError(f"--count must be at least 1, not {asked.count}.")
    _require_seed(asked.seed)
    if asked.truncation is not None and not asked.truncation > 0:
        raise UsageError(f"--truncation must be above 0, such as 0.7, not {asked.truncation}.")
    file = _places(asked).find(asked.checkpoint)
    with running.loading_libraries():
        from ganguard.networks.loading import load_generator
        from ganguard.training import devices, generate
    devices.use_threads(asked.threads)
    generator = load_generator(file).to(devices.best_for(asked.device))
    for note in generator.origin.notes:
        console.say(note, stream=sys.stderr)
    attributes = None if asked.attributes is None else _names(asked.attributes)
    pictures = generate.Pictures(
        count=asked.count,
        labels=generate.as_labels(generator, asked.class_, attributes),
        seed=asked.seed,
        truncation=asked.truncation,
    )
    generate.write_pictures(generator, pictures, asked.out or asked.run_dir / "generated", say=console.say)
    return 0


def _compare(words: Sequence[str], prog: str) -> int:
    asked = compare_parser(prog).parse_args(words)
    which = list(dict.fromkeys(asked.which))
    if len(which) < 2:
        raise UsageError(f"Name at least two to compare, such as: {prog} 5 10")
    _require_seed(asked.seed)
    places = _places(asked)
    files = [places.find(word) for word in which]
    out = asked.out or asked.run_dir / "samples" / f"compare_{_file_part(which)}.png"
    if out.suffix.lower() != ".png":
        raise UsageError(f"--out {out} must end in .png.")
    with running.loading_libraries():
        from ganguard.training import compare, devices
    devices.use_threads(asked.threads)
    damaged = compare.compare(files, out, seed=asked.seed, device=devices.best_for(asked.device), say=console.say)
    for text in damaged:
        console.say(f"Left out: {text}", stream=sys.stderr)
    return EXIT_NO_CHECKPOINT if damaged else 0


def _require_seed(seed: int | None) -> None:
    if seed is not None and seed < 0:
        raise UsageError(f"--seed must be at least 0, not {seed}.")


def _places(asked: argparse.Namespace) -> Places:
    return Places(checkpoints=asked.checkpoint_dir or asked.run_dir / "checkpoints", models=asked.run_dir / "models")


def _names(typed: str) -> list[str]:
    """Names between commas; ``none`` is none of them."""
    names = [name.strip() for name in typed.split(",") if name.strip()]
    return [] if [name.casefold() for name in names] == ["none"] else names


def _file_part(words: Sequence[str]) -> str:
    return re.sub(r"\W+", "_", "_".join(Path(word).stem for word in words), flags=re.ASCII)[:80]
