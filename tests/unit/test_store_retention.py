"""What retention lets go: a pure function. Law 7: never the newest finite checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganguard.errors import UsageError
from ganguard.store.catalog import Entry, newest_first
from ganguard.store.envelope import State
from ganguard.store.retention import Policy, best, expendable
from ganguard.store.summary import Kind, Summary


def entry(epoch: int, kind: Kind = Kind.EPOCH, *, step: int | None = None, fid: float | None = None, **fields) -> Entry:
    step = epoch * 100 if step is None else step
    name = fields.pop("name", f"{kind}_{fields.get('branch', 0)}_{step}_{epoch}.pth")
    score = {"name": "fid", "value": fid} if fid is not None else None
    fields = {"score": score, **fields}
    about = Summary(kind=kind, name=name, run="r", epoch=epoch, step=step, digest=f"digest of {name}", **fields)
    path = Path("/somewhere") / name
    return Entry(path=path, size=1, modified=0, inode=(1, name), state=State.WHOLE, summary=about)


heads_of_a_run = st.lists(
    st.builds(
        entry,
        epoch=st.integers(0, 40),
        kind=st.sampled_from([Kind.EPOCH, Kind.AUTOSAVE, Kind.EMERGENCY, Kind.STEP]),
        step=st.integers(0, 4000),
        branch=st.integers(0, 2),
        fid=st.none() | st.floats(0, 300) | st.just(float("nan")) | st.just(float("inf")),
        finite=st.booleans(),
    ),
    max_size=40,
    unique_by=lambda e: e.path.name,
)
policies = st.builds(
    Policy, keep_latest=st.integers(0, 6), keep_every=st.integers(0, 12), keep_autosaves=st.integers(0, 3)
)


@given(heads_of_a_run, policies)
def test_law_7_the_newest_finite_one_is_always_kept(heads, policy):
    finite = [e for e in newest_first(heads) if e.summary.finite]
    assert not finite or finite[0] not in expendable(heads, policy)


@given(heads_of_a_run, policies)
def test_what_stays_would_stay_again(heads, policy):
    going = expendable(heads, policy)
    assert expendable([e for e in heads if e not in going], policy) == []


@given(heads_of_a_run, policies, st.randoms())
def test_the_order_in_which_a_folder_lists_them_does_not_matter(heads, policy, draw):
    shuffled = list(heads)
    draw.shuffle(shuffled)
    assert expendable(heads, policy) == expendable(shuffled, policy)


@given(heads_of_a_run, policies)
def test_milestones_the_best_and_the_newest_epochs_stay(heads, policy):
    staying = [e for e in heads if e not in expendable(heads, policy)]
    finite = [e for e in newest_first(heads) if e.summary.finite]
    regular = [e for e in finite if e.summary.kind in (Kind.EPOCH, Kind.STEP)]
    epochs = [e for e in finite if e.summary.kind is Kind.EPOCH]
    milestones = [e for e in epochs if policy.keep_every and e.summary.epoch % policy.keep_every == 0]
    for kept in (regular[: policy.keep_latest], milestones, best(finite)):
        assert all(e in staying for e in kept)


@given(heads_of_a_run, policies, st.data())
def test_what_a_command_named_stays(heads, policy, data):
    named = data.draw(st.sets(st.sampled_from([e.digest for e in heads]))) if heads else set()
    going = expendable(heads, Policy(**{**vars(policy), "named": frozenset(named)}))
    assert not [e for e in going if e.digest in named]


@given(heads_of_a_run, policies)
def test_a_file_under_another_name_than_its_own_is_a_persons_and_stays(heads, policy):
    renamed = [Entry(**{**vars(e), "path": Path("/somewhere") / f"mine {e.path.name}"}) for e in heads]
    assert expendable(renamed, policy) == []
    assert expendable([*heads, *renamed], policy) == expendable(heads, policy)


def test_the_defaults_on_a_run_of_thirty_epochs():
    heads = [entry(e) for e in range(1, 31)] + [entry(30, Kind.AUTOSAVE, step=3000 + s) for s in (20, 40)]
    heads += [entry(e, Kind.EMERGENCY, step=e * 100 + 50) for e in (12, 30)]
    heads[16] = entry(17, fid=20.5)
    kept = {e.path.name for e in heads} - {e.path.name for e in expendable(heads, Policy())}
    assert kept == {
        *(f"epoch_0_{e}00_{e}.pth" for e in (10, 17, 20, 26, 27, 28, 29, 30)),
        "autosave_0_3040_30.pth",
        "emergency_0_3050_30.pth",
    }


def test_a_score_that_is_not_finite_is_never_the_best():
    heads = [entry(3, fid=float("nan")), entry(2, fid=float("inf")), entry(1, fid=40.0)]
    assert best(newest_first(heads)) == [heads[2]]


def test_only_scores_of_the_kind_of_the_newest_best_are_compared():
    """Of another name, or made with another extractor, a lower one is not better."""

    def scored(epoch, value, name="fid", **about):
        score = {"name": name, "value": value, "about": about}
        return entry(epoch, score=score, best=score)

    other, low, high = scored(1, 1.0, "kid"), scored(2, 2.0, extractor="lite"), scored(3, 9.0, extractor="inception")
    assert best([high, low, other]) == [high]
    assert best([high, scored(4, 8.0, extractor="inception"), low])[0].summary.epoch == 4
    assert best([scored(3, 3.0, extractor="lite"), low, other]) == [low]


def test_the_best_of_an_earlier_kind_of_score_stays():
    """It is no worse for being scored in another way since."""
    lite, worse, inception = (
        {"name": "fid", "value": v, "about": {"extractor": x}}
        for v, x in ((30.0, "lite"), (31.0, "lite"), (200.0, "inception"))
    )
    heads = [entry(e, score=lite if e == 3 else worse if e == 4 else None, best=lite) for e in range(1, 8)]
    heads += [entry(e, score=inception if e == 8 else None, best=inception) for e in range(8, 19)]
    gone = {e.summary.epoch for e in expendable(heads, Policy())}
    assert {3, 8}.isdisjoint(gone)
    assert 4 in gone


def test_less_than_none_cannot_be_kept():
    with pytest.raises(UsageError):
        Policy(keep_latest=-1)
