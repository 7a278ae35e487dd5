"""Criterion 4 in full: damage done to a real checkpoint is always noticed, and stepped over to the one before.

    python proofs/damage.py [--flips 2000] [--cuts 500] [--seed 0]

Writes two checkpoints with the store and torch, damages the newer in every way below, and asks three questions each
time: does ``verify`` refuse it, does a start go on from the older one, and does neither ``peek`` nor ``scan`` fail?
It also says how often ``torch.load`` itself would have noticed. Exit code 1 on any miss.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from ganguard.errors import DamagedCheckpoint
from ganguard.store import catalog, commit, envelope, names, resume
from ganguard.store.summary import Kind, Summary

Damage = Iterator[tuple[str, bytes]]


def write(folder: Path, epoch: int) -> Path:
    """A checkpoint of a small conditional GAN's shape: two networks, two Adam states."""
    torch.manual_seed(epoch)
    networks = [torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Conv2d(3, 16, 4)) for _ in range(2)]
    optimizers = [torch.optim.Adam(network.parameters()) for network in networks]
    for network, optimizer in zip(networks, optimizers, strict=True):
        sum(p.square().sum() for p in network.parameters()).backward()
        optimizer.step()
    payload = {"generator": networks[0].state_dict(), "discriminator": networks[1].state_dict()}
    payload |= {"opt_g": optimizers[0].state_dict(), "opt_d": optimizers[1].state_dict()}
    payload |= {"progress": {"epoch": epoch, "step": epoch * 100}, "random": {"torch": torch.get_rng_state()}}
    about = Summary(
        kind=Kind.EPOCH, name=names.epoch_end(epoch), run="proof", epoch=epoch, step=epoch * 100, means={"loss_g": 0.5}
    )
    part = commit.Part(summary=about, dump=lambda file: torch.save(payload, file), expected_bytes=1 << 20)
    return commit.commit(folder, [part]).head.path


def flips(whole: bytes, count: int, draw: random.Random) -> Damage:
    for _ in range(count):
        yield "one bit flipped, anywhere", flipped(whole, draw.randrange(len(whole)), draw.randrange(8))


def structural(whole: bytes, path: Path) -> Damage:
    """Every bit of the local headers, the pickle, the central directory, the end record and the comment."""
    with zipfile.ZipFile(path) as opened:
        items, directory = opened.infolist(), opened.start_dir
    end = whole.rindex(b"PK\x05\x06")
    pickles = [(start(whole, item), item.file_size) for item in items if item.filename.endswith(".pkl")]
    fields = {
        "local headers": [range(i.header_offset, i.header_offset + 30 + len(i.filename)) for i in items],
        "the pickle": [range(s, s + size) for s, size in pickles],
        "central directory": [range(directory, end)],
        "end record": [range(end, end + 22)],
        "comment and footer": [range(end + 22, len(whole))],
    }
    for name, places in fields.items():
        for offset in (o for place in places for o in place):
            for bit in range(8):
                yield f"every bit: {name}", flipped(whole, offset, bit)


def start(whole: bytes, item: zipfile.ZipInfo) -> int:
    """Where a member's bytes begin."""
    name, extra = (int.from_bytes(whole[item.header_offset + at :][:2], "little") for at in (26, 28))
    return item.header_offset + 30 + name + extra


def cuts(whole: bytes, count: int, draw: random.Random) -> Damage:
    near = {0, 1, 2, 21, 22, 23, *(len(whole) - n for n in range(1, 20))}
    for length in sorted(near | set(draw.sample(range(len(whole)), count - len(near)))):
        yield "cut off", whole[:length]


def pages(whole: bytes) -> Damage:
    for begin in range(0, len(whole), 4096):
        yield "a page of zeros", (whole[:begin] + bytes(4096) + whole[begin + 4096 :])[: len(whole)]


def lost_comments(whole: bytes) -> Damage:
    end = whole.rindex(b"PK\x05\x06")
    bare = whole[: end + 22]
    yield "comment cut off", bare
    yield "comment cut off, its length zeroed", bare[:-2] + b"\0\0"
    for gone in range(1, len(whole) - end - 22):
        yield "comment shortened, its length mended", bare[:-2] + gone.to_bytes(2, "little") + whole[end + 22 :][:gone]


def additions(whole: bytes, older: bytes) -> Damage:
    for more in (b"\0", b"\n", b"x" * 50, bytes(4096), bytes(100_000), older, whole):
        yield "bytes appended", whole + more
        yield "bytes put before", more + whole
        yield "bytes put in the middle", whole[:5000] + more + whole[5000:]
    yield "a piece doubled", whole[:5000] + whole[3000:]
    yield "another's comment", whole[: whole.rindex(b"PK\x05\x06")] + older[older.rindex(b"PK\x05\x06") :]


def flipped(whole: bytes, offset: int, bit: int) -> bytes:
    return whole[:offset] + bytes([whole[offset] ^ 1 << bit]) + whole[offset + 1 :]


def is_noticed(path: Path, older: Path) -> bool:
    catalog.scan(path.parent)
    try:
        envelope.verify(path)
        return False
    except DamagedCheckpoint:
        pass
    found = resume.plan(path.parent, resume.Request()).start
    return found is not None and found.path == older


def torch_notices(path: Path) -> bool:
    try:
        torch.load(path, weights_only=True)
    except Exception:  # whatever it says, it noticed
        return True
    return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=2000)
    parser.add_argument("--cuts", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    draw, began = random.Random(asked.seed), time.monotonic()
    done: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    by_torch: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as place:
        older, path = write(Path(place), 1), write(Path(place), 2)
        whole = path.read_bytes()
        path.chmod(0o644)
        kinds = (
            flips(whole, asked.flips, draw), structural(whole, path), cuts(whole, asked.cuts, draw), pages(whole),
            lost_comments(whole), additions(whole, older.read_bytes()),
        )  # fmt: skip
        for name, data in (case for kind in kinds for case in kind):
            path.write_bytes(data)
            done[name] += 1
            missed[name] += not is_noticed(path, older)
            if done[name] % 20 == 1:  # a sample: it is slow
                by_torch[name] += torch_notices(path)
        path.write_bytes(whole)
        sound = envelope.verify(path)["epoch"] == 2
    print(f"A checkpoint of {len(whole):,} bytes, damaged {sum(done.values()):,} times:\n")
    print(f"{'damage':40} {'done':>7} {'missed':>7}   torch.load alone misses (of a sample)")
    for name, count in done.items():
        sample = (count + 19) // 20
        print(f"{name:40} {count:7,} {missed[name]:7,}   {sample - by_torch[name]} of {sample}")
    print(f"\nUndamaged again, it verifies: {sound}. {time.monotonic() - began:.0f} s.")
    return 1 if missed.total() or not sound else 0


if __name__ == "__main__":
    sys.exit(main())
