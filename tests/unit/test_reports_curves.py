"""The picture of a run's curves: drawn from the history alone, whole or not at all."""

import itertools
import logging
import math
import os
import random
import subprocess
import sys
import time

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from ganguard.reports import curves


def history(epochs, fid_every=5):
    rows = []
    for epoch in range(1, epochs + 1):
        row = {"epoch": epoch, "step": 12 * epoch, "loss_d": 1 / epoch, "loss_g": 1.0, "images_per_second": 800.0}
        if epoch % fid_every == 0:
            row["fid"] = 40.0 + abs(epoch - 25)
        rows.append(row)
    return rows


def drawn(rows):
    """What the figure shows: for each panel its name and {line: (epochs, values)}."""
    figure = curves._figure(rows, "")
    return {
        axis.get_ylabel(): {
            line.get_label(): (list(line.get_xdata(orig=True)), list(line.get_ydata(orig=True))) for line in axis.lines
        }
        for axis in figure.axes
    }


def test_every_value_is_in_its_panel():
    panels = drawn(history(30))
    assert list(panels) == ["epoch means", "FID (lower is better)", "images per second"]
    assert panels["epoch means"]["loss_d"] == (list(range(1, 31)), [1 / e for e in range(1, 31)])
    assert panels["FID (lower is better)"]["fid"] == ([5, 10, 15, 20, 25, 30], [60, 55, 50, 45, 40, 45])


def test_a_learning_rate_has_a_panel_where_it_changes():
    constant = [row | {"learning_rate": 4e-4} for row in history(6)]
    assert drawn(constant) == drawn(history(6))
    falling = [row | {"learning_rate": 4e-4 / row["epoch"]} for row in history(6)]
    (line,) = drawn(falling)["learning rate"].values()
    assert line == ([1, 2, 3, 4, 5, 6], [4e-4 / e for e in range(1, 7)])


