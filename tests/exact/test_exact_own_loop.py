"""Criterion 2 for examples/own_loop.py, as a real process with real signals."""

import json
from pathlib import Path

import pytest
import torch
from loops import journal, same
from systems import STOP, TERMINATE

DRIVER = Path(__file__).with_name("own_loop_driver.py")
EPOCHS = 2


def start(zygote, cwd, **wanted):
    settings = {"folder": "checkpoints", "epochs": EPOCHS, "workers": 0, **wanted}
    return zygote.start(DRIVER, json.dumps(settings), cwd=cwd)


def outcome(cwd):
    """All of the last checkpoint but what names the run, and the journal."""
    folder = cwd / "checkpoints"
    held = torch.load(folder / f"checkpoint_epoch_{EPOCHS:03d}.pth", weights_only=True)
    held.pop("ganguard")
    # The example seeds torch only.
    held["random"] = held["random"]["torch"]
    return {**held, "journal": journal(folder)}


@pytest.fixture(scope="module")
def whole(zygote, tmp_path_factory):
    cwd = tmp_path_factory.mktemp("whole")
    process = start(zygote, cwd)
    assert process.wait() == 0, process.output()
    return outcome(cwd)


CASES = {
    "no workers": {"workers": 0},
    "two workers": {"workers": 2},
    "two persistent workers": {"workers": 2, "loader": {"persistent_workers": True}},
}


@pytest.mark.parametrize("case", CASES)
def test_ctrl_c_sigterm_to_the_group_and_a_stop_in_the_tail(zygote, whole, tmp_path, case):
    """Three stops of three kinds, save intervals changed between: bit for bit as if never stopped."""
    stops = [
        ({"say_at": 13}, "signal", STOP, 128 + STOP),
        ({"say_in_tail": 1, "guard": {"save_every_batches": 7}}, "signal_group", STOP, 128 + STOP),
        (
            {"say_at": 31, "guard": {"save_every_epochs": 2, "save_every_batches": 0}},
            "signal_group",
            TERMINATE,
            128 + TERMINATE,
        ),
    ]
    for settings, how, number, code in stops:
        process = start(zygote, tmp_path, **CASES[case], **settings)
        process.until("NOW")
        getattr(process, how)(number)
        assert process.wait() == code, process.output()
        assert "Traceback" not in process.output()
        assert "To go on: " in process.output()
    process = start(zygote, tmp_path, **CASES[case])
    assert process.wait() == 0, process.output()
    assert "Not " not in process.output()
    assert not same(outcome(tmp_path), whole)


def test_workers_that_are_spawned(zygote, whole, tmp_path):
    """Another start method than fork gives the same, and its workers outlive a signal to the group too."""
    settings = {"workers": 1, "loader": {"multiprocessing_context": "spawn", "persistent_workers": True}}
    process = start(zygote, tmp_path, say_at=20, **settings)
    process.until("NOW")
    process.signal_group(TERMINATE)
    assert process.wait() == 128 + TERMINATE, process.output()
    process = start(zygote, tmp_path, **settings)
    assert process.wait() == 0, process.output()
    assert not same(outcome(tmp_path), whole)
