"""``gan.py``: the command line of the conditional GAN."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganguard.cli import options, running
from ganguard.errors import UsageError
from ganguard.reports import console
from ganguard.store.resume import Request
from ganguard.training import run_names, runs_beside
from ganguard.training.cgan_config import NOT_OF_THE_RUN, CganConfig

if TYPE_CHECKING:
    from ganguard.data.sketch import Sketch

_EPILOG = """\
gan.py generate makes images from a checkpoint, gan.py compare shows several beside each other.
Training saves itself and goes on by itself: stop it with Ctrl+C, type the same command again.
Exit codes: 0 finished, 2 wrong usage, 3 no usable checkpoint, 4 folder in use, 5 stopped itself,
6 newest state not on disk, 128 + signal: stopped by that signal after saving."""


def parser(prog: str) -> argparse.ArgumentParser:
    parser = options.Parser(
        prog=prog,
        description="Train a conditional GAN that never loses its work.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    going_on = parser.add_argument_group("going on")
    going_on.add_argument(
        "--resume", action="store_true", help="demand a checkpoint (default: go on where there is one)"
    )
    going_on.add_argument(
        "--no-checkpoint", action="store_true", help="start afresh; the old run is set aside, not lost"
    )
    going_on.add_argument("--checkpoint-path", type=Path, metavar="FILE", help="go on from this checkpoint")
    going_on.add_argument(
        "--branch",
        action="store_true",
        help="with --checkpoint-path: go back to that file, even where training has gone on from it since; "
        "what is newer is set aside",
    )
    going_on.add_argument("--list-checkpoints", action="store_true", help="list the checkpoints and end")
    settings = parser.add_argument_group("settings")
    settings.add_argument("--config", type=Path, metavar="FILE", help="TOML file with the same names")
    options.add_options(settings, CganConfig)  # type: ignore[arg-type]  # a group takes arguments like a parser
    return parser


def main(argv: Sequence[str] | None = None, *, prog: str = "gan.py") -> int:
    """Run the command; returns the exit code."""
    words = sys.argv[1:] if argv is None else argv
    words = options.split_command(parser(prog), words, ("generate", "compare"))
    if words[:1] in (["generate"], ["compare"]):
        from ganguard.cli import cgan_pictures

        return cgan_pictures.main(words, prog)
    return running.run(lambda: _work(words, prog))


def _work(argv: Sequence[str] | None, prog: str) -> int:
    arguments = vars(parser(prog).parse_args(argv))
    going_on = {name: arguments.pop(name) for name in ("resume", "no_checkpoint", "checkpoint_path", "branch")}
    config_file, listing = arguments.pop("config"), arguments.pop("list_checkpoints")
    typed = {**(options.read_toml(config_file, CganConfig) if config_file else {}), **arguments}
    asked: CganConfig = options.merge(CganConfig, typed)
    folder = Path(asked.checkpoint_dir or Path(asked.run_dir) / "checkpoints")
    named: Path | None = going_on["checkpoint_path"]
    if named and len(named.parts) == 1 and not named.exists():
        named = folder / named  # a name from the list
    request = Request(
        required=going_on["resume"] or None,
        afresh=going_on["no_checkpoint"],
        file=named,
        branch=going_on["branch"],
    )
    if listing:
        if any(going_on.values()):
            raise UsageError("--list-checkpoints only lists; it cannot be combined with --resume and the like.")
        from ganguard.cli import checkpoints

        return checkpoints.show_list(folder, as_json=False)
    running.single_process()
    config: CganConfig = options.merge(CganConfig, typed, _recorded(asked, folder, request))
    request = replace(request, called=run_names.name_for(config.data))
    return _train(config, request, functools.partial(runs_beside.check_conditional, config, folder, request))


def _recorded(asked: CganConfig, folder: Path, request: Request) -> dict[str, Any]:
    """The settings of the checkpoint that training will go on from: they hold where nothing else was typed."""
    start, settings = running.settings_of(folder, request, lambda: runs_beside.conditional_beside(asked, folder))
    return options.recorded(CganConfig, settings, NOT_OF_THE_RUN, start)


def _train(config: CganConfig, request: Request, check: Callable[[Sketch], None]) -> int:
    with running.loading_libraries():
        from ganguard.training.cgan import CganTraining
    CganTraining(config, request, console.say, check).run()
    return 0
