"""Level and fade of the progressive GAN as a pure function of the images seen. Plain numbers, no torch needed.

Images seen are those shown to the critic. Each level fades in first and is stabilized then, but for the first one,
which has nothing to fade from.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from ganguard.networks.fading import alpha_at


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One level's share of the training, all in images seen."""

    level: int  # 0 is 4 px
    begins: int  # the first position of the level
    fades_from: int  # where its alpha is 0
    fade: int  # how many images it fades over; 0: it does not
    ends: int  # the last position but one: where it would be over

    def alpha(self, images: int) -> float:
        """The weight of the level against the one below, 0 to 1."""
        return alpha_at(images, fades_from=self.fades_from, fade=self.fade)

    def passes_left(self, seen: int, images: int) -> int:
        """At least so many passes through ``images`` images are left of it after ``seen`` ones, the last one cut."""
        return max(1, -(-(self.ends - max(seen, self.fades_from)) // images))


class Stage(NamedTuple):
    """What a batch is trained with."""

    level: int
    alpha: float


class Schedule:
    """The phases of a training, in order and without gaps.

    Args:
        phases: at least one; each begins where the one before ends.
    """

    def __init__(self, phases: Sequence[Phase]) -> None:
        self.phases = tuple(phases)
        self._begins = [phase.begins for phase in phases]

    def phase(self, images: int) -> Phase:
        """The phase of the batch that follows ``images`` seen ones; before the first and after the last: those."""
        return self.phases[max(0, bisect_right(self._begins, images) - 1)]

    def at(self, images: int) -> Stage:
        """Level and alpha of the batch that follows ``images`` seen ones."""
        phase = self.phase(images)
        return Stage(phase.level, phase.alpha(images))

    @property
    def total(self) -> int:
        """After so many images the training is finished."""
        return self.phases[-1].ends

    @property
    def last_level(self) -> int:
        """The largest level that sees images."""
        return max(phase.level for phase in self.phases if phase.ends > phase.fades_from)


def in_epochs(epochs: Sequence[float], *, images: int, first_level: int = 0, begins: int = 0) -> Schedule:
    """Each level for so many epochs, fading over the first half of them.

    Args:
        epochs: of each level from 4 px on; those below ``first_level`` are not trained.
        images: in an epoch.
        first_level: where the training begins, without a fade.
        begins: images seen before that.
    """
    phases = []
    for level in range(first_level, len(epochs)):
        length = round(epochs[level] * images)
        fade = 0 if level == first_level else length // 2
        phases.append(Phase(level=level, begins=begins, fades_from=begins, fade=fade, ends=begins + length))
        begins += length
    return Schedule(phases)


def in_images(*, levels: int, stabilize: int, fade: int, first_level: int = 0, begins: int = 0) -> Schedule:
    """The paper's form: ``stabilize`` images at the first level, then ``fade`` and ``stabilize`` images at each.

    With n images shown, T to stabilize, F to fade and L levels above the first: p = floor(n / (T + F)) and
    lod = max(L - p - max(n - p (T + F) - T, 0) / F, 0); the level is L - floor(lod) and alpha is 1 - frac(lod)
    (Karras et al. 2018, appendix A.1, and the official code). So a level begins one image after its fade does.
    """
    phases = [Phase(level=first_level, begins=begins, fades_from=begins, fade=0, ends=begins + stabilize)]
    for level in range(first_level + 1, levels):
        start = phases[-1].ends
        phases.append(Phase(level=level, begins=start + 1, fades_from=start, fade=fade, ends=start + fade + stabilize))
    return Schedule(phases)


def frozen(asked: Schedule, begun: Sequence[Phase], images: int) -> Schedule:
    """``asked`` from the position ``images`` on; what has begun stays as it was.

    A level that is passed keeps its place. The one under way keeps its beginning and its fade. Where another length
    is asked for than it has, it gets that, but ends neither before it has faded in nor before ``images``. The later
    ones follow it.

    Args:
        asked: what the settings say now, from the same first level on.
        begun: the phases that have begun, the last one is under way.
    """
    if not begun:
        return asked
    lengths = {phase.level: phase.ends - phase.fades_from for phase in asked.phases}
    now = begun[-1]
    length = now.ends - now.fades_from
    if lengths.get(now.level, length) != length:
        length = max(lengths[now.level], now.fade, images - now.fades_from)
    phases = [*begun[:-1], replace(now, ends=now.fades_from + length)]
    for phase in asked.phases:
        if phase.level > now.level:
            moved = phases[-1].ends - phase.fades_from
            phases.append(
                replace(
                    phase,
                    begins=phase.begins + moved,
                    fades_from=phase.fades_from + moved,
                    ends=phase.ends + moved,
                )
            )
    return Schedule(phases)
