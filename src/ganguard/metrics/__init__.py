"""How good generated images are.

- ``extractors``  which network turns images into features: Inception, or EfficientNet-Lite0 where that isn't there
- ``fid``         the Fréchet distance between real and generated images in such features
- ``real_sums``   what that needs of the real images, kept in a file
- ``samples``     what a generator is asked for, and its images as bytes
- ``accuracy``    how often a classifier of real images recognises the class that was asked for

Importing these loads no torch. Nothing here draws from the process's random streams.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ganguard.metrics.accuracy import ClassAccuracy, Recognised
    from ganguard.metrics.extractors import Extractor, find_extractor
    from ganguard.metrics.fid import Fid, Score

__all__ = ["ClassAccuracy", "Extractor", "Fid", "Recognised", "Score", "find_extractor"]

_HOMES = {
    "ClassAccuracy": "accuracy",
    "Recognised": "accuracy",
    "Extractor": "extractors",
    "find_extractor": "extractors",
    "Fid": "fid",
    "Score": "fid",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"ganguard.metrics.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'ganguard.metrics' has no attribute {name!r}")
