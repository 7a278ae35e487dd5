"""Which device a training runs on."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ganguard.errors import UsageError
from ganguard.protection import cards
from ganguard.training.allocator import keep_freed_memory

_DEVICES = ("cpu", "cuda", "mps", "xpu")


def choose_device(name: str, say: Callable[[str], None]) -> torch.device:
    """The device of a name such as ``cpu`` or ``cuda:1``; ``auto`` takes a GPU where torch sees one. Says which, and
    prepares the process for it.

    Raises:
        UsageError: there is no such device.
    """
    if not torch.cuda.is_available() and (unused := cards.seen_by_driver()):
        say(
            f"The driver sees {', '.join(unused)}, but this PyTorch cannot use it: training would run on the CPU. "
            "Install the build for your card: https://pytorch.org/get-started/locally/"
        )
    device = _named_device(best_for(name))
    if device.type == "cpu":
        keep_freed_memory()
    say(f"Training on {device}.")
    return device


def use_threads(count: int | None) -> None:
    """Let this process compute with so many; None leaves it at what torch takes.

    Raises:
        UsageError: there cannot be so few.
    """
    if count is None:
        return
    if count < 1:
        raise UsageError(f"--threads must be at least 1, not {count}.")
    torch.set_num_threads(count)


def best_for(name: str) -> str:
    """The device's name, that of the best there is for ``auto``."""
    return _best_device() if name == "auto" else name


def _named_device(name: str) -> torch.device:
    kind = name.split(":")[0]
    if kind not in _DEVICES:
        raise UsageError(
            f"--device {name} is none that can be trained on. Use one of {', '.join(_DEVICES)}, or leave it out."
        )
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(
            f"--device {name}: this PyTorch sees no such device. Use --device cpu, or leave it out."
        ) from error
    return device


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