def test_sizes_are_marked_and_every_speed_is_to_be_seen():
    rows = [row | {"image_size": 4.0 * 2 ** (row["epoch"] // 4), "images_per_second": 9000 / 4 ** (row["epoch"] // 4)}
            for row in history(12)]  # fmt: skip
    figure = curves._figure(rows, "")
    assert [axis.get_ylabel() for axis in figure.axes] == ["epoch means", "FID (lower is better)", "images per second"]
    for axis in figure.axes:
        marks = {line.get_xdata()[0]: line.get_label() for line in axis.lines if line.get_label().endswith(" px")}
        assert marks == {0.5: "_4 px", 3.5: "_8 px", 7.5: "_16 px", 11.5: "_32 px"}
    assert [text.get_text() for text in figure.axes[0].texts] == ["4 px", "8 px", "16 px", "32 px"]
    figure.draw_without_rendering()
    axis = figure.axes[-1]
    heights = [axis.transAxes.inverted().transform(axis.transData.transform((e, 9000 / 4 ** (e // 4))))[1]
               for e in (1, 4, 8, 12)]  # fmt: skip
    assert all(0.05 < low < high - 0.2 and high < 0.95 for high, low in itertools.pairwise(heights))
    assert figure.axes[-1].get_yscale() == "log"
    assert curves._figure(history(12), "").axes[-1].get_yscale() == "linear"


def test_the_best_fid_is_marked():
    panel = drawn(history(40))["FID (lower is better)"]
    assert panel["best: 40\nin epoch 25"] == ([25], [40])


def test_scores_made_otherwise_are_not_compared():
    rows = [row | {"about": {"extractor": "a" if row["epoch"] < 20 else "b"}} for row in history(30)]
    rows[4]["fid"] = 1.0
    panel = drawn(rows)["FID (lower is better)"]
    assert panel["fid, measured otherwise:\nnot comparable"] == ([5, 10, 15], [1, 55, 50])
    assert panel["fid"] == ([20, 25, 30], [45, 40, 45])
    assert panel["best: 40\nin epoch 25"] == ([25], [40])


def test_values_that_are_not_finite_leave_gaps():
    rows = history(5)
    rows[1]["loss_g"], rows[2]["loss_g"] = math.nan, math.inf
    rows[4]["fid"] = math.nan
    panels = drawn(rows)
    assert [math.isfinite(v) for v in panels["epoch means"]["loss_g"][1]] == [True, False, False, True, True]
    assert list(panels["FID (lower is better)"]) == ["fid"]


def test_a_loss_that_began_later_begins_later():
    rows = history(3)
    rows[2]["penalty"] = 0.5
    values = drawn(rows)["epoch means"]["penalty"][1]
    assert [math.isnan(v) for v in values] == [True, True, False]


def test_a_single_outlier_does_not_press_the_rest_flat():
    rows = history(50)
    rows[0]["loss_d"] = 1e6
    axis = curves._figure(rows, "").axes[0]
    assert axis.get_ylim()[1] < 2
    assert axis.get_title(loc="right") == "not in the picture: 1 of 100 values"


@pytest.mark.parametrize("epochs", [1, 2, 300])
def test_a_picture_of_readable_size_is_written(tmp_path, epochs):
    curves.save_curves(history(epochs), tmp_path / "new" / "curves.png", title="a run")
    with Image.open(tmp_path / "new" / "curves.png") as picture:
        assert picture.width == 900
        assert 500 < picture.height < 1000
        assert len(picture.convert("RGB").getcolors(100_000)) > 20
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["curves.png"]


def test_ten_thousand_epochs_take_no_minutes(tmp_path):
    rows = history(10_000)
    begin = time.process_time()
    curves.save_curves(rows, tmp_path / "curves.png")
    assert time.process_time() - begin < 10


@pytest.mark.parametrize(
    "rows",
    [
        [{"epoch": 1, "step": 3, "loss": math.nan}],
        [{"epoch": 1, "step": 3, "images_per_second": math.inf}],
        [{"epoch": 1, "step": 3}],
        [{"epoch": 4, "step": 0, "loss_d": 1.0, "fid": math.nan}],
        [{"epoch": e, "step": e, "loss_d": 3e38 * (-1) ** e} for e in range(1, 9)],
    ],
    ids=["nan only", "speed only", "no value", "older script", "huge"],
)
@pytest.mark.filterwarnings("error")
def test_poor_histories_are_drawn_too(tmp_path, rows):
    curves.save_curves(rows, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").exists()


def test_without_rows_nothing_is_written(tmp_path):
    curves.save_curves([], tmp_path / "curves.png")
    assert not list(tmp_path.iterdir())


def test_the_same_rows_give_the_same_bytes_whatever_the_persons_settings(tmp_path):
    curves.save_curves(history(30), tmp_path / "a.png")
    with matplotlib.rc_context({"lines.linewidth": 7, "axes.facecolor": "black", "font.size": 30}):
        curves.save_curves(history(30), tmp_path / "b.png")
        assert matplotlib.rcParams["font.size"] == 30
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_picture_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    path = tmp_path / "curves.png"
    curves.save_curves(history(3), path)
    before = path.read_bytes()

    def half(self, target, **_):
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", half)
    with pytest.raises(OSError, match="No space left"):
        curves.save_curves(history(4), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["curves.png"]


def test_it_draws_no_random_numbers_and_leaves_the_log_level(tmp_path):
    torch.manual_seed(1), random.seed(1), np.random.seed(1)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    level = logging.getLogger("matplotlib").level
    curves.save_curves(history(30), tmp_path / "curves.png")
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.array_equal(np.random.get_state()[1], states[2])
    assert logging.getLogger("matplotlib").level == level


def test_a_home_that_takes_no_font_cache_is_met_in_silence(tmp_path):
    """And pyplot, which would choose a window system, is not loaded; nothing is before a picture is drawn."""
    (tmp_path / "home").write_text("a file: no folder can be made in it")
    code = (
        "import sys; from ganguard.reports.curves import save_curves\n"
        "assert 'matplotlib' not in sys.modules\n"
        "save_curves([{'epoch': 1, 'step': 3, 'loss': 1.0}], sys.argv[1])\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    hidden = {"MPLCONFIGDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"}
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "curves.png"],
        env={k: v for k, v in os.environ.items() if k not in hidden} | {"HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "curves.png").exists()
