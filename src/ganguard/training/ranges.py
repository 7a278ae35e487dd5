"""The pixel range as a setting."""

from __future__ import annotations

from ganguard.errors import UsageError


def checked_range(text: str, name: str) -> str:
    """A pixel range in its one form.

    Raises:
        UsageError: it is none.
    """
    if text in ("auto", "full"):  # needs no library
        return text
    from ganguard.data.pixel_range import canonical

    try:
        return canonical(text)
    except ValueError as error:
        raise UsageError(f"{name}: {error}.") from error
