"""Settings of torch that the bits of a result depend on: put in place for a run, and back after it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ganguard import state


class Machine:
    """Deterministic algorithms and the thread count.

    Args:
        deterministic: None turns it on where no part is on an accelerator: exactness is promised there.
        threads: None leaves them.
    """

    def __init__(self, parts: Mapping[str, Any], *, deterministic: bool | None, threads: int | None) -> None:
        self._before = (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            _fills_memory(),
            torch.get_num_threads(),
        )
        if deterministic if deterministic is not None else not _on_accelerator(parts):
            # Operations without a deterministic form only warn: refusing them is not the guard's business.
            torch.use_deterministic_algorithms(True, warn_only=True)
            _fill_memory(False)
        if threads is not None:
            torch.set_num_threads(threads)

    def undo(self) -> None:
        enabled, warn_only, fills, threads = self._before
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        _fill_memory(fills)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)


def _fills_memory() -> bool:
    settings: Any = torch.utils.deterministic
    return bool(settings.fill_uninitialized_memory)


def _fill_memory(fill: bool) -> None:
    # Filling every fresh tensor with NaN, which deterministic mode does by default, costs time and changes no result.
    settings: Any = torch.utils.deterministic
    settings.fill_uninitialized_memory = fill


def _on_accelerator(parts: Mapping[str, Any]) -> bool:
    modules = [m for m in map(state.unwrap, parts.values()) if isinstance(m, torch.nn.Module)]
    return any(p.device.type != "cpu" for m in modules for p in m.parameters())
