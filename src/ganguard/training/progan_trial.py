"""Trying a level before it is trained: whether it fits into the memory, and how long an image takes.

Nothing of the training changes: trials draw from a random stream of their own, and no optimizer steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ganguard.clock import Stopwatch
from ganguard.networks.progressive import ProgressiveCritic, ProgressiveGenerator, size_of
from ganguard.training.progan_schedule import Stage
from ganguard.training.progan_step import ProgressiveStep, out_of_memory, release_memory

_ENOUGH_S = 2.0  # of measuring on a CPU; what is larger is then reckoned
_FEW = 4  # images of a trial on a CPU, where all that are worked on at once would take long
_QUICK_S = 0.3
_TRIES = 3
_FADING = 0.5  # a fade takes the most memory


def multiplications(generator: ProgressiveGenerator, critic: ProgressiveCritic, level: int) -> int:
    """Of one image in one pass through both networks' 3x3 convolutions: what larger levels cost grows like that."""
    total = 0
    for network in (generator, critic):
        for index, block in enumerate(network.blocks[:level]):
            pixels = size_of(index + 1) ** 2
            total += pixels * sum(p.numel() for p in block.parameters() if p.ndim == 4)
    return total + generator.base.weight.numel() + 16 * critic.last_conv.weight.numel()


class Trials:
    """Runs both updates of a batch's piece, without stepping.

    Args:
        step: whose networks are tried.
        levels: the level under way and those to come.
        pieces: how many images of each level, by its number, are asked to be worked on at once.
    """

    def __init__(self, step: ProgressiveStep, levels: Sequence[int], pieces: Sequence[int]) -> None:
        self._step = step
        self._levels = levels
        self._asked = pieces
        self._device = step.generator.base.weight.device
        self.seconds: dict[int, float] = {}  # for one image of a level
        self.fitting: dict[int, int] = {}  # where fewer images fit than were asked for; 0: not even one

    def run(self, say: Callable[[str], None]) -> None:
        """Try the levels; tells what does not fit."""
        if self._device.type == "cpu":
            self._measure_on_cpu()
            return
        for level in self._levels:
            self._try_on_card(level, say)

    def _measure_on_cpu(self) -> None:
        """The small levels are measured, and a larger one is reckoned from the last of those."""
        watch = Stopwatch()
        for level in self._levels:
            if self.seconds and watch.seconds > _ENOUGH_S:
                last = max(self.seconds)
                cost = [multiplications(self._step.generator, self._step.critic, i) for i in (last, level)]
                self.seconds[level] = self.seconds[last] * cost[1] / cost[0]
                continue
            asked = self._asked[level]
            few = min(_FEW, asked)
            tries = [self._seconds_each(level, few)]
            count = asked if tries[0] * asked < _QUICK_S else few
            while len(tries) < _TRIES and watch.seconds < _ENOUGH_S:
                tries.append(self._seconds_each(level, count))
            self.seconds[level] = min(tries)  # the first is slower, and others may use the machine

    def _seconds_each(self, level: int, count: int) -> float:
        return self._updates(level, count) / count

    def _try_on_card(self, level: int, say: Callable[[str], None]) -> None:
        count = self._asked[level]
        while count and not self._fits(level, count):
            count //= 2
        if count:
            self.seconds[level] = self._updates(level, count) / count
        if count < self._asked[level]:
            self.fitting[level] = count
            say(_told(size_of(level), self._asked[level], count))
        release_memory(self._device)

    def _fits(self, level: int, count: int) -> bool:
        moments: list[Tensor] = []
        try:
            self._updates(level, count, moments)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            return False
        finally:
            self._clear()
        return True

    def _updates(self, level: int, count: int, moments: list[Tensor] | None = None) -> float:
        """Seconds for the gradients of ``count`` images; ``moments`` is given what Adam's would take."""
        step, stage = self._step, Stage(level, _FADING)
        stream = torch.Generator(self._device).manual_seed(0)
        shape = (count, step.generator.channels, size_of(level), size_of(level))
        reals = torch.randn(shape, generator=stream, device=self._device)
        latents = torch.randn(count, step.generator.latent_size, generator=stream, device=self._device)
        mix = torch.rand(count, 1, 1, 1, generator=stream, device=self._device)
        self._wait()
        watch = Stopwatch()
        torch.autograd.backward(step.critic_loss(reals, latents, mix, stage))
        torch.autograd.backward(step.generator_loss(latents, stage))
        if moments is not None:
            moments += self._moments()
        self._wait()
        seconds = watch.seconds
        self._clear()
        return seconds

    def _moments(self) -> list[Tensor]:
        trained = [p for network in (self._step.generator, self._step.critic) for p in network.parameters()]
        return [torch.empty_like(p) for p in trained for _ in range(2) if p.grad is not None]

    def _clear(self) -> None:
        self._step.generator.zero_grad(set_to_none=True)
        self._step.critic.zero_grad(set_to_none=True)

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        elif self._device.type == "mps":
            torch.mps.synchronize()


def _told(size: int, asked: int, fitting: int) -> str:
    if fitting:
        return (
            f"{size} px: {asked} images at once do not fit into the memory, {fitting} do. It is trained with those, "
            "and with more of them to a step."
        )
    return (
        f"{size} px does NOT fit into the memory, not even one image: training would end there. Close what else uses "
        "the card, or end at a smaller size with fewer --progressive-epochs; fewer --in-channels need a new start."
    )
