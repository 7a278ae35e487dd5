"""Schedules: pure functions of the position, so that a resume needs nothing but the position."""

from __future__ import annotations


def linear_decay(*, images_seen: int, images_an_epoch: int, epochs: int, decay_epochs: int) -> float:
    """The factor of the learning rate: 1, then falling linearly to 0 over the last ``decay_epochs`` epochs.

    It is that of CycleGAN's official code (Zhu et al. 2017, section 4), image by image rather than epoch by epoch.
    0 decay epochs: always 1. The batch after ``images_seen`` images is trained with it, so it never is 0 there.
    """
    left = epochs * images_an_epoch - images_seen
    falling = decay_epochs * images_an_epoch
    return min(1.0, max(0.0, left / falling)) if falling else 1.0
