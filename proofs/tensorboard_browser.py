"""TensorBoard after three kills and one return to an earlier epoch, asked and looked at in a real browser.

    python proofs/tensorboard_browser.py --out pictures

Processes that write numbers and pictures as the trainer does are killed with SIGKILL, go on from an earlier checkpoint,
and in the end go back to an earlier epoch. Then four TensorBoards are asked for every value: with the fast data server
and without, started anew and running since before the first kill. Each must answer with one value per position, the
newest life's. Chromium takes a picture of each for a person to look at. Exit code 1 where a value is wrong. Without a
browser no pictures are taken, and it says so.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

import torch

from ganguard.reports.board import Board

STEPS = 20  # an epoch
EVERY = 5  # steps between two numbers
LIVES = [  # each goes on from a position and is killed at a step; the fourth goes back from epoch 8 to epoch 4's end
    {"start": 0, "killed": 57},
    {"start": 40, "killed": 93},
    {"start": 80, "killed": 147},
    {"start": 80, "killed": 131},
    {"start": 120, "killed": 201},
]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def number(life: int, step: int) -> float:
    """A smooth curve; each life's lies a little higher, so that a wrong life's value is seen."""
    return 2 * math.exp(-step / 80) + 0.01 * life


def live(folder: Path, life: int) -> None:
    """Write until killed."""
    board = Board(folder, step=LIVES[life]["start"], say=print)
    for step in range(LIVES[life]["start"] + 1, LIVES[life]["killed"] + 1):
        if step % EVERY == 0:
            board.scalars(step, {"step/loss_d": number(life, step), "step/loss_g": 3 - number(life, step)})
        if step % STEPS == 0:
            board.epochs([{"epoch": step // STEPS, "step": step, "loss_d": number(life, step), "fid": 100 - step / 4}])
            shade = torch.full((3, 64, 64), step, dtype=torch.uint8)
            shade[life % 3, :32] = 255
            board.image(step, "samples", shade)
    print("done", flush=True)
    time.sleep(60)


def live_and_be_killed(folder: Path, life: int) -> None:
    words = [sys.executable, __file__, "--live", str(folder), str(life)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        said = process.stdout.readline()
        process.kill()
    tear(folder)
    if said != "done\n":
        raise SystemExit(f"The writer said: {said}")


def tear(folder: Path) -> None:
    """Leave half a record at the end of the newest file, as a power cut may."""
    newest = max(folder.glob("*tfevents*"), key=lambda path: path.name)
    with newest.open("ab") as file:
        file.write(newest.read_bytes()[:17])


def right(every: int) -> dict[int, int]:
    """What must be there: each step of a tag, and the life that it is of."""
    there: dict[int, int] = {}
    for life, span in enumerate(LIVES):
        there = {step: old for step, old in there.items() if step <= span["start"]}
        there |= {step: life for step in range(span["start"] + 1, span["killed"] + 1) if step % every == 0}
    return there


@contextlib.contextmanager
def tensorboard(folder: Path, *words: str):
    """A server over a folder; gives its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--port", str(port), *words]
    process = subprocess.Popen(
        [*command, "--reload_interval", "1", "--samples_per_plugin", "images=1000"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def ask(address: str, plugin: str, tag: str) -> list[tuple[int, float | None]]:
    """(step, value) of every event of a tag, in the order in which the server gives them."""
    kind = {"scalars": "scalars", "images": "images"}[plugin]
    query = urllib.parse.urlencode({"run": "tensorboard", "tag": tag, "sample": 0})
    with urllib.request.urlopen(f"{address}/data/plugin/{plugin}/{kind}?{query}", timeout=20) as answer:
        rows = json.load(answer)
    return [(row[1], row[2]) for row in rows] if plugin == "scalars" else [(row["step"], None) for row in rows]


def wrong(address: str) -> list[str]:
    """What a server shows that it must not, or lacks."""
    found = []
    for tag, every in (("step/loss_d", EVERY), ("epoch/loss_d", STEPS)):
        rows = ask(address, "scalars", tag)
        must = [(step, number(life, step)) for step, life in right(every).items()]
        same = len(rows) == len(must) and all(
            a[0] == b[0] and abs(a[1] - b[1]) < 1e-5 for a, b in zip(rows, must, strict=True)
        )
        if not same:
            found.append(f"{tag}: {rows}")
    shown = [step for step, _ in ask(address, "images", "samples")]
    if shown != list(right(STEPS)):
        found.append(f"samples: {shown}")
    return found


def wait_until_right(address: str, seconds: float = 90) -> list[str]:
    """A server loads its files after it has begun to answer."""
    end = time.monotonic() + seconds
    while True:
        try:
            found = wrong(address)
        except OSError as error:
            found = [str(error)]
        if not found or time.monotonic() > end:
            return found
        time.sleep(1)


def photograph(browser: str, address: str, out: Path, name: str) -> None:
    for page in ("scalars", "images"):
        picture = out / f"{name}_{page}.png"
        with tempfile.TemporaryDirectory() as profile:
            subprocess.run(
                [
                    *(browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"),
                    *("--window-size=1400,1000", "--virtual-time-budget=30000", f"--screenshot={picture}"),
                    f"{address}/#{page}&_smoothingWeight=0&_ignoreYOutliers=false",
                ],
                check=True,
                capture_output=True,
                timeout=180,
            )
        print(f"picture: {picture}", flush=True)


def prove(out: Path) -> int:
    out.mkdir(parents=True, exist_ok=True)
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print(f"No browser ({', '.join(BROWSERS)}) is there: no pictures are taken.")
    kinds = {"fast": (), "plain": ("--load_fast=false",)}
    bad = 0
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as running:
        folder = Path(place) / "logs" / "tensorboard"
        folder.mkdir(parents=True)
        servers = {f"{k}_running": running.enter_context(tensorboard(folder.parent, *w)) for k, w in kinds.items()}
        for life in range(len(LIVES)):
            live_and_be_killed(folder, life)
            time.sleep(4)  # the running servers read what is soon to be taken back
        servers |= {f"{k}_anew": running.enter_context(tensorboard(folder.parent, *w)) for k, w in kinds.items()}
        for name, address in servers.items():
            found = wait_until_right(address)
            bad += bool(found)
            print(f"{name}: {'; '.join(found) or 'one value per position'}", flush=True)
            if browser:
                photograph(browser, address, out, name)
    return 1 if bad else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("tensorboard_pictures"), help="folder for the pictures")
    parser.add_argument("--live", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.live:
        live(Path(options.live[0]), int(options.live[1]))
    else:
        sys.exit(prove(options.out))


if __name__ == "__main__":
    main()
