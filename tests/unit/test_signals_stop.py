"""Requests to stop: where the flag goes, where a wait is broken off, where nothing happens."""

import contextlib
import functools
import gc
import os
import signal
import socket
import threading
import time
import weakref

import pytest
from systems import WINDOWS

from ganguard.protection.signals import Interrupted, StopRequests


@pytest.fixture
def said():
    return []


@pytest.fixture
def requests(said):
    made = StopRequests(said.append, lambda: "3 iterations")
    made.listen()
    yield made
    made.close()


def test_a_signal_only_sets_the_flag(requests):
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGINT)
    assert requests.requested == signal.SIGTERM


def test_a_wait_is_broken_off_once_however_often_one_presses(requests):
    """A second raise could land in the midst of what the first one unwinds."""
    unwound = []

    def wait():
        with requests.waiting():
            try:
                signal.raise_signal(signal.SIGINT)
            finally:
                signal.raise_signal(signal.SIGINT)
                unwound.append(True)

    with pytest.raises(Interrupted):
        wait()
    assert unwound


def test_a_wait_that_swallowed_it_is_broken_off_again_later(requests, monkeypatch):
    now = time.monotonic()
    raised = 0

    def press():
        nonlocal raised
        try:
            signal.raise_signal(signal.SIGTERM)  # three SIGINT could count as leaving, the clock being a false one
        except BaseException:
            raised += 1

    with requests.waiting():
        press()
        press()
        monkeypatch.setattr(time, "monotonic", lambda: now + 5)
        press()
    assert raised == 2


def test_a_wait_after_a_request_does_not_begin(requests):
    requests.request(signal.SIGTERM)
    with pytest.raises(Interrupted), requests.waiting():
        pytest.fail("it waited")


def test_presses_while_writing_tell_how_far_it_is(requests, said):
    with requests.writing(lambda: "ck.pth, 40 % of 3.0 GB"):
        for _ in range(5):
            signal.raise_signal(signal.SIGINT)
        deadline = time.monotonic() + 5
        while not any("40 %" in line for line in said) and time.monotonic() < deadline:
            time.sleep(0.01)
    assert any("40 %" in line for line in said)


def test_ignored_signals_stay_ignored(said):
    number = signal.SIGBREAK if WINDOWS else signal.SIGHUP
    before = signal.signal(number, signal.SIG_IGN)
    try:
        requests = StopRequests(said.append, str)
        requests.listen()
        signal.raise_signal(number)
        assert requests.requested is None
        requests.close()
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_an_event_loop_that_listened_before_still_hears(said, kind):
    """A notebook's: bytes are passed on, and its descriptor is put back."""
    with contextlib.ExitStack() as ends:
        if kind == "pipe":
            reading, writing = os.pipe()
            ends.callback(os.close, reading)
            ends.callback(os.close, writing)
            os.set_blocking(writing, False)
            read = functools.partial(os.read, reading)
        else:
            ours, theirs = (ends.enter_context(end) for end in socket.socketpair())
            theirs.setblocking(False)
            writing, read = theirs.fileno(), ours.recv
        before = signal.set_wakeup_fd(writing)
        try:
            requests = StopRequests(said.append, str)
            requests.listen()
            signal.raise_signal(signal.SIGTERM)
            assert read(1) == bytes([signal.SIGTERM])
            requests.close()
            assert signal.set_wakeup_fd(before) == writing
        finally:
            signal.set_wakeup_fd(before)


def test_a_guard_that_is_over_is_not_kept_alive(said):
    """What is registered for forks cannot be taken back, so it must hold nothing: a notebook would fill up."""
    requests = StopRequests(said.append, str)
    requests.listen()
    requests.close()
    alive = weakref.ref(requests)
    del requests
    deadline = time.monotonic() + 5
    while alive() is not None and time.monotonic() < deadline:  # its thread is ending
        gc.collect()
        time.sleep(0.01)
    assert alive() is None


def test_in_a_thread_it_says_what_is_missing(said):
    answers = []
    thread = threading.Thread(target=lambda: answers.append(StopRequests(said.append, str).listen()))
    thread.start()
    thread.join()
    assert "main thread" in answers[0][0]
