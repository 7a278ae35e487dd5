"""``ganguard``: the commands under one name. Each takes exactly the arguments of its script."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import ganguard
from ganguard.reports import console

_HELP = """\
usage: ganguard COMMAND …

  cgan         train a conditional GAN       (gan.py)
  progan       train a progressive GAN       (progan_local.py)
  checkpoints  look after the checkpoints    (checkpoint_manager.py)

ganguard COMMAND --help tells more; ganguard --version tells the version."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    command = words[0] if words else "--help"
    if command == "cgan":
        from ganguard.cli import cgan

        return cgan.main(words[1:], prog="ganguard cgan")
    if command == "progan":
        from ganguard.cli import progan

        return progan.main(words[1:], prog="ganguard progan")
    if command == "checkpoints":
        from ganguard.cli import checkpoints

        return checkpoints.main(words[1:], prog="ganguard checkpoints")
    if command == "--version":
        console.say(ganguard.__version__)
        return 0
    console.say_all(_HELP.splitlines(), stream=sys.stdout if command in ("--help", "-h") else sys.stderr)
    return 0 if command in ("--help", "-h") else 2
