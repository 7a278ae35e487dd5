"""Commands as a person types them."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

MANAGER = "checkpoint_manager.py"


def typed(words: Iterable[object]) -> str:
    """``words`` as one line for this system's shell, quoted where that is needed."""
    plain = [str(word) for word in words]
    return subprocess.list2cmdline(plain) if sys.platform == "win32" else shlex.join(plain)


def manager(*options: object) -> str:
    """The manager's command with ``options``, as it can be typed in this folder: who installed ganguard has no file."""
    return typed([*(("python", MANAGER) if Path(MANAGER).is_file() else ("ganguard", "checkpoints")), *options])
