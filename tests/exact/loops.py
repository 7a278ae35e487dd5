"""Training loops that are nobody's in particular, with everything a checkpoint has to bring back."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from ganguard import Guard, streams
from ganguard.errors import Stopped

ITEMS = 23  # six batches of 4, the last one short


class Noisy(Dataset):
    """Items that differ each time, by all three random streams."""

    def __init__(self, length: int = ITEMS) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index):
        noise = random.random() + np.random.rand()
        return torch.tensor([float(index), noise, 1.0]) / self.length + 0.1 * torch.randn(3)


def seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def make_parts(seed: int = 0) -> dict[str, Any]:
    seed_all(seed)
    G = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))
    D = nn.Sequential(nn.utils.spectral_norm(nn.Linear(3, 8)), nn.ReLU(), nn.Linear(8, 1))
    opt_g, opt_d = torch.optim.Adam(G.parameters(), 1e-2), torch.optim.Adam(D.parameters(), 1e-2)
    decay = torch.optim.lr_scheduler.StepLR(opt_g, step_size=1, gamma=0.7)
    return {"G": G, "D": D, "opt_g": opt_g, "opt_d": opt_d, "decay": decay}


def train_step(parts: dict[str, Any], real: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    G, D = parts["G"], parts["D"]
    real = real + 0.01 * np.random.randn() + 0.01 * random.random()
    fake = G(torch.randn(len(real), 2))
    parts["opt_d"].zero_grad()
    loss_d = (D(fake.detach()) - D(real)).mean() + D(real).square().mean()
    loss_d.backward()
    parts["opt_d"].step()
    parts["opt_g"].zero_grad()
    loss_g = -D(fake).mean()
    loss_g.backward()
    parts["opt_g"].step()
    return loss_d, loss_g


@dataclass
class Loop:
    """A loop of its user's own; each call of ``run`` is one start of the script.

    Args:
        loader: makes the loader, anew at every start.
        stop_at: steps in whose body a signal comes; one start each.
        stop_in_tail: epochs in whose tail one comes.
    """

    folder: Path
    loader: Callable[[], Iterable[Any]]
    epochs: int = 3
    options: dict[str, Any] = field(default_factory=dict)
    between: Callable[[], None] = lambda: None  # with … and the loop
    said: list[str] = field(default_factory=list)
    accumulate: int = 1

    def run(self, *, seed: int = 0, stop_at: int | None = None, stop_in_tail: int | None = None, **options) -> dict:
        """Train until the end or a stop; everything there is to compare comes back."""
        parts = make_parts(seed)
        loader = self.loader()
        guard = Guard(self.folder, parts, say=self.said.append, **{**self.options, **options})
        code = 0
        try:
            with guard:
                self.between()
                for epoch in guard.epochs(self.epochs):
                    torch.rand(1)
                    for batch in guard.batches(loader, accumulate=self.accumulate):
                        loss_d, loss_g = train_step(parts, batch)
                        guard.log(loss_d=loss_d, loss_g=loss_g)
                        if guard.step + 1 == stop_at:
                            signal.raise_signal(signal.SIGINT)
                    parts["decay"].step()
                    evaluated = (
                        float(parts["G"](torch.randn(4, 2)).mean().detach()) + random.random() + np.random.rand()
                    )
                    if epoch == stop_in_tail:
                        signal.raise_signal(signal.SIGTERM)
                    guard.score(fid=abs(evaluated))
                ended = streams.capture_host()
        except Stopped as stop:
            code = stop.code
            ended = None
        return {
            "code": code,
            "parts": {name: part.state_dict() for name, part in parts.items()},
            "history": guard.history,
            "place": (guard.epoch, guard.step, guard.images),
            "streams": ended,
            "journal": journal(self.folder),
        }


def journal(folder: Path, name: str = "journal.jsonl") -> list[dict]:
    """All lines but those that tell what saving took: that is not the same in two runs."""
    path = folder / name
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [row for row in rows if "savings" not in row]


def same(one: Any, other: Any, where: str = "") -> list[str]:
    """Where two values differ, bit for bit."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        fits = one.shape == other.shape and one.dtype == other.dtype
        return [] if fits and torch.equal(one, other) else [f"{where}: tensors differ"]
    if isinstance(one, dict) and isinstance(other, dict):
        if set(one) != set(other):
            return [f"{where}: keys {sorted(map(str, set(one) ^ set(other)))}"]
        return [line for key in one for line in same(one[key], other[key], f"{where}.{key}")]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        if len(one) != len(other):
            return [f"{where}: {len(one)} and {len(other)} long"]
        return [line for i, pair in enumerate(zip(one, other, strict=True)) for line in same(*pair, f"{where}[{i}]")]
    return [] if one == other else [f"{where}: {one!r} and {other!r}"]


def plain_loader(**options) -> Callable[[], DataLoader]:
    return lambda: DataLoader(Noisy(), **{"batch_size": 4, "shuffle": True, **options})
