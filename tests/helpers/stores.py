"""Real checkpoint folders for the tests of the store: written by its own commit, found by its own plan."""

from __future__ import annotations

import functools
import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from systems import remove

from ganguard.store import aliases, commit, names, resume
from ganguard.store.catalog import Entry
from ganguard.store.shelf import Shelf
from ganguard.store.summary import Kind, Summary

SOURCE = Path(__file__).parents[2] / "src"
NOBODY = 65534
needs_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounts a file system, or becomes another user"
)


@functools.cache
def archive(seed: int = 0, tensors: int = 6) -> bytes:
    """What ``torch.save`` writes for a few small tensors."""
    import torch

    made = torch.Generator().manual_seed(seed)
    payload = {f"layer{i}": {"weight": torch.randn(16, 16, generator=made)} for i in range(tensors)}
    file = io.BytesIO()
    torch.save(payload, file)
    return file.getvalue()


def summary(epoch: int = 1, **fields) -> Summary:
    defaults = {
        "kind": Kind.EPOCH,
        "name": names.epoch_end(epoch),
        "run": "run-a",
        "epoch": epoch,
        "step": epoch * 10,
        "images": epoch * 640,
        "means": {"loss_d": 1.5, "loss_g": 0.5},
        "config": {"image_size": 32, "channels": 3},
    }
    return Summary(**{**defaults, **fields})


def part(about: Summary, data: bytes | None = None) -> commit.Part:
    data = archive(about.epoch % 7) if data is None else data
    return commit.Part(summary=about, dump=lambda file: file.write(data), expected_bytes=len(data))


def save(folder: Path, epoch: int = 1, *, alias: bool = False, **fields) -> Entry:
    """One checkpoint of one file, as a run writes it."""
    entry = commit.commit(folder, [part(summary(epoch, **fields))]).head
    if alias:
        assert aliases.point(folder / names.LATEST, entry.path) is None
    return entry


def save_pair(folder: Path, epoch: int = 1, **fields) -> Entry:
    """A checkpoint of two files: a critic's, and the generator's that is its head."""
    critic = summary(epoch, kind=Kind.COMPANION, **{**fields, "name": f"critic_epoch_{epoch:03d}.pth"})
    generator = summary(epoch, **{**fields, "name": f"generator_epoch_{epoch:03d}.pth"})
    return commit.commit(folder, [part(critic, archive(100 + epoch)), part(generator, archive(200 + epoch))]).head


def pair_parts(shelf: Shelf, epoch: int, data: tuple[bytes, bytes] | None = None, **fields) -> list[commit.Part]:
    """What a run of pairs writes at an epoch's end; ``data`` spares a process the loading of torch."""
    second, first = shelf.file_names(Kind.EPOCH, epoch=epoch, batch=0, step=epoch * 10)
    fields = {"pair": shelf.pair, **fields}
    critic = summary(epoch, kind=Kind.COMPANION, **{**fields, "name": second})
    generator = summary(epoch, **{**fields, "name": first})
    of_critic, of_generator = data or (archive(100 + epoch), archive(200 + epoch))
    return [part(critic, of_critic), part(generator, of_generator)]


def save_on_shelf(shelf: Shelf, epoch: int = 1, **fields) -> Entry:
    """A pair as a run of a shelf writes it, its fixed names too."""
    saved = commit.commit(shelf, pair_parts(shelf, epoch, **fields))
    assert aliases.point_all(shelf, saved.paths) == []
    return saved.head


def start(folder: Path | Shelf, **asked) -> tuple[resume.Plan, Path | None, list[str]]:
    """Plan and carry out, as a training does when it begins."""
    plan = resume.plan(folder, resume.Request(**asked))
    path, told = resume.carry_out(plan)
    return plan, path, told


def rewrite(path: Path, data: bytes) -> None:
    """Put other bytes at a path, as a failing disk does: without regard for permissions."""
    remove(path)
    path.write_bytes(data)


def flip(path: Path, offset: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1 << bit
    rewrite(path, bytes(data))


def damage(path: Path) -> None:
    """One bit flipped in the middle: only a pass over all bytes can tell."""
    flip(path, path.stat().st_size // 3)


def tree(folder: Path) -> dict[str, bytes]:
    """Every checkpoint file below a folder, by relative path."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*.pth"))}


@contextmanager
def small_disk(at: Path, size: str) -> Iterator[Path]:
    """A real file system of a few kilobytes."""
    at.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(at)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount here: {mounted.stderr.decode()}")
    try:
        yield at
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True)


def become_nobody() -> None:
    """Give up root's privileges for good; what is to be used must be imported and warm by now."""
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


def let_everybody_in(folder: Path) -> None:
    """Others may look into ``folder``, and into pytest's own folders on the way there, which they may not."""
    for place in (folder, *folder.parents):
        if Path(tempfile.gettempdir()) in place.parents:
            place.chmod(0o755)


def python(code: str, *arguments: object, before: tuple[str, ...] = ()) -> subprocess.Popen:
    """A second, real process that runs ``code`` with the store to hand."""
    environment = {**os.environ, "PYTHONPATH": f"{SOURCE}{os.pathsep}{Path(__file__).parent}", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*before, sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def finished(process: subprocess.Popen) -> str:
    """Its output; the test fails with its error where it did not end well."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out
