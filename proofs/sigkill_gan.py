"""Runs of gan.py killed with SIGKILL at random instants, half of them while saving; each must end bit-equal.

    python proofs/sigkill_gan.py --runs 200

Of each run it checks: the next start is never refused a lock; it resumes from no step before the newest save that was
reported; it ends with every byte of the state equal to an uninterrupted run's. Exit code 1 where one fails.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "cli"))
from typed import GAN, differences, run

SETTINGS = [
    "--limit-images",
    "64",
    "--batch-size",
    "8",
    "--width",
    "4",
    "--epochs",
    "6",
    "--threads",
    "1",
    "--autosave-batches",
    "2",
    "--sample-every",
    "0",
]


def kill_at_random(folder: Path, workers: int, *, while_saving: bool, rng: random.Random) -> tuple[str, bool]:
    """Start, kill at a random instant; returns what was printed and whether it was killed before it ended."""
    process = subprocess.Popen(
        [*GAN, *SETTINGS, "--workers", str(workers)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    lines = [process.stdout.readline() for _ in range(2)]
    if while_saving:
        wait_for_write(folder / "checkpoints", process, nth=rng.randrange(1, 5))
    else:
        time.sleep(rng.uniform(0, 2.5))
    os.kill(process.pid, signal.SIGKILL)  # the workers live on, as they do when the kernel kills for memory
    lines += process.communicate()[0].splitlines(keepends=True)
    return "".join(lines), process.returncode == -signal.SIGKILL


def wait_for_write(checkpoints: Path, process: subprocess.Popen[str], nth: int) -> None:
    """Return while the ``nth`` file is being written, or when the process has ended."""
    seen: set[str] = set()
    while process.poll() is None:
        try:
            writing = {path.name for path in checkpoints.glob(".tmp-*")}
        except FileNotFoundError:
            continue
        seen |= writing
        if writing and len(seen) >= nth:
            return


def steps(pattern: str, text: str) -> list[int]:
    return [int(found) for found in re.findall(pattern, text)]


def reported(text: str) -> int:
    """The newest step that a "saved" line stands for: 8 batches an epoch."""
    found = [int(e) * 8 for e in re.findall(r"saved \S*checkpoint_epoch_(\d+)\.pth", text)]
    found += [(int(e) - 1) * 8 + int(b) for e, b in re.findall(r"saved \S*epoch_(\d+)_batch_(\d+)(?:_\d+)?\.pth", text)]
    return max([0, *found, *steps(r"resumed from step (\d+)", text)])


def one_run(number: int, reference: Path, rng: random.Random) -> str:
    """Returns what went wrong, or nothing."""
    workers = 2 if number % 4 >= 2 else 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        newest = 0
        for _ in range(2):
            text, killed = kill_at_random(folder, workers, while_saving=number % 2 == 0, rng=rng)
            newest = max(newest, reported(text))
            if not killed:
                break
        done = run(GAN, *SETTINGS, "--workers", workers, cwd=folder)
        if done.returncode != 0:
            return f"the next start ended with {done.returncode}: {done.stderr[-300:]}"
        resumed = max([0, *steps(r"resumed from step (\d+)", done.stdout)])
        if resumed < newest:
            return f"resumed from step {resumed}, but step {newest} had been reported as saved"
        unequal = differences(reference, folder / "checkpoints/latest_checkpoint.pth")
        return f"differs in {unequal[:5]}" if unequal else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    rng = random.Random(asked.seed)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        done = run(GAN, *SETTINGS, cwd=name)
        assert done.returncode == 0, done.stderr
        reference = Path(name) / "checkpoints/latest_checkpoint.pth"
        failures = 0
        for number in range(asked.runs):
            problem = one_run(number, reference, rng)
            failures += bool(problem)
            if problem or number % 10 == 9:
                print(f"run {number + 1}: {problem or 'good so far'}", flush=True)
    minutes = (time.monotonic() - began) / 60
    print(
        f"{asked.runs} runs, each killed up to twice: {asked.runs - failures} good, {failures} failed; {minutes:.0f} min"
    )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
