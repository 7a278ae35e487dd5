"""Named parts ⇄ one plain dict ⇄ a file that torch opens with weights_only."""

import enum
import io
import math
from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ganguard import state
from ganguard.errors import RefusedCheckpoint, UnreadableCheckpoint, UsageError
from ganguard.store import body


def through_a_file(value):
    buffer = io.BytesIO()
    torch.save(state.to_plain(value, "value"), buffer)
    buffer.seek(0)
    return state.from_plain(torch.load(buffer, weights_only=True))


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner, inner),
    max_leaves=8,
)


@given(PLAIN)
def test_plain_values_come_back_as_they_went(value):
    assert through_a_file(value) == value


class Colour(enum.IntEnum):
    RED = 3


def test_numpy_and_subclasses_come_back_plain():
    back = through_a_file({"array": np.arange(3.0), "number": np.float32(0.5), "enum": Colour.RED, "of": {1, 2}})
    assert isinstance(back["array"], np.ndarray)
    assert (back["number"], back["enum"], back["of"]) == (0.5, 3, {1, 2})
    assert type(back["enum"]) is int


def test_the_versions_of_a_module_come_along():
    """A layer that reads the version of its layout in load_state_dict gets it, as from a file of torch's own."""
    seen = []

    class Versioned(nn.Linear):
        _version = 7

        def _load_from_state_dict(self, given, prefix, metadata, *rest):
            seen.append(metadata.get("version"))
            super()._load_from_state_dict(given, prefix, metadata, *rest)

    module = nn.Sequential(Versioned(1, 1))
    module.load_state_dict(through_a_file(module.state_dict()))
    assert seen == [7]


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ({"a": [1, lambda: 0]}, r"part\.a\[1\] is a function"),
        ({"a": np.array([object()])}, r"part\.a is an array of object"),
        ({"lazy": nn.LazyLinear(3).weight}, r"part\.lazy has no shape yet"),
        ({"a": b""}, r"part\.a is a bytes"),
        ({"a": {frozenset(): 1}}, r"a key of part\.a"),
    ],
)
def test_what_cannot_be_carried_is_named(value, named):
    with pytest.raises(UsageError, match=named):
        state.to_plain(value, "part")


def test_a_view_is_saved_without_the_rest():
    whole = torch.zeros(1000)
    assert state.to_plain(whole[:2], "view").untyped_storage().nbytes() == 8


SCHEDULERS = {
    "step": lambda o: torch.optim.lr_scheduler.StepLR(o, 1),
    "lambda": lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda n: 0.9**n),
    "cosine": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 5),
    "one cycle": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=9),
    "cyclic": lambda o: torch.optim.lr_scheduler.CyclicLR(o, 0.1, 0.5, cycle_momentum=False),
    "plateau": lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o),
    "sequence": lambda o: torch.optim.lr_scheduler.SequentialLR(
        o, [torch.optim.lr_scheduler.LinearLR(o), torch.optim.lr_scheduler.ExponentialLR(o, 0.9)], [2]
    ),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_torchs_schedulers_are_parts(name):
    """Each goes through the format and steps on as it would have."""

    def make():
        net = nn.Linear(1, 1)
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        return {"opt": optimizer, "sched": SCHEDULERS[name](optimizer)}

    def turn(made):
        made["opt"].step()
        made["sched"].step(*([1.0] if name == "plateau" else []))
        return made["opt"].param_groups[0]["lr"]

    one, other = make(), make()
    state.check_parts(one)
    for _ in range(3):
        turn(one)
    state.restore(other, through_a_file(state.capture(one)), "a file")
    assert [turn(one) for _ in range(3)] == [turn(other) for _ in range(3)]


def test_a_scaler_and_an_averaged_model_are_parts():
    made = {"scaler": torch.amp.GradScaler("cpu"), "ema": torch.optim.swa_utils.AveragedModel(nn.Linear(1, 1))}
    state.check_parts(made)
    assert not state.restore(made, through_a_file(state.capture(made)), "a file")


def test_the_expected_size_counts_what_adam_will_hold():
    net = nn.Linear(1000, 100)
    made = {"net": net, "opt": torch.optim.Adam(net.parameters())}
    guessed = state.expected_bytes(made)
    net(torch.ones(1, 1000)).sum().backward()
    made["opt"].step()
    assert guessed == pytest.approx(state.tensor_bytes(state.capture(made)), rel=0.02)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_one_bad_parameter_is_found(bad):
    net = nn.Linear(3, 3)
    assert state.all_finite({"net": net})
    net.weight.data[1, 1] = bad
    assert not state.all_finite({"net": net})


def test_large_but_finite_parameters_are_finite():
    """Their sum overflows, which is only a suspicion."""
    net = nn.Linear(3, 3)
    net.weight.data.fill_(3e38)
    assert state.all_finite({"net": net})


@pytest.mark.parametrize(
    "beside",
    [
        torch.zeros(2).to(torch.float8_e4m3fn),
        torch.zeros(2, dtype=torch.complex64),
        torch.eye(2).to_sparse(),
        torch.eye(2).to_sparse_csr(),
        torch.zeros(2, device="meta"),
        torch.empty(2, dtype=getattr(torch, "float4_e2m1fn_x2", torch.float8_e5m2)),
    ],
    ids=lambda tensor: f"{tensor.dtype} {tensor.layout} {tensor.device}",
)
def test_a_bad_parameter_is_found_beside_an_unusual_one(beside):
    """One of a kind that torch cannot sum made all others count as finite."""
    net = nn.Linear(2, 2)
    net.unusual = nn.Parameter(beside, requires_grad=False)
    assert state.all_finite({"net": net})
    with torch.no_grad():
        net.weight[0, 0] = math.nan
    assert not state.all_finite({"net": net})


@pytest.mark.parametrize("kind", [torch.complex64, torch.float8_e4m3fn, torch.float8_e5m2, torch.bfloat16])
def test_an_unusual_parameter_that_is_bad_is_found(kind):
    net = nn.Module()
    net.p = nn.Parameter(torch.tensor([1.0, math.nan]).to(kind), requires_grad=False)
    assert not state.all_finite({"net": net})
    net.p = nn.Parameter(torch.tensor([1.0, 2.0]).to(kind), requires_grad=False)
    assert state.all_finite({"net": net})


def test_sparse_parts_can_be_guarded(tmp_path):
    holder = nn.Module()
    holder.register_buffer("table", torch.eye(3).to_sparse())
    assert state.expected_bytes({"net": holder}) > 0


def test_a_file_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"net": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(RefusedCheckpoint):
        body.load_file(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


def test_a_file_that_is_none_is_unreadable(tmp_path):
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises((UnreadableCheckpoint, RefusedCheckpoint)):
        body.load_file(tmp_path / "text.pth")
    torch.save([1], tmp_path / "list.pth")
    with pytest.raises(UnreadableCheckpoint, match="a list"):
        body.load_file(tmp_path / "list.pth")


def test_unwrap_goes_through_any_nesting():
    net = nn.Linear(1, 1)
    outer = nn.DataParallel(net)
    holder = nn.Module()
    holder._orig_mod = outer
    assert state.unwrap(holder) is net


def test_ordered_dicts_stay_ordered():
    assert isinstance(through_a_file(OrderedDict(b=1, a=2)), OrderedDict)
