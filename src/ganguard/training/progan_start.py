"""What a start tells beforehand: images, epochs, time and disk of each level."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch

from ganguard.networks.progressive import ProgressiveCritic, ProgressiveGenerator, size_of
from ganguard.reports.console import duration, size
from ganguard.training.progan_schedule import Phase, Schedule

FEW_IMAGES = 100_000  # a level that sees fewer is warned about
_OF_THE_PAPER = "the paper: 1.2 million"
_FLOAT = 4  # bytes
_BESIDE_ENDS = 5  # pairs that are kept beside each size's end


def in_use(network: torch.nn.Module, level: int) -> int:
    """Parameters that get gradients somewhere in the fade to ``level``, and so have moments at its end."""
    layers = ("to_image", "from_image")
    count = 0
    for name, parameter in network.named_parameters():
        layer, *rest = name.split(".")
        index = int(rest[0]) if rest[0].isdigit() else -1
        used = index in (level - 1, level) if layer in layers else index < level
        count += parameter.numel() if used else 0
    return count


def pair_bytes(generator: ProgressiveGenerator, critic: ProgressiveCritic, level: int) -> int:
    """About how large a pair is at ``level``: all weights, the average of the generator, moments of what is in use."""
    weights = 2 * _count(generator) + _count(critic)
    moments = 2 * (in_use(generator, level) + in_use(critic, level))
    return (weights + moments) * _FLOAT


def _count(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def table(
    schedule: Schedule,
    *,
    images: int,
    batch_sizes: Sequence[int],
    accumulation: int,
    seconds: Mapping[int, float],
    pairs: Mapping[int, int],
    seen: int,
) -> Iterator[str]:
    """Lines for the levels from the one under way on.

    Args:
        images: in an epoch.
        batch_sizes: images that are worked on at once, by level.
        seconds: for one image, by level, as far as known.
        pairs: bytes of a checkpoint, by level; of all levels of the schedule.
        seen: images seen so far.
    """
    phases = [phase for phase in schedule.phases if phase.ends > max(seen, phase.fades_from)]
    yield "    size   epochs     images  fading in   batch   expected    a pair"
    for phase in phases:
        left = phase.ends - max(seen, phase.fades_from)
        batch = f"{batch_sizes[phase.level]}x{accumulation}"
        time = duration(left * seconds[phase.level]) if phase.level in seconds else "?"
        yield (
            f"{size_of(phase.level):>5} px {left / images:>8.4g} {left:>10,} {phase.fade:>10,} {batch:>7} "
            f"{'~ ' + time:>10} {size(pairs[phase.level]):>9}"
        )
    yield _total(phases, seconds, seen)
    kept = sum(pairs[phase.level] for phase in schedule.phases) + _BESIDE_ENDS * pairs[schedule.phases[-1].level]
    yield (
        f"Checkpoints will take up to {size(kept)}: each size's end, the two newest, a save within an epoch, an "
        "emergency, and one that is being written."
    )
    few = [f"{size_of(p.level)}" for p in schedule.phases if p.ends - p.fades_from < FEW_IMAGES]
    if few:
        yield (
            f"Note: {', '.join(few)} px will see fewer than {FEW_IMAGES:,} images ({_OF_THE_PAPER}). More images or "
            "more PROGRESSIVE_EPOCHS make better pictures."
        )


def _total(phases: Sequence[Phase], seconds: Mapping[int, float], seen: int) -> str:
    if any(phase.level not in seconds for phase in phases):
        return "Times are for this machine as it is now, with nothing else running."
    total = sum((p.ends - max(seen, p.fades_from)) * seconds[p.level] for p in phases)
    return f"Altogether about {duration(total)}: measured for a moment now and reckoned from that, saving not counted."
