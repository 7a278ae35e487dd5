"""Level and alpha as a function of the images seen."""

import itertools
import math
from dataclasses import replace

import pytest

from ganguard.training.progan_schedule import frozen, in_epochs, in_images


def paper(n, *, stabilize, fade, levels):
    """p = floor(n / (T + F)); lod = max(L - p - max(n - p (T + F) - T, 0) / F, 0); 1 - frac(lod)."""
    top = levels - 1
    p = n // (stabilize + fade)
    lod = max(top - p - max(n - p * (stabilize + fade) - stabilize, 0) / fade, 0)
    return top - math.floor(lod), 1 - (lod - math.floor(lod))


@pytest.mark.parametrize(("stabilize", "fade"), [(60, 60), (80, 50), (7, 3)])
def test_in_images_it_is_the_papers_formula_at_every_image(stabilize, fade):
    schedule = in_images(levels=9, stabilize=stabilize, fade=fade)
    for n in range(schedule.total + 5):
        level, alpha = paper(n, stabilize=stabilize, fade=fade, levels=9)
        assert schedule.at(n).level == level, n
        assert schedule.at(n).alpha == pytest.approx(alpha), n


def test_in_epochs_each_level_fades_over_its_first_half():
    """10 images an epoch, 4 epochs a level: 8 px from 40, faded in at 60, over at 80."""
    schedule = in_epochs([4, 4, 2], images=10)
    expected = {
        0: (0, 1), 39: (0, 1), 40: (1, 0), 45: (1, 0.25), 50: (1, 0.5), 59: (1, 0.95), 60: (1, 1), 79: (1, 1),
        80: (2, 0), 85: (2, 0.5), 90: (2, 1), 99: (2, 1), 100: (2, 1), 1000: (2, 1),
    }  # fmt: skip
    assert {n: tuple(schedule.at(n)) for n in expected} == expected
    assert schedule.total == 100


def test_alpha_advances_with_every_image_and_ends_at_one():
    schedule = in_epochs([20] * 9, images=100)
    alphas = [schedule.at(n).alpha for n in range(2000, 4000)]
    assert alphas[0] == 0
    assert all(later > earlier for earlier, later in itertools.pairwise(alphas[:1001]))
    assert set(alphas[1000:]) == {1.0}


def test_a_start_at_a_larger_size_skips_what_is_below_and_does_not_fade():
    schedule = in_epochs([5, 5, 5, 5], images=10, first_level=2)
    assert tuple(schedule.at(0)) == (2, 1)
    assert tuple(schedule.at(50)) == (3, 0)
    assert schedule.total == 100
    assert tuple(in_images(levels=4, stabilize=10, fade=10, first_level=2).at(5)) == (2, 1)


def test_a_level_without_epochs_is_left_out():
    schedule = in_epochs([2, 0, 2], images=10)
    assert [schedule.at(n).level for n in (0, 19, 20, 39)] == [0, 0, 2, 2]


def test_passes_that_are_left_of_a_level():
    first, second = in_epochs([3, 2], images=10).phases
    assert [first.passes_left(n, 10) for n in (0, 9, 10, 25, 29)] == [3, 3, 2, 1, 1]
    assert [second.passes_left(n, 10) for n in (30, 41)] == [2, 1]
    assert in_images(levels=2, stabilize=25, fade=10).phases[0].passes_left(0, 10) == 3


def test_editing_a_passed_level_changes_nothing():
    was, now = in_epochs([4, 4, 4, 4], images=10), in_epochs([9, 1, 4, 4], images=10)
    later = frozen(now, was.phases[:3], 85)
    assert [later.at(n) for n in range(160)] == [was.at(n) for n in range(160)]


def test_the_level_under_way_keeps_its_fade_and_takes_the_new_length():
    was, now = in_epochs([4, 4, 4], images=10), in_epochs([4, 6, 2], images=10)
    later = frozen(now, was.phases[:2], 50)
    assert [later.at(n) for n in range(80)] == [was.at(n) for n in range(80)]
    assert [tuple(later.at(n)) for n in (99, 100, 105, 110)] == [(1, 1), (2, 0), (2, 0.5), (2, 1)]
    assert later.total == 120


def test_a_level_cut_short_ends_where_it_is_but_not_before_it_has_faded_in():
    was, now = in_epochs([4, 4, 4], images=10), in_epochs([4, 1, 4], images=10)
    assert frozen(now, was.phases[:2], 45).at(59) == was.at(59)
    assert tuple(frozen(now, was.phases[:2], 45).at(60)) == (2, 0)
    assert tuple(frozen(now, was.phases[:2], 73).at(73)) == (2, 0)


def test_unedited_settings_give_the_same_schedule_whenever_it_is_built():
    """A resume at every position, also in the paper's form, and at a batch that oversteps a boundary."""
    for schedule in (in_epochs([3, 4, 5], images=10), in_images(levels=4, stabilize=20, fade=30)):
        for n in range(schedule.total):
            begun = [phase for phase in schedule.phases if phase.begins <= n]
            assert frozen(schedule, begun, n).phases == schedule.phases
            if len(begun) > 1:
                assert frozen(schedule, begun[:-1], n).phases == schedule.phases  # overstepped, not begun yet


def test_a_data_set_that_grew_leaves_the_fade_under_way_alone():
    was, now = in_epochs([4, 4, 4], images=10), in_epochs([4, 4, 4], images=100)
    later = frozen(now, was.phases[:2], 50)
    assert later.at(55) == was.at(55)
    assert tuple(later.at(439)) == (1, 1)
    assert tuple(later.at(440)) == (2, 0)


def test_more_levels_may_follow_later():
    was = in_epochs([2, 2], images=10)
    later = frozen(in_epochs([2, 2, 2], images=10), was.phases, 40)
    assert tuple(later.at(40)) == (2, 0)
    assert later.total == 60
    assert replace(was.phases[1], ends=40) == later.phases[1]
