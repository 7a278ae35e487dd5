"""Text that a terminal only shows: names of files and classes and what files hold may be anything."""

from __future__ import annotations

import re

# What moves a cursor, ends a line or turns the direction of reading: C0, DEL and C1, Unicode's two line ends, bidi
# embeddings, overrides and isolates.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def one_line(text: str) -> str:
    """``text`` with every control character written out: it is one line, and obeyed by no terminal."""
    return _CONTROLS.sub(lambda found: repr(found[0])[1:-1], text)
