"""How far a level of a progressive GAN has faded in. No torch needed."""

from __future__ import annotations


def alpha_at(images: int, *, fades_from: int, fade: int) -> float:
    """The weight of the level against the one below, 0 to 1, after ``images`` seen; a ``fade`` of 0 is none."""
    return min(1.0, max(0, images - fades_from) / fade) if fade else 1.0
