"""Tiny seeded trainings, run through the commands, and digests of everything that they come to.

``python tests/golden/runs.py FOLDER [NAME …]`` runs them below FOLDER, goes on with what lies there, and prints their
digests as JSON. ``hinge-backup:--resume`` is the training ``hinge`` in a folder ``hinge-backup`` with ``--resume``
typed. The kernels are pinned to those that every x86-64 processor has, so that the figures hold on all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Read when torch is loaded: no sum depends on the processor's own instructions then.
PINNED = {
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "OMP_NUM_THREADS": "1",
}
TIMES = ("images_per_second", "seconds", "time")
EXAMPLES = Path(__file__).parents[2] / "examples"
CGAN = [
    *("--limit-images", "96"),
    *("--batch-size", "8"),
    *("--width", "4"),
    *("--epochs", "2"),
    *("--threads", "1"),
    *("--fid-every", "0"),
    *("--seed", "1"),
    *("--device", "cpu"),
]
PROGAN = [
    *("--data-dir", "emoji"),
    *("--limit-images", "40"),
    *("--img-size", "16"),
    *("--batch-sizes", "8,6,4"),
    *("--progressive-epochs", "1,2,2"),
    *("--in-channels", "4"),
    *("--z-dim", "4"),
    *("--gradient-accumulation-steps", "1"),
    *("--threads", "1"),
    *("--device", "cpu"),
    *("--cache-dir", "cache"),
]


def hinge(*words: str) -> None:
    _cgan("--loss", "hinge", *words)


def wgan_gp(*words: str) -> None:
    _cgan("--loss", "wgan-gp", "--critic-steps", "2", *words)


def progressive(*words: str) -> None:
    """4, 8 and 16 px: two growths, and a fade after each."""
    from ganguard.cli import progan

    _done(progan.main([*PROGAN, *words]))


def foreign_loop(*_: str) -> None:
    """A training that is not ganguard's own, with a scheduler, under a guard."""
    sys.path.insert(0, str(EXAMPLES))
    import own_loop

    own_loop.main("checkpoints", epochs=2, workers=0)


RUNS: dict[str, Callable[..., None]] = {
    "hinge": hinge,
    "wgan_gp": wgan_gp,
    "progressive": progressive,
    "foreign_loop": foreign_loop,
}


def _cgan(*words: str) -> None:
    from ganguard.cli import cgan

    _done(cgan.main([*CGAN, "--data", "fashion-mnist-mini", *words]))


def _done(code: int) -> None:
    assert code == 0, f"exit code {code}"


def digests(folder: Path) -> dict[str, str]:
    """Of all tensors of the newest checkpoint, the journal's figures, and the grids' pixels."""
    names = ("*/latest_checkpoint.pth", "weights/*_local.pth")
    files = sorted(path for name in names for path in folder.glob(name))
    (journal,) = [*folder.glob("logs/*/journal*.jsonl"), *folder.glob("checkpoints/journal.jsonl")]
    return {
        "tensors": _digest(line for file in files for line in _tensors(_trained(file), file.stem)),
        "journal": _digest(json.dumps(row, sort_keys=True) for row in _rows(journal)),
        "grids": _digest(_pixels(path) for path in sorted(folder.glob("samples/*/epoch_*.png"))),
    }


def _trained(path: Path) -> dict[str, Any]:
    """All but the random streams: Python's and numpy's begin anywhere where a training does not use them."""
    import torch

    loaded: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return {key: value for key, value in loaded.items() if key != "random"}


def _tensors(value: Any, where: str) -> Iterator[str]:
    import torch

    if isinstance(value, torch.Tensor):
        held = hashlib.sha256(value.contiguous().numpy().tobytes()).hexdigest()
        yield f"{where} {value.dtype} {tuple(value.shape)} {held}"
    elif isinstance(value, dict):
        for key in sorted(value, key=str):
            yield from _tensors(value[key], f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _tensors(item, f"{where}[{index}]")


def _rows(journal: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows if "savings" not in row]


def _pixels(path: Path) -> str:
    from PIL import Image

    with Image.open(path) as image:
        return f"{path.name} {image.mode} {image.size} {hashlib.sha256(image.tobytes()).hexdigest()}"


def _digest(lines: Iterator[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def main(folder: str, *names: str) -> None:
    """``names`` are those of folders below ``folder``; what follows a run's name and a colon is typed besides."""
    found = {}
    for name in names or RUNS:
        run, _, words = name.partition(":")
        place = Path(folder) / run
        place.mkdir(parents=True, exist_ok=True)
        with contextlib.chdir(place), contextlib.redirect_stdout(sys.stderr):
            RUNS[run.partition("-")[0]](*words.split())
            found[run] = digests(Path())
    import torch

    print(json.dumps({"torch": torch.__version__.split("+")[0], "runs": found}, indent=1))


if __name__ == "__main__":
    os.environ.update(PINNED)
    main(*sys.argv[1:])
