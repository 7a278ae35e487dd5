"""The moments of a progan_local.py run in which signals_progan.py sends its signals, and how each is met.

- start: progan_local.py in an interpreter of its own, a random while after it began to listen, before its first line.
- any instant: a random while after it began to listen, anywhere in the run.
- caching: the folder of a cache that is being built is there. "caching, drive gone": likewise, and the images turn
  into pipes that nobody writes to, so that reading one never ends.
- waiting for a worker: a worker is halted with SIGSTOP in the midst of a batch, and the process uses no more processor
  time. "waiting for an image": without a cache and workers, the images turn into such pipes.
- all others: a function of the moment is held for a while before it does its work (``HELD`` below; NOW and PAST are
  printed around that): restoring, the first step, what comes after a batch, the grid, the growth of the networks, any
  single write of a file in a save. "ten in a save" slows writing down and sends the signal once, then ten times more
  while that is being written. "after another emergency" does as after a batch, in a run that has just stopped there,
  with the clock of file names standing still: both emergencies want the same name.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path += [str(ROOT / "tests" / folder) for folder in ("exact", "helpers")]
from zygote import Process  # noqa: E402  # the paths come first

SCRIPT = ROOT / "progan_local.py"
TINY = [
    *("--data-dir", "scans", "--in-channels", 4, "--z-dim", 8, "--progressive-epochs", "1,1,1", "--threads", 1),
    *("--batch-sizes", "4,4,4", "--auto-save-every-n-batches", 2, "--device", "cpu", "--limit-images", 32),
]  # three levels of four batches of 8
LAST_STEP = 12
IMAGES = 32
WRITES = 600  # about as many calls write the files of a run's saves
HELD = """
import runpy, sys, time
sys.path.insert(0, {root!r})

def hold(owner, name, at, seconds=0.2):
    own, count = getattr(owner, name), 0
    def held(*args, **options):
        nonlocal count
        count += 1
        if count == at:
            print("NOW", flush=True)
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                time.sleep(0.002)
            print("PAST", flush=True)
        return own(*args, **options)
    setattr(owner, name, held)

def slow(owner, name, seconds):
    own = getattr(owner, name)
    def slowed(*args, **options):
        time.sleep(seconds)
        return own(*args, **options)
    setattr(owner, name, slowed)

from ganguard import keeper, restoring
from ganguard.store import envelope, names
from ganguard.training import progan, progan_step
{hold}
runpy.run_path({script!r}, run_name="__main__")
"""
BETWEEN = "hold(keeper.Keeper, 'after_step', 3)"
AFTER_FIRST = "hold(keeper.Keeper, 'after_step', 1)"
SAME_SECOND = "names.stamp = lambda now: '20260101_120000'"


class Failed(Exception):
    """What was promised did not hold."""


def require(holds: object, text: str) -> None:
    if not holds:
        raise Failed(text)


class Typed:
    """A process of an interpreter of its own, with the surface of ``zygote.Process``."""

    def __init__(self, script: Path, *words: object, cwd: Path) -> None:
        self._log = cwd / "output_typed.txt"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(script), *map(str, words)],
                cwd=cwd,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        self.pid = self._process.pid

    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def wait(self, timeout: float = 60) -> int:
        return self._process.wait(timeout)


@dataclass
class Run:
    """One start of the program in ``folder``."""

    folder: Path
    process: Process | Typed
    rng: random.Random

    @property
    def pid(self) -> int:
        return self.process.pid

    def says(self, text: str) -> bool:
        return text in self.process.output()

    def until(self, holds: Callable[[], object], what: str, timeout: float = 60) -> None:
        deadline = time.monotonic() + timeout
        while not holds():
            require(time.monotonic() < deadline and alive(self.pid), f"never {what}: {self.process.output()}")
            time.sleep(0.002)


# Looking at a process from outside.


def alive(pid: int) -> bool:
    return _state(pid) not in ("Z", "X", "")


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


def _ticks(pid: int) -> int:
    """Processor time used, in the kernel's ticks."""
    with contextlib.suppress(OSError, IndexError):
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(words[11]) + int(words[12])
    return -1


