"""Python's, numpy's and torch's random streams: captured as plain values, restored, seeded, lent out."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import xxhash

from ganguard.reports.console import counted

OF_THE_HOST = ("python", "numpy", "torch")


def derive(*parts: int | str) -> int:
    """A 64-bit seed that depends on every one of ``parts`` and on nothing else."""
    return int(xxhash.xxh3_64_intdigest("\0".join(map(str, parts)).encode()))


def seed_host(seed: int) -> None:
    """Seed the three streams of this process, without touching an accelerator's (``torch.manual_seed`` would)."""
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    torch.default_generator.manual_seed(seed)


def capture_host() -> dict[str, Any]:
    """The state of the three streams of this process, as plain types and tensors."""
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        # int64: torch's uint32 support is partial, and the values fit.
        "numpy": [str(name), torch.from_numpy(np.asarray(keys, np.int64)), int(position), int(has_gauss), float(gauss)],
        "torch": torch.default_generator.get_state(),
    }


def restore_host(states: dict[str, Any]) -> None:
    """The inverse of ``capture_host``."""
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = states["numpy"]
    if not 0 <= position <= len(keys):  # numpy would read behind its array
        raise ValueError(f"a random stream is at {position} of {len(keys)}")
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.default_generator.set_state(states["torch"])


def capture() -> dict[str, Any]:
    """All streams: this process's three, and those of every accelerator that is in use."""
    states = capture_host()
    for name, module in _accelerators():
        if name == "mps":
            states[name] = [module.get_rng_state()]
        else:
            states[name] = module.get_rng_state_all()
    return states


def restore(states: dict[str, Any]) -> list[str]:
    """Put the streams back; returns what could not be, in words."""
    restore_host(states)
    lost = []
    in_use = dict(_accelerators())
    for name in sorted(set(states) - set(OF_THE_HOST)):
        module = in_use.get(name)
        if module is None:
            lost.append(f"the random streams of {name}, which is not in use now")
        elif name != "mps" and len(states[name]) != module.device_count():
            lost.append(
                f"the random streams of {counted(len(states[name]), f'{name} device')}, and there are "
                f"{module.device_count()} now"
            )
        elif not _put(module, name, states[name]):
            lost.append(f"the random streams of {name}, which do not fit this device's")
    lost += [
        f"a random stream of {name}, which the checkpoint does not hold" for name in sorted(set(in_use) - set(states))
    ]
    return lost


def _put(module: Any, name: str, states: list[torch.Tensor]) -> bool:
    """Put an accelerator's streams back; whether they are its own."""
    try:
        if name == "mps":
            module.set_rng_state(states[0])
        else:
            module.set_rng_state_all(states)
    except (RuntimeError, TypeError, ValueError):
        return False
    return True


def _accelerators() -> list[tuple[str, Any]]:
    """Accelerators whose streams this process may have drawn from. Not measured on a GPU here."""
    found: list[tuple[str, Any]] = []
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch leaves it untyped
        found.append(("cuda", torch.cuda))
    if torch.backends.mps.is_available():
        found.append(("mps", torch.mps))
    if hasattr(torch, "xpu") and torch.xpu.is_available() and torch.xpu.is_initialized():  # type: ignore[no-untyped-call]  # likewise
        found.append(("xpu", torch.xpu))
    return found


def own() -> tuple[Any, ...]:
    """The three streams of this process as they are: quicker than ``capture_host``, and not for a file."""
    return random.getstate(), np.random.get_state(legacy=False), torch.default_generator.get_state()


def put_back(states: tuple[Any, ...]) -> None:
    """The inverse of ``own``."""
    for_python, for_numpy, for_torch = states
    random.setstate(for_python)
    np.random.set_state(for_numpy)
    torch.default_generator.set_state(for_torch)


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Leave the process's own streams as they were: whatever is drawn within does not count."""
    states = own()
    try:
        yield
    finally:
        put_back(states)


class Lent:
    """Private streams under a seed that take the place of the process's own while ``active``."""

    def __init__(self, seed: int) -> None:
        with kept():
            seed_host(seed)
            self._states = own()

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        with kept():
            put_back(self._states)
            try:
                yield
            finally:
                self._states = own()
