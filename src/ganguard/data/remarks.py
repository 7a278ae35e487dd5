"""What a set's images are like, as far as another setting would suit them better; and the remarks on that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ganguard.data.decode import Look
from ganguard.data.listing import counted

_MOST = 0.95  # of the images: of so many, nearly all is said
_SMALLEST = 4


@dataclass(frozen=True)
class Seen:
    """Of the images of a set: how many there are, were enlarged, are gray, are the first of several frames.

    ``fitting`` is the largest power of two that nearly all of them have on both sides.
    """

    images: int
    enlarged: int
    fitting: int
    gray: int
    several: int


class Names(NamedTuple):
    """The options that a remark can recommend."""

    image_size: str
    sizes: Sequence[int]
    channels: str


def summed_up(looks: Sequence[Look]) -> Seen | None:
    """None for no images."""
    if not looks:
        return None
    sides = sorted(look.side for look in looks)
    side = sides[int((1 - _MOST) * len(sides))]
    return Seen(
        images=len(looks),
        enlarged=sum(look.enlarged for look in looks),
        fitting=max(_SMALLEST, 1 << (side.bit_length() - 1)),
        gray=sum(look.gray for look in looks),
        several=sum(look.several for look in looks),
    )


def remarks(seen: Seen, *, image_size: int, channels: int, names: Names) -> Iterator[str]:
    """Lines for a person; none where the settings suit."""
    if seen.enlarged:
        smaller = [size for size in names.sizes if seen.fitting >= size and size < image_size]
        advice = f" A new run with {names.image_size} {max(smaller)} enlarges hardly any." if smaller else ""
        yield f"{_share(seen.enlarged, seen, 'smaller')} than {image_size:,} px and enlarged.{advice}"
    if channels == 3 and seen.gray >= _MOST * seen.images:
        yield (
            f"{_share(seen.gray, seen, 'gray')}, and trained as RGB. A new run with {names.channels} 1 makes gray "
            f"ones, and takes a third of the memory for images."
        )
    if channels == 1 and seen.gray < seen.images:
        coloured = seen.images - seen.gray
        keeps = f"A new run with {names.channels} 3 keeps the colours."
        yield f"{_share(coloured, seen, 'in colour')}, and made gray. {keeps}"
    if seen.several:
        what = "holds several pictures" if seen.several == 1 else "hold several pictures"
        yield f"{counted(seen.several)} {what} (pages or frames): only the first of each is used."


def _share(count: int, seen: Seen, what: str) -> str:
    if count == seen.images:
        return f"All {counted(count)} are {what}" if count > 1 else f"The image is {what}"
    return f"{count:,} of {counted(seen.images)} {'is' if count == 1 else 'are'} {what}"
