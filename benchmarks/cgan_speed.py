"""Images per second of gan.py beside a plain script of the same networks and loss, in one run.

    python benchmarks/cgan_speed.py --rounds 5

Each round runs both as a person starts them, one after the other; the first epoch of each is left out (it warms up).
gan.py guards, logs and saves as it does by default; grids and FID, which the plain script has not, are off.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
EPOCHS = 2


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--losses", nargs="+", default=["hinge", "wgan-gp", "relativistic"])
    asked = parser.parse_args()
    print("| loss | gan.py, images/s | plain script, images/s | ratio |")
    print("|---|---|---|---|")
    for loss in asked.losses:
        ours, plain = [], []
        for _ in range(asked.rounds):
            with tempfile.TemporaryDirectory() as folder:
                ours.append(of_gan(Path(folder), loss, asked.threads))
                plain.append(of_plain(Path(folder), loss, asked.threads))
        ratios = [a / b for a, b in zip(ours, plain, strict=True)]
        print(
            f"| {loss} | {statistics.median(ours):.0f} | {statistics.median(plain):.0f} "
            f"| {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |",
            flush=True,
        )


def of_gan(folder, loss, threads):
    words = ["--loss", loss, "--epochs", EPOCHS, "--threads", threads, "--sample-every", 0, "--fid-every", 0]
    subprocess.run(
        [sys.executable, ROOT / "gan.py", "--run-dir", folder, "--width", "16", *map(str, words)],
        stdout=subprocess.DEVNULL,
        check=True,
    )
    (journal,) = folder.glob("logs/*/journal.jsonl")
    rows = [json.loads(line) for line in journal.read_text().splitlines()]
    rates = [row["images_per_second"] for row in rows if "epoch_end" in row]
    return rates[-1]


def of_plain(folder, loss, threads):
    words = ["--cache-dir", folder / "cache", "--loss", loss, "--epochs", EPOCHS, "--threads", threads]
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks/plain_cgan.py", *map(str, words)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    rates = [float(rate) for rate in re.findall(r"([\d.]+) images/s", done.stdout)]
    return rates[-1]


if __name__ == "__main__":
    main()
