"""Shared by all tests."""

import os
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Two cores are shared by the test and the processes that it starts.
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent / "helpers"))
sys.path.insert(0, str(Path(__file__).parent / "cli"))
sys.path.insert(0, str(Path(__file__).parent / "exact"))
from systems import WINE
from typed import forking  # the paths come first
from zygote import Waiting

# A suite started in the background or under nohup inherits ignored signals, which trainings respect, as they should.
for name, usual in (("SIGINT", signal.default_int_handler), ("SIGTERM", signal.SIG_DFL), ("SIGHUP", signal.SIG_DFL)):
    if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) is signal.SIG_IGN:
        signal.signal(getattr(signal, name), usual)


if WINE:  # reading files takes long there, which is nothing that a test's examples could mend
    settings.register_profile("wine", suppress_health_check=[HealthCheck.too_slow], deadline=None)
    settings.load_profile("wine")


@pytest.fixture(scope="session")
def zygote():
    """Shared by all tests of a session."""
    if hasattr(os, "fork"):
        yield forking()
    else:
        with Waiting() as started:
            yield started


@pytest.fixture(autouse=True)
def ctrl_c_as_before():
    """A command that runs in the tests' own process ends deaf to Ctrl+C, as it should; the next test is not."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)
