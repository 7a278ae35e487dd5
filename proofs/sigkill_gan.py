"""Runs of gan.py killed with SIGKILL at random instants, half of them while saving; each must end bit-equal.

    python proofs/sigkill_gan.py --runs 200

Each run is killed twice, then left to end. It checks that no start meets a lock, data workers of the killed process
still dying or not; that each resumes from no step before the newest save that was reported; and that the state at the
end equals an uninterrupted run's, bit for bit. Exit code 1 where one fails.
"""

from __future__ import annotations

import argparse
import random
import re
import signal
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path += [str(ROOT / "tests" / folder) for folder in ("cli", "exact", "helpers")]
from typed import differences  # noqa: E402  # the paths come first
from zygote import Process, Zygote  # noqa: E402  # likewise

BATCHES = 8  # an epoch
SETTINGS = [
    *("--limit-images", 64, "--batch-size", 64 // BATCHES, "--width", 4, "--epochs", 8, "--threads", 1),
    *("--autosave-batches", 2, "--sample-every", 0, "--fid-every", 0),
]


def start(server: Zygote, folder: Path, workers: int) -> Process:
    return server.start(ROOT / "gan.py", *SETTINGS, "--workers", workers, cwd=folder)


def kill_once(process: Process, checkpoints: Path, *, while_saving: bool, rng: random.Random) -> bool:
    """Kill at a random instant after the first line was printed; returns whether a file was being written then."""
    process.until("\n")
    if while_saving:
        wait_for_write(checkpoints, process, nth=rng.randrange(1, 12))
    else:
        time.sleep(rng.uniform(0, 1.5))
    process.signal(signal.SIGKILL)  # the process alone: its workers live on, as when the kernel kills for memory
    process.wait()
    return any(checkpoints.glob(".tmp-*"))


def wait_for_write(checkpoints: Path, process: Process, nth: int) -> None:
    """Return while the ``nth`` file is being written, or when the process has ended."""
    seen: set[Path] = set()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and "All 8" not in process.output():
        writing = set(checkpoints.glob(".tmp-*"))
        seen |= writing
        if writing and len(seen) >= nth:
            return


def reported(text: str) -> int:
    """The newest step that was reported as saved, or resumed from."""
    found = [int(epoch) * BATCHES for epoch in re.findall(r"saved \S*epoch_(\d+)(?:_\d+)?\.pth", text)]
    for epoch, batch in re.findall(r"saved \S*epoch_(\d+)_batch_(\d+)(?:_\d+)?\.pth", text):
        found.append((int(epoch) - 1) * BATCHES + int(batch))
    return max([0, *found, *resumed(text)])


def resumed(text: str) -> list[int]:
    return [int(step) for step in re.findall(r"resumed from step (\d+)", text)]


def one_run(server: Zygote, number: int, reference: Path, rng: random.Random) -> tuple[str, int]:
    """Returns what went wrong, or nothing, and how many of the kills hit a write."""
    workers = 2 if number % 4 >= 2 else 0
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        newest, hits = 0, 0
        for _ in range(2):
            process = start(server, folder, workers)
            hits += kill_once(process, folder / "checkpoints", while_saving=number % 2 == 0, rng=rng)
            if problem := too_old(process.output(), newest):
                return problem, hits
            newest = max(newest, reported(process.output()))
        process = start(server, folder, workers)
        if (code := process.wait(120)) != 0:
            return f"the next start ended with {code}: {process.output()[-400:]}", hits
        if problem := too_old(process.output(), newest):
            return problem, hits
        unequal = differences(reference, folder / "checkpoints/latest_checkpoint.pth")
        return (f"differs in {unequal[:5]}" if unequal else ""), hits


def too_old(text: str, newest: int) -> str:
    began = max(resumed(text), default=0)
    if "Checkpoints in" in text and began < newest:
        return f"resumed from step {began}, but step {newest} had been reported as saved"
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    rng = random.Random(asked.seed)
    began = time.monotonic()
    failures = hits = 0
    with tempfile.TemporaryDirectory() as name, Zygote() as server:
        process = start(server, Path(name), workers=0)
        assert process.wait(120) == 0, process.output()
        reference = Path(name) / "checkpoints/latest_checkpoint.pth"
        for number in range(asked.runs):
            problem, hit = one_run(server, number, reference, rng)
            failures += bool(problem)
            hits += hit
            if problem or number % 20 == 19:
                print(f"run {number + 1}: {problem or 'good so far'}", flush=True)
    minutes = (time.monotonic() - began) / 60
    print(f"{asked.runs} runs, each killed twice, {hits} of the kills while a file was being written:")
    print(f"{asked.runs - failures} good, {failures} failed; {minutes:.1f} min")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
