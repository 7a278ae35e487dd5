"""numpy's plain numbers and arrays in a file that ``torch.load(weights_only=True)`` reads: scripts save losses so.

Nothing of numpy is called in the file's name. Its pickles name four things, under the modules of numpy 1 or numpy 2;
each is taken by a stand-in that makes an array of plain numbers or text out of bytes that are there, and nothing else.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch

_PLAIN = re.compile(r"[biufcSU]\d{1,9}")


class _DType:
    """``numpy.dtype``: of numbers and text only."""

    def __init__(self, code: Any, *_align_and_copy: Any) -> None:
        if not (isinstance(code, str) and _PLAIN.fullmatch(code)):
            raise _refusal(f"dtype.{code}")
        self._code = code
        self._order = "|"

    def __setstate__(self, state: Any) -> None:
        if not (isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|", "=")):
            raise _refusal("dtype")
        self._order = state[1]

    @property
    def plain(self) -> np.dtype[Any]:
        try:
            return np.dtype(self._order + self._code)
        except TypeError as error:  # a size that there is none of
            raise _refusal(f"dtype.{self._code}") from error


class _Array(np.ndarray[Any, Any]):
    """``numpy.ndarray``, empty until its state comes."""

    def __setstate__(self, state: Any) -> None:
        try:
            version, shape, dtype, fortran, content = state
            if not (isinstance(dtype, _DType) and isinstance(content, bytes)):
                raise _refusal("ndarray")
            if not (content or 0 in shape):  # any number of texts without a letter
                raise _refusal("ndarray")
            super().__setstate__((version, shape, dtype.plain, fortran, content))
        except (TypeError, ValueError) as error:
            raise _refusal("ndarray") from error


def _reconstruct(*_class_shape_and_code: Any) -> _Array:
    return _Array((0,), dtype="b")


def _scalar(dtype: Any, content: Any) -> Any:
    """``numpy.core.multiarray.scalar``: Python's own number or text."""
    if not (isinstance(dtype, _DType) and isinstance(content, bytes)):
        raise _refusal("scalar")
    try:
        (value,) = np.frombuffer(content, dtype.plain).tolist()
    except ValueError as error:
        raise _refusal("scalar") from error
    return value


def _empty_bytes(*content: Any) -> bytes:
    """``bytes``: what an empty array holds. A number in its place would ask for so much memory."""
    if content:
        raise pickle.UnpicklingError("Unsupported class builtins.bytes")
    return b""


def _refusal(what: str) -> pickle.UnpicklingError:
    return pickle.UnpicklingError(f"Unsupported class numpy.{what}")


_STAND_INS: dict[str, Callable[..., Any]] = {
    "builtins.bytes": _empty_bytes,
    "numpy.dtype": _DType,
    "numpy.ndarray": _Array,
    **{f"numpy.{core}.multiarray._reconstruct": _reconstruct for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
}


NAMES = frozenset(_STAND_INS)  # what a file calls them


def plain() -> AbstractContextManager[None]:
    """Within, ``torch.load(weights_only=True)`` takes them."""
    taken: AbstractContextManager[None] = torch.serialization.safe_globals(
        [(stand_in, name) for name, stand_in in _STAND_INS.items()]
    )
    return taken
