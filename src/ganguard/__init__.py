"""ganguard: training that goes on bit for bit where it stopped. Importing this loads no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ganguard.guard import Guard
    from ganguard.networks.loading import load_generator

__version__ = "0.1.0"
__all__ = ["Guard", "__version__", "load_generator"]


def __getattr__(name: str) -> object:
    if name == "Guard":
        from ganguard.guard import Guard

        return Guard
    if name == "load_generator":
        from ganguard.networks.loading import load_generator

        return load_generator
    raise AttributeError(f"module 'ganguard' has no attribute {name!r}")
