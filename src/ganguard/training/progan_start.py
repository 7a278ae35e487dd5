"""What a start tells beforehand: images, epochs, time and disk of each level."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch

from ganguard.networks.progressive import ProgressiveCritic, ProgressiveGenerator, size_of
from ganguard.reports.console import counted, duration, size
from ganguard.training.progan_config import SIZES, ProganConfig
from ganguard.training.progan_schedule import Phase, Schedule

FEW_IMAGES = 100_000  # a level that sees fewer is warned about
_OF_THE_PAPER = "the paper: 1.2 million"
_FLOAT = 4  # bytes
_A_TENSOR = 320  # bytes that the format takes for each, beside its values
_BESIDE = 20_000  # random states, settings, history, the two summaries
_BESIDE_ENDS = 5  # pairs that are kept beside each size's end


def in_use(network: torch.nn.Module, level: int) -> list[torch.nn.Parameter]:
    """What gets gradients somewhere in the fade to ``level``, and so has moments at its end."""
    layers = ("to_image", "from_image")
    found = []
    for name, parameter in network.named_parameters():
        layer, *rest = name.split(".")
        index = int(rest[0]) if rest[0].isdigit() else -1
        used = index in (level - 1, level) if layer in layers else index < level
        found += [parameter] if used else []
    return found


def pair_bytes(generator: ProgressiveGenerator, critic: ProgressiveCritic, level: int) -> int:
    """About how large a pair is at ``level``: all weights, the average of the generator, moments of what is in use."""
    weights = [*generator.parameters(), *generator.parameters(), *critic.parameters()]
    trained = [*in_use(generator, level), *in_use(critic, level)]
    tensors = len(weights) + 3 * len(trained)  # two moments and a count of steps of each
    return _FLOAT * sum(p.numel() for p in (*weights, *trained, *trained)) + tensors * _A_TENSOR + _BESIDE


def largest_in_all(schedule: Schedule, pairs: Mapping[int, int], *, aliases_are_copies: bool) -> int:
    """Bytes that the checkpoints of a training take at most.

    Args:
        pairs: bytes of one, by level.
        aliases_are_copies: where the folder's files cannot be protected, the fixed names take a pair more.
    """
    beside = _BESIDE_ENDS + aliases_are_copies
    return sum(pairs[phase.level] for phase in schedule.phases) + beside * pairs[schedule.phases[-1].level]


def table(
    schedule: Schedule,
    *,
    images: int,
    batch_sizes: Sequence[int],
    accumulation: int,
    seconds: Mapping[int, float],
    pairs: Mapping[int, int],
    kept: int,
    free: int,
    seen: int,
) -> Iterator[str]:
    """Lines for the levels from the one under way on.

    Args:
        images: in an epoch.
        batch_sizes: images that are worked on at once, by level.
        seconds: for one image, by level, as far as known.
        pairs: bytes of a checkpoint, by level; of all levels of the schedule.
        kept: bytes that the checkpoints take in all.
        free: bytes on their disk.
        seen: images seen so far.
    """
    phases = [phase for phase in schedule.phases if phase.ends > max(seen, phase.fades_from)]
    yield "    size   epochs     images  fading in   batch   expected    a pair"
    for phase in phases:
        left = phase.ends - max(seen, phase.fades_from)
        fading = max(0, min(phase.fade, phase.fades_from + phase.fade - seen))
        batch = f"{batch_sizes[phase.level]}x{accumulation}"
        time = duration(left * seconds[phase.level]) if phase.level in seconds else "?"
        yield (
            f"{size_of(phase.level):>5} px {left / images:>8.4g} {left:>10,} {fading:>10,} {batch:>7} "
            f"{'~ ' + time:>10} {size(pairs[phase.level]):>9}"
        )
    yield _total(phases, seconds, seen)
    yield (
        f"Checkpoints will take up to {size(kept)} in all: each size's end, the two newest, a save within an epoch, an "
        "emergency, and one that is being written."
    )
    if kept > free:
        yield f"Note: only {size(free)} are free there. Training begins all the same, and tells where a save fails."
    few = [f"{size_of(p.level)}" for p in phases if p.ends - p.fades_from < FEW_IMAGES]
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


def sizes_left_out(config: ProganConfig) -> list[str]:
    """Sizes that the epochs do not reach, or that the networks do not have, in words."""
    last, given = SIZES.index(config.image_size), len(config.progressive_epochs)
    if config.stabilize_kimg is not None or config.progressive_epochs == ProganConfig().progressive_epochs:
        return []
    if given <= last:
        return [
            f"The networks go up to {SIZES[last]} px and PROGRESSIVE_EPOCHS has {counted(given, 'number')}: the "
            f"training ends at {SIZES[given - 1]} px."
        ]
    if given > last + 1:
        return [
            f"PROGRESSIVE_EPOCHS has numbers for sizes up to {SIZES[given - 1]} px, but this run's networks end at "
            f"{SIZES[last]} px: what is beyond does nothing. Larger images need a new run, with --no-load-model."
        ]
    return []
