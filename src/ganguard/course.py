"""Where a training is in its loops: what is finished, and whether a batch's body or an epoch's tail is under way."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from ganguard.errors import UsageError


@dataclass
class Position:
    """The only clock of a training."""

    epoch: int = 0  # finished, with their tails
    batch: int = 0  # done in the epoch under way
    samples: int = 0  # of the epoch under way
    step: int = 0  # iterations over the whole run
    images: int = 0  # samples over the whole run

    @property
    def here(self) -> tuple[int, int, int]:
        return self.epoch, self.batch, self.step


class Data(enum.Enum):
    """How far the data of the epoch under way is."""

    UNASKED = enum.auto()
    RUNNING = enum.auto()
    ENDED = enum.auto()
    LEFT = enum.auto()  # the loop over it was broken off


def once_an_epoch() -> UsageError:
    return UsageError(
        "guard.batches may run once an epoch: put it into a loop over guard.epochs(n), "
        "and use a plain loop for a second loader."
    )


class Course:
    """Moves ``position`` on as the loops turn.

    Loops are told apart by a token, not by their generators being closed: a progress bar around one keeps it alive
    long after it was broken off, and closes it in the middle of the next epoch.
    """

    def __init__(self, position: Position) -> None:
        self.position = position
        self.in_epoch = False
        self.ended = False  # the loop over epochs or steps came to its end
        self.body: int | None = None  # samples of the batch whose body is under way
        self.data = Data.UNASKED
        self.accumulate = 1  # batches a step of the optimizer
        self._token = 0

    @property
    def in_tail(self) -> bool:
        """Whether the epoch's data is over and what follows it is under way."""
        return self.in_epoch and self.body is None and self.data in (Data.ENDED, Data.LEFT)

    @property
    def between_steps(self) -> bool:
        """Whether nothing is half done: the last batch's body is over, and the next one is waited for."""
        return self.body is None and self.data is Data.RUNNING and self.at_boundary

    @property
    def at_boundary(self) -> bool:
        """Whether accumulated steps are complete here: gradients are not saved."""
        return self.position.batch % self.accumulate == 0

    @property
    def step_under_way(self) -> int:
        """The step that what is logged now belongs to: the one in whose body we are, or the last one."""
        return self.position.step + (not (self.in_tail or self.ended))

    @property
    def step_scored(self) -> int:
        """The step after which the parts are as they are now, at the next possible save."""
        return self.position.step if self.in_epoch and self.body is None else self.step_under_way

    def begin_epoch(self) -> None:
        self.in_epoch, self.ended, self.data, self.accumulate = True, False, Data.UNASKED, 1

    def end_epoch(self) -> None:
        self.leave_body()
        p = self.position
        p.epoch, p.batch, p.samples = p.epoch + 1, 0, 0
        self.in_epoch, self.data = False, Data.UNASKED

    def begin_data(self) -> int:
        """A loop over the epoch's data begins, or goes on after a break; returns its token.

        Raises:
            UsageError: there was one in this epoch, and it was not broken off.
        """
        if self.data not in (Data.UNASKED, Data.LEFT):
            raise once_an_epoch()
        return self.begin_loop()

    def begin_loop(self) -> int:
        self.data, self.ended = Data.RUNNING, False
        self._token += 1
        return self._token

    def leave_loop(self, token: int) -> None:
        """The loop was broken off, maybe some time ago."""
        if token == self._token and self.data is Data.RUNNING:
            self.leave_body()

    def leave_body(self) -> None:
        """The body under way was left by ``break`` or ``return``: its batch counts as done."""
        if self.body is not None:
            self.count(self.body)
            self.body = None
            self.data = Data.LEFT

    def count(self, samples: int) -> None:
        p = self.position
        p.batch, p.samples = p.batch + 1, p.samples + samples
        p.step, p.images = p.step + 1, p.images + samples
