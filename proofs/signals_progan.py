"""Each signal at each moment of a real progan_local.py run, to the process and to its group, many times over.

    python proofs/signals_progan.py [--repeats 10] [--only MOMENT …] [--seed 0]

The signals are SIGINT, SIGTERM, SIGHUP, and SIGUSR1 under both --on-usr1 stop and save. Right before one is sent it is
looked whether the run really is in the moment (the column "hit"); progan_moments.py tells how each one is met.

A stop must end with 128 + signal and no traceback. Before the training began it says so, and the checkpoints are as
they were. Afterwards the newest pair is whole, both files verified, at the very step that the journal ends with, and
named in the output, with its size and the command that goes on. With --on-usr1 save the run must go on to its end,
bit-equal to an uninterrupted one. After the first stop of each kind the printed command is run, too: it must go on from
exactly that step and end bit-equal (the column "exact"). Exit code 1 where anything failed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path += [str(ROOT / "tests" / folder) for folder in ("cli", "exact", "helpers")]
from typed import differences  # noqa: E402  # likewise
from zygote import Process, Zygote  # noqa: E402  # likewise

from ganguard.store import envelope, resume  # noqa: E402  # likewise
from ganguard.store.pair import Pair  # noqa: E402  # likewise
from ganguard.store.resume import Request  # noqa: E402  # likewise
from ganguard.store.shelf import Shelf  # noqa: E402  # likewise
from progan_moments import (  # noqa: E402  # the paths come first
    HELD,
    IMAGES,
    LAST_STEP,
    MOMENTS,
    SAME_SECOND,
    SCRIPT,
    TINY,
    WRITES,
    Failed,
    Moment,
    Run,
    Typed,
    give_images_back,
    is_saving,
    require,
)

# One case: a run, a signal, what came of it.

SIGNALS = [
    (signal.SIGINT, "stop"),
    (signal.SIGTERM, "stop"),
    (signal.SIGHUP, "stop"),
    (signal.SIGUSR1, "stop"),
    (signal.SIGUSR1, "save"),
]


@dataclass
class Proof:
    """Runs cases below ``place`` with one ``server``; data, cache and the uninterrupted run are made once."""

    server: Zygote
    place: Path
    rng: random.Random
    count: int = 0
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    earlier: dict[str, Path] = field(default_factory=dict)  # stopped runs to begin with

    def __post_init__(self) -> None:
        data, noise = self.place / "data" / "scans", np.random.default_rng(0)
        data.mkdir(parents=True)
        for number in range(IMAGES):
            pixels = noise.integers(0, 256, (128, 128, 3), np.uint8)
            Image.fromarray(pixels).save(data / f"{number:02d}.png", compress_level=0)
        self.whole = self._folder()
        process = self.server.start(SCRIPT, *TINY, "--cache-dir", self.place / "cache", cwd=self.whole)
        require(process.wait() == 0, process.output())
        require(steps_of(self.whole) == list(range(1, LAST_STEP + 1)), "the uninterrupted run is another one")

    def _folder(self, *, own_data: bool = False) -> Path:
        self.count += 1
        folder = self.place / f"run_{self.count}"
        folder.mkdir()
        if own_data:
            shutil.copytree(self.place / "data" / "scans", folder / "scans")
        else:
            (folder / "scans").symlink_to(self.place / "data" / "scans")
        return folder

    def case(self, moment: Moment, number: int, mode: str, *, group: bool, exact: bool) -> tuple[str, bool]:
        """Returns what came of it in a word or two, and whether the signal came in the moment.

        Args:
            exact: whether to go on after a stop, and to compare the end.

        Raises:
            Failed: something that was promised does not hold.
        """
        words = [*TINY, *moment.words]
        words += [] if moment.own_cache else ["--cache-dir", self.place / "cache"]
        folder = self._stopped_at(moment.before, words) if moment.before else self._folder(own_data=moment.own_data)
        words += ["--on-usr1", mode]
        run = Run(folder, self._start(moment, folder, words), self.rng)
        try:
            hit, old, said = strike(run, moment, number, group=group)
            code = run.process.wait()
            text = run.process.output()
            came = self._judge(run, number, mode, code, text, old)
            require(came != "too late" or not hit or moment.anywhere, f"the stop was not heeded: {text}")
            if mode == "stop" and hit:
                moment.check(folder)
            if mode == "save" and moment.trained and hit:
                require("saved weights" in text[said:], f"no save after the signal: {text[said:]}")
            if moment.own_data:
                give_images_back(run, number)
            if exact and mode == "stop" and "Finished" not in text:
                self._go_on(folder, text, words)
                came += ", exact"
        finally:
            with contextlib.suppress(OSError):
                os.killpg(run.pid, signal.SIGKILL)
        shutil.rmtree(folder)
        return came, hit

    def _start(self, moment: Moment, folder: Path, words: list[object]) -> Process | Typed:
        if moment.interpreter:
            return Typed(SCRIPT, *words, cwd=folder)
        script = SCRIPT
        if moment.hold:
            script = folder / "held.py"
            script.write_text(self._held(moment.hold))
        return self.server.start(script, *words, cwd=folder)

    def _held(self, hold: str) -> str:
        hold = hold.replace("{n}", str(self.rng.randint(1, WRITES)))
        return HELD.format(root=str(ROOT), script=str(SCRIPT), hold=hold)

    def _stopped_at(self, hold: str, words: list[object]) -> Path:
        """A folder with a run that was stopped in an emergency."""
        if hold not in self.earlier:
            folder = self._folder()
            script = folder / "earlier.py"
            script.write_text(self._held(f"{hold}; {SAME_SECOND}"))
            process = self.server.start(script, *words, cwd=folder)
            process.until("NOW")
            process.signal(signal.SIGINT)
            require(process.wait() == 128 + signal.SIGINT, process.output())
            self.earlier[hold] = folder
        self.count += 1
        return Path(shutil.copytree(self.earlier[hold], self.place / f"run_{self.count}", symlinks=True))

    def _judge(self, run: Run, number: int, mode: str, code: int, text: str, old: dict[str, bytes]) -> str:
        require("Traceback" not in text and "Exception ignored" not in text, f"a traceback: {text}")
        require(not is_saving(run), "a temporary file is left")
        if mode == "save" or (code == 0 and "Finished" in text):
            require(code == 0 and "Finished: 16 px" in text, f"ended with {code}: {text}")
            self._compare(run.folder)
            return "went on" if mode == "save" else "too late"
        require(code == 128 + number, f"exit code {code}: {text}")
        if "Checkpoints of scans in" not in text:
            require("nothing was changed" in text, f"it does not say what was: {text}")
            require(pairs_of(run.folder) == old, f"the checkpoints are not as they were: {text}")
            return "nothing began"
        return stopped_well(run.folder, text)

    def _go_on(self, folder: Path, text: str, words: list[object]) -> None:
        """Run the command that was printed, or the same again where nothing began; it must end as if never stopped."""
        script, step = SCRIPT, 0
        if "To go on: " in text:
            _, name, *typed = shlex.split(text.split("To go on: ")[1].splitlines()[0])
            script, words = Path(name), list(typed)
            step = max([0, *steps_of(folder)])
        process = self.server.start(script, *words, cwd=folder)
        require(process.wait() == 0, f"the next start failed: {process.output()}")
        require(not step or f"resumed from step {step}." in process.output(), f"not from {step}: {process.output()}")
        self._compare(folder)

    def _compare(self, folder: Path) -> None:
        for network in ("generator", "critic"):
            one, other = (place / "weights" / f"{network}_scans_local.pth" for place in (folder, self.whole))
            unequal = [name for name in differences(one, other) if not name.startswith(".config.")]
            require(not unequal, f"the {network} differs: {unequal[:5]}")
        require(journal(folder) == journal(self.whole), "the journal differs")


def strike(run: Run, moment: Moment, number: int, *, group: bool) -> tuple[bool, dict[str, bytes], int]:
    """Send the signal in the moment; whether it was that, the checkpoints, and the length of the output then."""
    moment.meet(run)
    old, said = pairs_of(run.folder), len(run.process.output())
    send, hit = os.killpg if group else os.kill, moment.holds(run)
    send(run.pid, number)
    moment.after(run, number)
    return hit, old, said


def stopped_well(folder: Path, text: str) -> str:
    """Look at what a stop within the training left on disk, and at what it said of that."""
    require("To go on: " in text, f"no command that goes on: {text}")
    step = max([0, *steps_of(folder)])
    shelf = Shelf(folder / "weights", Pair(name="scans"))
    plan = resume.plan(shelf, Request())
    if step == 0:
        require(plan.start is None and "Nothing was saved yet." in text, f"there is something at step 0: {text}")
        return "at step 0"
    require(plan.start is not None, f"no checkpoint: {text}")
    head = plan.start
    require(head.summary.step == step, f"step {head.summary.step} is on disk, {step} were made: {text}")
    envelope.verify(head.path)
    (promised,), (companion,) = head.summary.companions, plan.companions
    require(envelope.verify(companion.path)["digest"] == promised.digest, "the critic is another one's")
    named = head.path.relative_to(folder)
    require(f"The newest checkpoint is {named} (step {step})." in text, f"{named} is not named: {text}")
    if not head.path.name.startswith("EMERGENCY_generator_"):
        return "regular pair"
    told = rf"saved {re.escape(f'{named} and {companion.path.name}')} \([\d.]+ kB in [\d.]+ s, verified\)"
    require(re.search(told, text) or f"Resumed from {named}" in text, f"size and place are missing: {text}")
    return "emergency pair"


def pairs_of(folder: Path) -> dict[str, bytes]:
    weights = folder / "weights"
    return {str(path): path.read_bytes() for path in sorted(weights.rglob("[!.]*.pth"))} if weights.exists() else {}


def journal(folder: Path) -> list[dict[str, object]]:
    """The lines of the steps: those of epochs hold the speed."""
    rows = [json.loads(line) for path in folder.glob("logs/*/journal.jsonl") for line in path.open()]
    return [row for row in rows if "loss_d" in row and "epoch_end" not in row]


def steps_of(folder: Path) -> list[int]:
    return [int(str(row["step"])) for row in journal(folder)]


# The table.


def prove(proof: Proof, moments: Iterable[Moment], repeats: int) -> int:
    """Returns how many cases failed."""
    failed = 0
    for moment in moments:
        counts = proof.counts.setdefault(moment.name, Counter())
        for number, mode in SIGNALS:
            for repeat in range(2 * repeats):
                group = bool(repeat % 2)
                counts["sent"] += 1
                try:
                    came, hit = proof.case(moment, number, mode, group=group, exact=repeat == 0)
                except (Failed, AssertionError, subprocess.TimeoutExpired) as error:
                    failed += 1
                    counts["failed"] += 1
                    to = "the group" if group else "the process"
                    print(f"{moment.name}, {signal.Signals(number).name} ({mode}) to {to}: {error}", flush=True)
                    continue
                counts["hit"] += hit
                counts.update(came.split(", "))
        print(row(moment.name, counts), flush=True)
    return failed


COLUMNS = (
    *("sent", "hit", "emergency pair", "regular pair", "at step 0", "nothing began", "too late"),
    *("went on", "exact", "failed"),
)


def row(name: str, counts: Counter[str]) -> str:
    return f"{name:24}" + "".join(f"{counts[column]:>{max(6, len(column) + 2)}}" for column in COLUMNS)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--only", nargs="+", choices=[moment.name for moment in MOMENTS])
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    began = time.monotonic()
    for number in (signal.SIGINT, signal.SIGHUP):  # ignored where a shell started this in the background
        signal.signal(number, signal.SIG_DFL)
    moments = [moment for moment in MOMENTS if not asked.only or moment.name in asked.only]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name, Zygote() as server:
        proof = Proof(server, Path(name), random.Random(asked.seed))
        print(f"{'moment':24}" + "".join(f"{column:>{max(6, len(column) + 2)}}" for column in COLUMNS), flush=True)
        failed = prove(proof, moments, asked.repeats)
        total = sum(proof.counts.values(), Counter())
        print(row("together", total))
    print(f"{total['sent']} signals, {failed} failed; {(time.monotonic() - began) / 60:.1f} min")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
