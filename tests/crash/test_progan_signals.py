"""Signals at moments of real progan_local.py runs: a whole pair where it was stopped, or nothing changed.

A selection of proofs/signals_progan.py; proofs/progan_moments.py tells how each moment is met.
"""

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from systems import WINDOWS, needs_posix

sys.path.append(str(Path(__file__).parents[2] / "proofs"))
from ganguard.protection import early
from ganguard.protection.signals import StopRequests


@pytest.fixture(scope="module")
def proof(tmp_path_factory):
    from signals_progan import Proof, Zygote  # looks into /proc

    with Zygote() as server:
        yield Proof(server, tmp_path_factory.mktemp("proof"), random.Random(0))


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize(
    ("name", "number", "mode", "group", "expected"),
    [
        ("start", "SIGTERM", "stop", False, "nothing began"),
        ("caching", "SIGHUP", "stop", True, "nothing began"),
        ("caching, drive gone", "SIGTERM", "stop", False, "nothing began"),
        ("resuming", "SIGTERM", "stop", True, "emergency pair"),
        ("first batch", "SIGUSR1", "stop", False, "emergency pair, exact"),
        ("waiting for a worker", "SIGINT", "stop", True, None),
        ("waiting for an image", "SIGHUP", "stop", False, None),
        ("sampling", "SIGINT", "stop", False, "regular pair"),
        ("growth", "SIGUSR1", "save", True, "went on"),
        ("ten in a save", "SIGINT", "stop", False, "emergency pair"),
        ("after another emergency", "SIGTERM", "stop", False, "emergency pair"),
    ],
)
def test_a_signal_in_the_moment(proof, name, number, mode, group, expected):
    from signals_progan import MOMENTS

    number = getattr(signal, number)
    moment = next(moment for moment in MOMENTS if moment.name == name)
    exact = expected is not None and "exact" in expected
    for _ in range(5):  # a moment may be over before the signal comes
        came, hit = proof.case(moment, number, mode, group=group, exact=exact)
        if hit:
            break
    assert hit
    assert expected in (None, came)


@needs_posix("SIGCHLD")
def test_a_worker_that_dies_together_with_a_stop_is_no_error(monkeypatch):
    """Both signals are pending when Python comes to look; torch hears of dying workers by a handler like this one."""
    errors = []
    monkeypatch.setattr(sys, "unraisablehook", errors.append)
    before = signal.signal(signal.SIGCHLD, lambda *_: None)
    requests = StopRequests(lambda _: None, str)
    requests.listen()
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGCHLD))
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGCHLD)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGCHLD))
        assert requests.requested == signal.SIGINT
    finally:
        requests.close()
        signal.signal(signal.SIGCHLD, before)
    assert errors == []


@needs_posix("SIGUSR1")
def test_a_warning_while_libraries_load_stops_once_it_is_known_that_it_should():
    with early.loading():
        signal.raise_signal(signal.SIGUSR1)
    with early.preparing(frozenset({signal.SIGUSR1})):
        pass
    with early.loading():
        signal.raise_signal(signal.SIGUSR1)
    with pytest.raises(early.LeftEarly) as left, early.preparing(frozenset()):
        pytest.fail("it went on")
    assert left.value.number == signal.SIGUSR1
    with early.preparing(frozenset()):
        pass


def test_handlers_are_put_back_and_what_nohup_ignores_stays_ignored():
    ignored = signal.SIGBREAK if WINDOWS else signal.SIGHUP
    before = signal.signal(ignored, signal.SIG_IGN)
    try:
        kept = [signal.getsignal(number) for number in early.STOPPING]
        with early.preparing(frozenset()):
            assert signal.getsignal(ignored) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        assert [signal.getsignal(number) for number in early.STOPPING] == kept
    finally:
        signal.signal(ignored, before)


def test_after_a_guard_has_listened_a_late_signal_means_nothing():
    with early.preparing(frozenset()) as guarded:
        guarded()
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)


def test_a_signal_while_the_interpreter_shuts_down_leaves_the_exit_code_alone():
    """The one that is registered first at exit comes last: it stands for what libraries do there."""
    code = (
        "import atexit, signal; from ganguard.protection import early\n"
        "atexit.register(lambda: [signal.raise_signal(number) for number in early.STOPPING])\n"
        "with early.preparing(frozenset()): pass\n"
        "raise SystemExit(143)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (143, "")
