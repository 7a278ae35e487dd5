"""How the run went, in a few lines for the terminal: a curve of each value, and what is visibly wrong.

Drawn with eight block characters; a library for charts (plotext) would bring global state and whole screens for this.
"""

from __future__ import annotations

import itertools
import math
import statistics
import sys
import textwrap
from collections.abc import Iterator, Sequence

from ganguard.reports.curves import SIZE, SPEED, Rows, best_of, comparable, shown_names

_BLOCKS = "▁▂▃▄▅▆▇█"
_ASCII = ".:-=+*#@"  # from low to high, for terminals without blocks, as Windows' cp1252
_NOT_FINITE = "x"
_CRITIC = "loss_d"
_NOTHING = 0.001  # what a critic's loss is at most, on average over an epoch, where it is said to be almost 0
_RISEN = 1.1  # times
_RECENT = 3  # epochs
_ENOUGH = 6  # epochs, or measurements, from which something is said about their course


def chart(rows: Rows, *, width: int = 80, encoding: str | None = None) -> list[str]:
    """Lines that show a history: a curve, first, last and best value of each number; then what is wrong, if anything.

    Args:
        rows: one dict a finished epoch, as for ``curves.save_curves``; ``fid…`` and ``images_per_second`` have a best
            value, losses have none.
        width: columns; at least 60 are taken.
        encoding: what the terminal shows; None: standard output's.
    """
    names = shown_names(rows)
    if not names:
        return []
    ramp = _ramp(encoding or getattr(sys.stdout, "encoding", None) or "ascii")
    called = max(map(len, names))
    notes = {name: _numbers(rows, name) for name in names}
    room = max(8, max(60, width) - called - max(map(len, notes.values())) - 4)
    lines = [f"{name:<{called}}  {_curve(_values(rows, name), room, ramp)}  {notes[name]}" for name in names]
    first, last = rows[0]["epoch"], rows[-1]["epoch"]
    shown = f"epoch {last}" if first == last else f"epochs {first} to {last}"
    wrapped = [
        line
        for text in _findings(rows, names)
        for line in textwrap.wrap(f"Look at this: {text}", max(60, width), subsequent_indent="  ")
    ]
    return [f"This run, {shown}:", *lines, *wrapped]


def _ramp(encoding: str) -> str:
    try:
        _BLOCKS.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return _ASCII
    return _BLOCKS


def _values(rows: Rows, name: str) -> list[float]:
    having = comparable(rows, name) if name.startswith("fid") else [row for row in rows if name in row]
    return [float(row[name]) for row in having]


def _numbers(rows: Rows, name: str) -> str:
    values = _values(rows, name)
    text = f"first {values[0]:.4g}  last {values[-1]:.4g}"
    finite = [v for v in values if math.isfinite(v)]
    if name == SPEED and finite:
        return f"{text}  best {max(finite):.4g}"
    best = best_of(rows, name) if name.startswith("fid") else None
    return f"{text}  best {best[name]:.4g} (epoch {best['epoch']})" if best else text


def _curve(values: Sequence[float], room: int, ramp: str) -> str:
    """One character a value, or a character for the mean of several; as wide as ``room``."""
    columns = min(room, len(values))
    bounds = [len(values) * i // columns for i in range(columns + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(bounds)]
    finite = [v for v in means if math.isfinite(v)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    return "".join(_character(v, low, high, ramp) for v in means).ljust(room)


def _character(value: float, low: float, high: float, ramp: str) -> str:
    if not math.isfinite(value):
        return _NOT_FINITE
    share = (value - low) / (high - low) if 0 < high - low < math.inf else 0.5
    return ramp[min(len(ramp) - 1, int(share * len(ramp)))]


def _findings(rows: Rows, names: Sequence[str]) -> Iterator[str]:
    for name in names:
        yield from _not_finite(rows, name)
    yield from _critic_at_nothing(rows)
    for name in names:
        if name.startswith("fid"):
            yield from _rising(rows, name)
    yield from _slow(rows)


def _not_finite(rows: Rows, name: str) -> Iterator[str]:
    bad = [row["epoch"] for row in rows if name in row and not math.isfinite(row[name])]
    if bad:
        many = f"{len(bad)} epochs, the first is" if len(bad) > 1 else "one epoch:"
        yield f"{name} is not finite in {many} {bad[0]}."


def _critic_at_nothing(rows: Rows) -> Iterator[str]:
    """Staying there counts: a loss that may be negative passes 0 on its way."""
    values = _values(rows, _CRITIC)
    last = values[-_RECENT:]
    if len(values) < _ENOUGH or not all(abs(v) < _NOTHING for v in last):
        return
    since = len(values) - next((i for i, v in enumerate(reversed(values)) if not abs(v) < _NOTHING), len(values))
    epochs = [row["epoch"] for row in rows if _CRITIC in row]
    yield (
        f"{_CRITIC} has been within {_NOTHING} of 0 since epoch {epochs[since]}. "
        "With a hinge or logistic loss the critic then tells all images apart."
    )


def _rising(rows: Rows, name: str) -> Iterator[str]:
    """The last third's later half is above its earlier one, and its end above both its beginning and the best."""
    scored = [row for row in comparable(rows, name) if math.isfinite(row[name])]
    best = best_of(scored, name)
    third = scored[-max(_RECENT, len(scored) // 3) :]
    if len(scored) < _ENOUGH or best is None:
        return
    values = [float(row[name]) for row in third]
    half = len(values) // 2
    risen = statistics.median(values[-half:]) > statistics.median(values[:half])
    if risen and values[-1] > _RISEN * values[0] and values[-1] > _RISEN * float(best[name]):
        yield (
            f"{name} has risen from {values[0]:.4g} in epoch {third[0]['epoch']} to {values[-1]:.4g} in epoch "
            f"{third[-1]['epoch']}; the best was {best[name]:.4g} in epoch {best['epoch']}."
        )


def _slow(rows: Rows) -> Iterator[str]:
    """At one size of the images: larger ones take longer, as they should."""
    alike = [row for row in rows if row.get(SIZE) == rows[-1].get(SIZE)]
    speeds = [v for v in _values(alike, SPEED) if math.isfinite(v)]
    if len(speeds) < _ENOUGH:
        return
    before, now = statistics.median(speeds[:-_RECENT]), statistics.median(speeds[-_RECENT:])
    if now < before / 2:
        yield (
            f"the speed has fallen to less than half: {before:.0f} images/s before, "
            f"{now:.0f} in the last {_RECENT} epochs."
        )
