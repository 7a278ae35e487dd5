"""``progan_local.py``: the command line of the progressive GAN."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganguard.cli import options, running
from ganguard.cli.constants import edited
from ganguard.errors import UsageError
from ganguard.reports import console
from ganguard.store.resume import Request
from ganguard.store.shelf import Shelf
from ganguard.training import runs_beside
from ganguard.training.progan_config import NOT_OF_THE_RUN, ProganConfig

if TYPE_CHECKING:
    from ganguard.data.sketch import Sketch

_SIZES = (
    *("batch_sizes", "progressive_epochs", "img_size", "start_train_at_img_size"),
    *("stabilize_kimg", "fade_kimg"),
)
_EPILOG = """\
Training saves itself and goes on by itself: stop it with Ctrl+C, type the same command again.
PROG generate --help makes images from what was trained.
Settings are taken from the command line, the constants at the top of progan_local.py that were edited,
--config FILE, the checkpoint, the defaults, in this order.
Exit codes: 0 finished, 2 wrong usage, 3 no usable checkpoint, 4 folder in use, 5 stopped itself,
6 newest state not on disk, 128 + signal: stopped by that signal after saving."""


def parser(prog: str) -> argparse.ArgumentParser:
    parser = options.Parser(
        prog=prog,
        description="Train a progressive GAN that never loses its work.",
        epilog=_EPILOG.replace("PROG", prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    going_on = parser.add_argument_group("going on (see also --load-model, --checkpoint-gen)")
    nothing = argparse.SUPPRESS  # only what is typed appears in the result
    going_on.add_argument(
        "--resume", dest="load_model", action="store_true", default=nothing, help="the same as --load-model"
    )
    going_on.add_argument(
        "--no-checkpoint", dest="load_model", action="store_false", default=nothing, help="the same as --no-load-model"
    )
    going_on.add_argument(
        "--checkpoint-path", dest="checkpoint_gen", default=nothing, metavar="FILE", help="the same as --checkpoint-gen"
    )
    going_on.add_argument(
        "--branch",
        action="store_true",
        help="with --checkpoint-gen: go back to that file, even where training has gone on from it since; "
        "what is newer is set aside",
    )
    going_on.add_argument(
        "--other-images", action="store_true", help="go on though DATA_DIR holds other images than the run has had"
    )
    settings = parser.add_argument_group("settings")
    settings.add_argument("--config", type=Path, metavar="FILE", help="TOML file with the same names")
    options.add_options(settings, ProganConfig)  # type: ignore[arg-type]  # a group takes arguments like a parser
    return parser


def main(
    argv: Sequence[str] | None = None, *, prog: str = "progan_local.py", constants: Mapping[str, Any] | None = None
) -> int:
    """Run the command; returns the exit code.

    Args:
        constants: the settings at the top of ``progan_local.py``, by their names in capitals; those that differ
            from the defaults count as edited.
    """
    words = options.split_command(parser(prog), sys.argv[1:] if argv is None else argv, ("generate",))
    if words[:1] == ["generate"]:
        from ganguard.cli import progan_pictures

        return progan_pictures.main(words[1:], prog=f"{prog} generate", constants=constants or {})
    return running.run(lambda: _work(words, prog, constants or {}))


def _work(argv: Sequence[str], prog: str, constants: Mapping[str, Any]) -> int:
    arguments = vars(parser(prog).parse_args(argv))
    config_file, branch, other = (arguments.pop(name) for name in ("config", "branch", "other_images"))
    asked_for = (arguments, edited(constants), options.read_toml(config_file, ProganConfig) if config_file else {})
    # How many sizes there are may stand in the checkpoint only, which is not found yet.
    typed: ProganConfig = options.merge(ProganConfig, *(without_sizes(values) for values in asked_for))
    asked = runs_beside.settled(typed)
    request = _request(asked, arguments, branch=branch)
    running.single_process()
    recorded = _recorded(asked, request)
    config: ProganConfig = options.merge(ProganConfig, {"run_name": asked.run_name}, *asked_for, recorded)
    # A start afresh is not repeated by the command that a stop prints, nor by a constant that says so.
    console.go_on_with(*(["--load-model"] if asked.load_model is False else []))

    def check(sketch: Sketch) -> None:
        named = typed.run_name is not None
        runs_beside.check_progressive(config, request, sketch, named=named, other_images=other)

    return _train(config, request, check)


def without_sizes(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without those that must agree with the number of sizes."""
    return {name: value for name, value in values.items() if name not in _SIZES}


def _request(config: ProganConfig, typed: Mapping[str, Any], *, branch: bool) -> Request:
    """What is to be gone on from. A file that was ``typed`` is demanded, whatever the constants say.

    Raises:
        UsageError: what was typed contradicts itself.
    """
    names_file = bool(typed.get("checkpoint_gen"))
    if config.load_model is False and not names_file:
        return Request(afresh=True, branch=branch)
    if typed.get("load_model") is False:
        raise UsageError("--no-load-model starts afresh; it cannot be combined with --checkpoint-gen.")
    return Request(
        required=names_file or config.load_model is True,
        file=config.named_file(config.checkpoint_gen),
        companion=config.named_file(config.checkpoint_critic),
        branch=branch,
    )


def _recorded(asked: ProganConfig, request: Request) -> dict[str, Any]:
    """The settings of the checkpoint that training will go on from: they hold where nothing else was asked for."""
    shelf = Shelf(Path(asked.weights_dir), asked.layout)
    start, settings = running.settings_of(shelf, request, lambda: runs_beside.progressive_beside(asked))
    return options.recorded(ProganConfig, settings, NOT_OF_THE_RUN, start)


def _train(config: ProganConfig, request: Request, check: Callable[[Sketch], None]) -> int:
    with running.loading_libraries():
        from ganguard.training.progan import ProganTraining
    ProganTraining(config, request, console.say, check).run()
    return 0
