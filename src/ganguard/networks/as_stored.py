"""A network as a file holds it: it takes memory only once its shapes are those of the tensors in the file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

from ganguard import state, streams

Network = TypeVar("Network", bound=nn.Module)


class Unfit(ValueError):
    """The weights are another network's; ``differences`` says where, one a line."""

    def __init__(self, differences: list[str]) -> None:
        super().__init__("the weights are another network's")
        self.differences = differences


def built(build: Callable[[], Network], weights: Any) -> Network:
    """What ``build`` makes, with ``weights`` loaded. Draws from no global random stream.

    Raises:
        Unfit: the weights are not its own.
        UsageError, RuntimeError, …: as ``build``.
    """
    with streams.kept():  # what is drawn here is overwritten
        with torch.device("meta"):
            without_memory = build()
        if unfit := state.differences({"it": without_memory}, {"it": weights}):
            raise Unfit([line.removeprefix("it: ") for line in unfit])
        network = build()
    network.load_state_dict(weights)
    return network
