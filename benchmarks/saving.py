"""What a save and a verified load cost beside the plain calls, and how long a list of 1,000 checkpoints takes.

    python benchmarks/saving.py --megabytes 500

All in one run: in every round the writers take turns in a random order, and each begins once the pages of the one
before are on the disk, or it would pay for them. Medians, with the least and the most; the ratios are what counts. The
list is timed as a person types it, Python's start included.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from ganguard import state
from ganguard.store import aliases, body, commit, durable, envelope
from ganguard.store.envelope import HashingFile
from ganguard.store.summary import Kind, Summary

TENSORS = 50


def tensors(megabytes: int) -> dict[str, torch.Tensor]:
    count = megabytes * 1_000_000 // 4 // TENSORS
    return {f"tensor_{i}": torch.randn(count) for i in range(TENSORS)}


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def raw_write(payload: dict[str, torch.Tensor], path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for tensor in payload.values():
            view = memoryview(tensor.numpy()).cast("B")
            while len(view):
                view = view[file.write(view) :]
        os.fsync(file.fileno())


def torch_save(payload: dict[str, torch.Tensor], path: Path) -> None:
    with path.open("wb") as file:
        torch.save(payload, file)
        file.flush()
        os.fsync(file.fileno())


def our_save(payload: dict[str, torch.Tensor], folder: Path, step: int) -> Path:
    def dump(file: HashingFile) -> None:
        torch.save(payload, file)

    summary = Summary(kind=Kind.EPOCH, name=f"checkpoint_epoch_{step:03d}.pth", run="benchmark", step=step, epoch=step)
    part = commit.Part(summary=summary, dump=dump, expected_bytes=state.tensor_bytes(payload))
    return commit.commit(folder, [part]).head.path


def our_load(path: Path) -> None:
    envelope.verify(path)
    body.load_file(path)


def settled() -> None:
    """Return once what was written before is on the disk."""
    if hasattr(os, "sync"):
        os.sync()


def measure(folder: Path, megabytes: int, rounds: int, order: random.Random) -> dict[str, list[float]]:
    payload = tensors(megabytes)
    times: dict[str, list[float]] = {}

    def take_turns(works: dict[str, Callable[[], object]]) -> None:
        for name in order.sample(list(works), len(works)):
            settled()
            times.setdefault(name, []).append(seconds(works[name]))

    for turn in range(rounds):
        # Each writes a file that is new, and the last round's go only after: reused blocks are faster.
        raw, plain = folder / f"raw_{turn}", folder / f"plain_{turn}.pth"
        path = folder / "checkpoints" / f"checkpoint_epoch_{turn + 1:03d}.pth"
        take_turns(
            {
                "raw write and fsync": lambda raw=raw: raw_write(payload, raw),
                "torch.save and fsync": lambda plain=plain: torch_save(payload, plain),
                "ganguard save": lambda turn=turn: our_save(payload, folder / "checkpoints", turn + 1),
            }
        )
        take_turns({"alias of it": lambda path=path: aliases.point(path.with_name("latest_checkpoint.pth"), path)})
        take_turns(
            {
                "torch.load": lambda plain=plain: torch.load(plain, map_location="cpu", weights_only=True),
                "ganguard verified load": lambda path=path: our_load(path),
            }
        )
        for done in (raw, plain, path):
            done.unlink()
    return times


def time_list(folder: Path, count: int, rounds: int) -> float:
    """Seconds for ``--list`` over ``count`` checkpoints of 300 tensors, whole process."""
    payload = {f"tensor_{i}": torch.zeros(4) for i in range(300)}
    for step in range(1, count + 1):
        our_save(payload, folder, step)
    manager = [sys.executable, str(Path(__file__).parents[1] / "checkpoint_manager.py"), "--list"]
    words = [*manager, "--checkpoint-dir", str(folder)]
    return statistics.median(
        seconds(lambda: subprocess.run(words, check=True, capture_output=True)) for _ in range(rounds)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--list-count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="of the order of the turns")
    parser.add_argument("--folder", help="on the disk to be measured (default: the temporary folder's)")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=asked.folder))
    (folder / "checkpoints").mkdir()
    try:
        taken = measure(folder, asked.megabytes, asked.rounds, random.Random(asked.seed))
        times = {name: statistics.median(values) for name, values in taken.items()}
        save, load = times["ganguard save"], times["ganguard verified load"]
        print(f"{asked.megabytes} MB in {TENSORS} tensors, median of {asked.rounds} (least to most):")
        for name, value in times.items():
            print(f"  {name:<24} {value:7.3f} s ({min(taken[name]):.3f} to {max(taken[name]):.3f})")
        print(f"  save / raw write and fsync    {save / times['raw write and fsync']:.2f}")
        print(f"  save / torch.save and fsync   {save / times['torch.save and fsync']:.2f}")
        print(f"  verified load / torch.load    {load / times['torch.load']:.2f}")
        kind = "a hard link" if durable.read_only_protects(folder) else "a copy: this user may write read-only files"
        print(f"  the alias is {kind}")
        listed = time_list(folder / "many", asked.list_count, asked.rounds)
        print(f"--list over {asked.list_count} checkpoints of 300 tensors: {listed:.2f} s, Python's start included")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
