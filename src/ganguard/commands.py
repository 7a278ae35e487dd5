"""Commands as a person types them."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterable


def typed(words: Iterable[object]) -> str:
    """``words`` as one line for this system's shell, quoted where that is needed."""
    plain = [str(word) for word in words]
    return subprocess.list2cmdline(plain) if sys.platform == "win32" else shlex.join(plain)
