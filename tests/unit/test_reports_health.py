"""The chart at a training's end: fits every terminal, and says only what is true."""

import math

import pytest

from ganguard.reports.health import chart


def history(epochs, **values):
    """Rows of values that are functions of the epoch; None leaves a value out."""
    given = {"loss_d": lambda e: 1 / e, "loss_g": lambda e: 1.0, "images_per_second": lambda e: 800.0} | values
    rows = [{"epoch": e, "step": 12 * e, **{n: f(e) for n, f in given.items()}} for e in range(1, epochs + 1)]
    return [{n: v for n, v in row.items() if v is not None} for row in rows]


def findings(rows):
    lines = chart(rows, width=1000)
    return [line.removeprefix("Look at this: ") for line in lines if line.startswith("Look at this: ")]


def test_first_last_and_best_are_named():
    rows = history(20, fid=lambda e: 100.0 - e if e % 5 == 0 else None)
    lines = chart(rows, encoding="utf-8")
    assert lines[0] == "This run, epochs 1 to 20:"
    by_name = {line.split()[0]: line for line in lines[1:]}
    assert list(by_name) == ["loss_d", "loss_g", "images_per_second", "fid"]
    assert by_name["loss_d"].endswith("first 1  last 0.05")
    assert by_name["fid"].endswith("first 95  last 80  best 80 (epoch 20)")
    assert by_name["images_per_second"].endswith("first 800  last 800  best 800")


def test_a_learning_rate_that_never_changes_takes_no_line():
    assert "learning_rate" not in "".join(chart(history(8, learning_rate=lambda e: 4e-4)))
    assert "learning_rate" in "".join(chart(history(8, learning_rate=lambda e: 4e-4 / e)))


def test_a_curve_runs_from_low_to_high():
    line = chart(history(8, loss_d=float), encoding="utf-8")[1]
    assert line.split()[1] == "▁▂▃▄▅▆▇█"
    assert chart(history(8, loss_d=float), encoding="cp1252")[1].split()[1] == ".:-=+*#@"


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "cp850", "ascii", "no such encoding"])
@pytest.mark.parametrize("epochs", [1, 3, 50, 10_000])
def test_it_fits_80_columns_and_the_terminal(encoding, epochs):
    rows = history(epochs, fid=lambda e: 10.0 + e if e % 3 == 0 else None, penalty=lambda e: math.nan)
    lines = chart(rows, encoding=encoding)
    assert all(len(line) <= 80 for line in lines)
    if encoding.startswith(("cp", "asc")):
        "\n".join(lines).encode(encoding)


@pytest.mark.parametrize("rows", [[], [{"epoch": 1, "step": 3}]])
def test_nothing_is_said_of_nothing(rows):
    assert chart(rows) == []


@pytest.mark.parametrize(
    "values",
    [
        [math.nan],
        [math.inf, -math.inf] * 100,
        [1e308, -1e308] * 100,
        [1.0],
    ],
    ids=["nan", "both infinities", "huge", "one"],
)
def test_poor_values_are_drawn_too(values):
    assert len(chart([{"epoch": i, "step": i, "loss": v} for i, v in enumerate(values, 1)])) >= 2


def test_a_healthy_run_is_left_alone():
    rows = history(60, fid=lambda e: 30 + 200 / e + math.sin(e) if e % 5 == 0 else None)
    assert findings(rows) == []


def test_values_that_are_not_finite_are_named():
    rows = history(9, loss_g=lambda e: math.nan if e in (4, 7) else 1.0)
    assert findings(rows) == ["loss_g is not finite in 2 epochs, the first is 4."]
    assert findings(history(3, loss_g=lambda e: math.inf if e == 2 else 1.0)) == [
        "loss_g is not finite in one epoch: 2."
    ]


def test_a_critic_whose_loss_stays_at_nothing_is_named():
    rows = history(20, loss_d=lambda e: 1e-5 if e > 12 else 1.0)
    assert findings(rows) == [
        "loss_d has been within 0.001 of 0 since epoch 13. "
        "With a hinge or logistic loss the critic then tells all images apart."
    ]
    assert "since epoch 1." in findings(history(8, loss_d=lambda e: 0.0))[0]


def test_a_critics_loss_that_passes_nothing_is_not():
    assert findings(history(20, loss_d=lambda e: (e - 19) / 10)) == []
    assert findings(history(20, loss_d=lambda e: -5.0)) == []
    assert findings(history(20, loss_d=lambda e: math.nan))[1:] == []


def test_a_fid_that_rises_over_the_last_third_is_named():
    rows = history(60, fid=lambda e: 40.0 + abs(e - 40) if e % 5 == 0 else None)
    assert findings(rows) == ["fid has risen from 45 in epoch 45 to 60 in epoch 60; the best was 40 in epoch 40."]


def test_a_fid_that_wavers_is_not():
    assert findings(history(60, fid=lambda e: 40.0 + 3 * (e % 2) if e % 5 == 0 else None)) == []
    one_bad_measurement = history(90, fid=lambda e: (80.0 if e == 90 else 200.0 / e) if e % 5 == 0 else None)
    assert findings(one_bad_measurement) == []
    assert findings(history(5, fid=lambda e: 10.0 * e)) == []  # too few to say


def test_scores_made_otherwise_are_not_compared():
    rows = history(60, fid=lambda e: (10.0 if e < 55 else 90.0) if e % 5 == 0 else None)
    assert len(findings(rows)) == 1
    rows = [row | {"about": {"extractor": "a" if row["epoch"] < 55 else "b"}} for row in rows]
    assert findings(rows) == []
    assert chart(rows)[-1].endswith("first 90  last 90  best 90 (epoch 55)")


def test_a_speed_that_falls_to_less_than_half_is_named():
    rows = history(20, images_per_second=lambda e: 800.0 if e < 18 else 300.0)
    assert findings(rows) == ["the speed has fallen to less than half: 800 images/s before, 300 in the last 3 epochs."]
    assert findings(history(20, images_per_second=lambda e: 100.0 if e == 20 else 800.0)) == []
    assert findings(history(20, images_per_second=lambda e: 500.0 if e > 10 else 800.0)) == []


def test_a_speed_is_compared_with_that_of_images_of_the_same_size():
    growing = history(20, images_per_second=lambda e: 2000.0 / 3 ** (e // 7), image_size=lambda e: 4.0 * 2 ** (e // 7))
    assert findings(growing) == []
    assert not any(line.startswith("image_size") for line in chart(growing))
    slower = history(
        20, images_per_second=lambda e: 2000 if e < 7 else 800 if e < 18 else 300, image_size=lambda e: 4 + 4 * (e > 6)
    )
    assert findings(slower) == [
        "the speed has fallen to less than half: 800 images/s before, 300 in the last 3 epochs."
    ]
