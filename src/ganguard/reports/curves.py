"""Curves of a run as a picture: losses, FID and images per second over the epochs."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganguard import marking
from ganguard.store import durable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, Any]]

SPEED = "images_per_second"
LEARNING_RATE = "learning_rate"
SIZE = "image_size"  # px, of a training whose images grow
NO_VALUES = {"epoch", "step", "images", SIZE}  # keys that say where, not what
_MARKED_UP_TO = 60  # epochs; beyond, single points run into each other
_THIN_FROM = 500  # epochs
_OUTLIERS = 0.02  # share of a panel's values that may lie outside, where they would flatten the rest
_MUCH = 4.0  # times the height of the other values, from which on such values lie outside
_WIDTH, _PANEL_HEIGHT, _DPI = 9.0, 2.8, 100  # inches, inches, pixels an inch


def save_curves(rows: Rows, path: str | Path, *, title: str = "") -> None:
    """Draw a run's history as a PNG at ``path``; without rows, nothing.

    One panel holds the values whose names begin with ``fid`` (the best is marked), one ``images_per_second``, one
    ``learning_rate`` where it changes, one all others. Where ``image_size`` changes, a line in all panels has the new
    one's name, and the speed's axis is logarithmic. Values that are not finite leave gaps. Drawn anew from all rows,
    so that nothing overlaps or lacks after a resume; the same rows give the same bytes with the same matplotlib. The
    file appears whole or not at all; it is not flushed to the disk, since it can be made again. Draws no random numbers
    and leaves matplotlib's settings alone.

    Args:
        rows: one dict a finished epoch: ``epoch`` (from 1), ``step`` (iterations), maybe ``images``, and named numbers;
            ``about`` says with what its score was made, and scores are compared only where that is equal.
        path: of the picture; its folder is made.
        title: a line above.

    Raises:
        OSError: it can't be written.
        ImportError: matplotlib is not there.
    """
    if not rows:
        return
    path = Path(path)
    with _matplotlib_by_itself():
        picture = _figure(rows, title)
        path.parent.mkdir(parents=True, exist_ok=True)
        with durable.appearing(path) as temporary:
            picture.savefig(temporary, format="png", dpi=_DPI, metadata=dict(marking.SOFTWARE))


def value_names(rows: Rows) -> list[str]:
    """Names of the numbers in a history, in the order in which they first come."""
    numbers = (n for row in rows for n, v in row.items() if n not in NO_VALUES and isinstance(v, int | float))
    return list(dict.fromkeys(numbers))


def shown_names(rows: Rows) -> list[str]:
    """``value_names`` without a learning rate that never changes."""
    rates = {row[LEARNING_RATE] for row in rows if LEARNING_RATE in row}
    return [name for name in value_names(rows) if name != LEARNING_RATE or len(rates) > 1]


def comparable(rows: Rows, name: str) -> list[Mapping[str, Any]]:
    """The rows that have a score, made with what the last one was made with (their ``about``)."""
    scored = [row for row in rows if name in row]
    return [row for row in scored if row.get("about") == scored[-1].get("about")]


def best_of(rows: Rows, name: str) -> Mapping[str, Any] | None:
    """The row with the lowest finite value of a name, of those that can be compared with the last."""
    finite = [row for row in comparable(rows, name) if math.isfinite(row[name])]
    return min(finite, key=lambda row: float(row[name]), default=None)


@contextlib.contextmanager
def _matplotlib_by_itself() -> Iterator[None]:
    """The person's own settings aside, and silent about a font cache that it can't keep in a read-only home."""
    log = logging.getLogger("matplotlib")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        import matplotlib.style

        with matplotlib.style.context("default"):
            yield
    finally:
        log.setLevel(level)


def _figure(rows: Rows, title: str) -> Figure:
    from matplotlib.figure import Figure

    names = shown_names(rows)
    scores = [n for n in names if n.startswith("fid")]
    others = [n for n in names if n not in (SPEED, LEARNING_RATE, *scores)]
    alone = ((_speed, [n for n in names if n == SPEED]), (_learning_rate, [n for n in names if n == LEARNING_RATE]))
    panels = [(kind, shown) for kind, shown in ((_losses, others), (_scores, scores), *alone) if shown]
    figure = Figure(figsize=(_WIDTH, _PANEL_HEIGHT * max(1, len(panels)) + 0.6), layout="constrained")
    axes = figure.subplots(max(1, len(panels)), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (draw, shown) in zip(axes, panels, strict=False):
        draw(axis, rows, shown)
        _finish(axis)
    _mark_sizes(list(axes), rows)
    _name_epochs(axes[-1], rows)
    if title:
        figure.suptitle(title, fontsize=12)
    return figure


def _losses(axis: Axes, rows: Rows, names: Sequence[str]) -> None:
    lines = {name: [float(row.get(name, math.nan)) for row in rows] for name in names}
    for name, values in lines.items():
        axis.plot(_epochs(rows), values, label=name, **_look(rows))
    axis.set_ylabel("epoch means")
    _keep_readable(axis, [v for values in lines.values() for v in values if math.isfinite(v)])
    axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9)


def _scores(axis: Axes, rows: Rows, names: Sequence[str]) -> None:
    for name in names:
        scored = comparable(rows, name)  # epochs in which it wasn't measured are no gap
        values = [float(row[name]) for row in scored]
        if others := [row for row in rows if name in row and row.get("about") != scored[-1].get("about")]:
            label = f"{name}, measured otherwise:\nnot comparable"
            axis.plot(_epochs(others), [row[name] for row in others], label=label, color="silver", **_look(others))
        line = axis.plot(_epochs(scored), values, label=name, **_look(scored))[0]
        if best := best_of(rows, name):
            label = f"best: {best[name]:.4g}\nin epoch {best['epoch']}"
            axis.plot(best["epoch"], best[name], "*", color=line.get_color(), markersize=14, label=label)
    axis.set_ylabel("FID (lower is better)")
    _keep_readable(axis, [v for n in names for row in rows if math.isfinite(v := float(row.get(n, math.nan)))])
    axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9)


def _speed(axis: Axes, rows: Rows, names: Sequence[str]) -> None:
    values = [float(row.get(names[0], math.nan)) for row in rows]
    axis.plot(_epochs(rows), values, color="tab:green", **_look(rows))
    axis.set_ylabel("images per second")
    shown = [v for v in values if math.isfinite(v) and v > 0] or [1.0]
    if len(_sizes(rows)) < 2:
        axis.set_ylim(0, 1.1 * max(shown))
        return
    axis.set_yscale("log")  # a size takes three times as long as the one before: all are to be seen
    axis.set_ylim(min(shown) / 1.5, 1.5 * max(shown))
    axis.yaxis.set_major_formatter("{x:,g}")


def _sizes(rows: Rows) -> list[tuple[int, float]]:
    """The first epoch of each size of the images, and that size."""
    found: list[tuple[int, float]] = []
    for row in rows:
        if SIZE in row and (not found or row[SIZE] != found[-1][1]):
            found.append((int(row["epoch"]), row[SIZE]))
    return found


def _mark_sizes(axes: Sequence[Axes], rows: Rows) -> None:
    if len(sizes := _sizes(rows)) < 2:
        return
    for epoch, size in sizes:
        for axis in axes:
            axis.axvline(epoch - 0.5, color="silver", linewidth=0.8, zorder=0, label=f"_{size:g} px")
        axes[0].annotate(
            f"{size:g} px", (epoch - 0.5, 1), xycoords=axes[0].get_xaxis_transform(), xytext=(1, 2),
            textcoords="offset points", fontsize=8, color="gray",
        )  # fmt: skip


def _learning_rate(axis: Axes, rows: Rows, names: Sequence[str]) -> None:
    having = [row for row in rows if names[0] in row]
    axis.plot(_epochs(having), [float(row[names[0]]) for row in having], color="tab:brown", **_look(having))
    axis.set_ylabel("learning rate")


def _epochs(rows: Rows) -> list[int]:
    return [int(row["epoch"]) for row in rows]


def _look(rows: Rows) -> dict[str, Any]:
    if len(rows) <= _MARKED_UP_TO:
        return {"linewidth": 1.3, "marker": "o", "markersize": 3}
    return {"linewidth": 1.0 if len(rows) < _THIN_FROM else 0.5}


def _finish(axis: Axes) -> None:
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)


def _name_epochs(axis: Axes, rows: Rows) -> None:
    from matplotlib.ticker import MaxNLocator

    last = rows[-1]
    seen = [f"{last[key]:,} {word}" for key, word in (("step", "steps"), ("images", "images")) if last.get(key)]
    first, end = int(rows[0]["epoch"]), int(last["epoch"])
    margin = max(0.5, (end - first) / 50)
    axis.set_xlim(first - margin, end + margin)
    axis.set_xlabel(f"epoch ({', '.join(seen)} until the end of epoch {end})" if seen else "epoch")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _keep_readable(axis: Axes, values: Sequence[float]) -> None:
    """Let a few values lie outside, and say so, where they would press the others flat."""
    ordered = sorted(values)
    cut = math.ceil(len(ordered) * _OUTLIERS) if len(ordered) > 4 else 0
    inner = ordered[cut : len(ordered) - cut]
    if not inner or (height := inner[-1] - inner[0]) <= 0:
        return
    if ordered[-1] - ordered[0] <= _MUCH * height:
        return
    bottom, top = max(ordered[0], inner[0] - height / 4), min(ordered[-1], inner[-1] + height / 4)
    axis.set_ylim(bottom - height / 20, top + height / 20)
    outside = sum(not bottom <= v <= top for v in values)
    axis.set_title(f"not in the picture: {outside} of {len(values)} values", loc="right", fontsize=9, color="gray")
