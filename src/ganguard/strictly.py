"""What torch itself makes of a module's stored weights: it brings older layouts up to date while it loads them."""

from __future__ import annotations

import copy
import itertools
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


def loads(module: nn.Module, stored: Mapping[str, Any]) -> bool:
    """Whether ``module.load_state_dict(stored)`` would take all of it, to the last name.

    Batch norms of before torch 0.4.1 count no batches, a ``weight_norm`` of before 2.0 has other names: torch knows.
    It is tried on a twin whose tensors hold nothing.
    """
    tensors = itertools.chain(module.parameters(), module.buffers())
    try:
        twin = copy.deepcopy(module, {id(tensor): _weightless(tensor) for tensor in tensors})
        with warnings.catch_warnings(action="ignore"):  # that nothing is copied into those
            twin.load_state_dict(stored)
    except Exception:  # a module of the user's own may raise anything here
        return False
    return True


def _weightless(tensor: torch.Tensor) -> torch.Tensor:
    empty = torch.empty_like(tensor, device="meta")
    return nn.Parameter(empty, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