def listens(pid: int) -> bool:
    """Whether SIGTERM has a handler."""
    with contextlib.suppress(OSError):
        if found := re.search(r"SigCgt:\s*([0-9a-f]+)", Path(f"/proc/{pid}/status").read_text()):
            return bool(int(found[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False


def halt(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    while _state(pid) not in ("T", "Z", "X", ""):
        time.sleep(0.0005)


def idles(pid: int) -> bool:
    """Whether it uses no processor time for a while."""
    before = _ticks(pid)
    time.sleep(0.3)
    return _ticks(pid) == before and _state(pid) == "S"


# The moments.


@dataclass(frozen=True, kw_only=True)
class Moment:
    """``meet`` returns when it seems to have come; ``holds`` tells whether it is there."""

    name: str
    meet: Callable[[Run], None]
    holds: Callable[[Run], bool]
    hold: str = ""  # Python that holds the program; {n} is a random number up to WRITES
    words: Sequence[object] = ()
    before: str | None = None  # what holds an earlier start of the same run, which is stopped there
    after: Callable[[Run, int], None] = lambda _run, _number: None  # once it goes on again
    check: Callable[[Path], None] = lambda _folder: None  # of the folder that a stop left
    own_data: bool = False
    own_cache: bool = False
    interpreter: bool = False  # of its own: not with everything imported
    trained: bool = True  # whether the training has always begun by then
    anywhere: bool = False  # even after the end


def meet_held(run: Run) -> None:
    run.until(lambda: run.says("NOW"), "NOW")
    time.sleep(run.rng.uniform(0, 0.1))


def is_held(run: Run) -> bool:
    return run.says("NOW") and not run.says("PAST")


def held(name: str, hold: str, **more: object) -> Moment:
    return Moment(name=name, meet=meet_held, holds=is_held, hold=hold, **more)  # type: ignore[arg-type]  # as above


def meet_start(run: Run) -> None:
    run.until(lambda: listens(run.pid), "listening")
    time.sleep(run.rng.uniform(0, 1.5))


def meet_any(run: Run) -> None:
    run.until(lambda: listens(run.pid), "listening")
    time.sleep(run.rng.uniform(0, 1.5))


def is_cached_now(run: Run) -> bool:
    return any((run.folder / "cache").glob("*.building-*"))


def meet_caching(run: Run) -> None:
    run.until(lambda: is_cached_now(run), "caching")


def meet_caching_from_nowhere(run: Run) -> None:
    run.until(lambda: run.says("NOW"), "caching")
    turn_into_pipes(run)
    run.until(lambda: idles(run.pid), "waiting for an image")


def turn_into_pipes(run: Run) -> None:
    """While the process is halted, so that it meets them all at once."""
    halt(run.pid)
    for path in (run.folder / "scans").glob("*.png"):
        path.rename(path.with_suffix(".was"))
        os.mkfifo(path)
    os.kill(run.pid, signal.SIGCONT)


def give_images_back(run: Run, _number: int) -> None:
    """Also to who reads a pipe this very moment."""
    for kept in (run.folder / "scans").glob("*.was"):
        pipe, data = kept.with_suffix(".png"), kept.read_bytes()
        moved = pipe.with_suffix(".pipe")
        os.link(pipe, moved)
        kept.replace(pipe)  # without an instant in which there is no image
        with contextlib.suppress(OSError):  # nobody reads it
            descriptor = os.open(moved, os.O_WRONLY | os.O_NONBLOCK)
            os.write(descriptor, data)
            os.close(descriptor)
        moved.unlink()


def workers(run: Run) -> list[int]:
    with contextlib.suppress(OSError):
        children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        # Python has a process of its own that tracks resources.
        return [int(pid) for pid in children if b"resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return []


def meet_waiting_for_worker(run: Run) -> None:
    run.until(lambda: run.says("NOW"), "reading an image")
    time.sleep(0.1)  # what it has read before is on its way
    for pid in workers(run):
        halt(pid)
    run.until(lambda: idles(run.pid), "waiting")


def let_workers_go_on(run: Run, number: int) -> None:
    if number == signal.SIGUSR1:  # a stop must not need that
        for pid in workers(run):
            os.kill(pid, signal.SIGCONT)


def meet_waiting_for_image(run: Run) -> None:
    run.until(lambda: run.says("batch_00002"), "training")
    turn_into_pipes(run)
    run.until(lambda: idles(run.pid), "waiting")


def is_saving(run: Run) -> bool:
    return any((run.folder / "weights").rglob(".tmp-*.pth"))


def ten_more(run: Run, number: int) -> None:
    run.until(lambda: is_saving(run), "saving because of the signal")
    for _ in range(10):
        with contextlib.suppress(OSError):
            os.kill(run.pid, number)
        time.sleep(0.01)


def check_two_emergencies(folder: Path) -> None:
    names = sorted(path.name for path in (folder / "weights").glob("EMERGENCY_*"))
    words = ("critic", "generator")
    expected = [f"EMERGENCY_{word}_20260101_120000{more}.pth" for word in words for more in ("", "_2")]
    require(names == expected, f"two emergencies in a second left {names}")


MOMENTS = [
    Moment(name="start", meet=meet_start, holds=lambda r: not r.process.output(), interpreter=True, trained=False),
    Moment(name="caching", meet=meet_caching, holds=is_cached_now, own_cache=True, trained=False),
    Moment(
        name="caching, drive gone",
        meet=meet_caching_from_nowhere,
        holds=is_cached_now,
        hold="from ganguard.data import building; hold(building, '_write_images', 1)",
        after=lambda run, number: give_images_back(run, number) if number == signal.SIGUSR1 else None,
        own_cache=True,
        own_data=True,
        trained=False,
    ),
    held("resuming", "hold(restoring, 'restore', 1)", before=BETWEEN),
    held("first batch", "hold(progan_step.ProgressiveStep, '__call__', 1)"),
    held("between batches", BETWEEN),
    Moment(
        name="waiting for a worker",
        meet=meet_waiting_for_worker,
        holds=lambda run: {_state(pid) for pid in workers(run)} == {"T"},
        hold="from ganguard.data import pixels; hold(pixels.CachedPixels, 'take', 3, 0.5)",
        after=let_workers_go_on,
        words=("--workers", 1),
    ),
    Moment(
        name="waiting for an image",
        meet=meet_waiting_for_image,
        holds=lambda run: run.says("batch_00002") and not run.says("Finished"),
        after=lambda run, number: give_images_back(run, number) if number == signal.SIGUSR1 else None,
        words=("--cache-limit", 0),
        own_data=True,
        own_cache=True,
    ),
    held("sampling", "hold(progan, 'save_samples', 2)"),
    held("growth", "hold(progan_step.Growth, 'enter', 2)"),
    Moment(
        name="saving",
        meet=meet_held,
        holds=lambda run: is_held(run) and is_saving(run),
        hold="hold(envelope.HashingFile, 'write', {n})",
    ),
    held("ten in a save", f"{BETWEEN}; slow(envelope.HashingFile, 'write', 0.002)", after=ten_more),
    held("after another emergency", f"{AFTER_FIRST}; {SAME_SECOND}", before=AFTER_FIRST, check=check_two_emergencies),
    Moment(name="any instant", meet=meet_any, holds=lambda run: alive(run.pid), trained=False, anywhere=True),
]
