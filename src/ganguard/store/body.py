"""What torch reads from a file: plain types and tensors, and never more memory than the file's size accounts for.

torch takes seconds to be imported, so that it is where a body is really read.
"""

from __future__ import annotations

import io
import os
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ganguard.errors import RefusedCheckpoint, UnreadableCheckpoint
from ganguard.store import archive, foreign
from ganguard.store.durable import why
from ganguard.store.pickled import MOST_VIEWS, SMALL_VIEWS, Unbounded, Weighing
from ganguard.store.reading import open_regular

if TYPE_CHECKING:
    import torch

_DEEPEST = 100
_MOST_VALUES = 1_000_000  # and one more for each byte of the file: a pickle may name a value many times
_DAMAGE = (  # what torch answers bytes with that are no file of its own
    *(ArithmeticError, AssertionError, AttributeError, EOFError, LookupError),
    *(MemoryError, RuntimeError, TypeError, ValueError),
)


def load_file(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU without running code from it.

    Raises:
        RefusedCheckpoint: it holds more than plain types and tensors, or would take more memory than its size.
        UnreadableCheckpoint: it cannot be read, or is no torch file; the message tells what it is where that is known.
    """
    try:
        with open_regular(path) as file:
            if other := foreign.look(file):
                raise UnreadableCheckpoint(f"{path} is {other}.")
            loaded = load_open(file)
    except pickle.UnpicklingError as error:
        raise RefusedCheckpoint(
            f"{path} holds more than plain types and tensors ({in_short(error)}); it was not opened, since opening it "
            "could run code from it. Save its state_dicts anew with the script that wrote it."
        ) from error
    except OSError as error:
        raise UnreadableCheckpoint(f"{path} cannot be read: {why(error)}") from error
    except Unbounded as error:
        raise RefusedCheckpoint(f"{path} was not opened: {error}. Name another checkpoint.") from error
    except _DAMAGE as error:
        raise UnreadableCheckpoint(f"{path} is not a file that torch can read: {in_short(error)}") from error
    if not isinstance(loaded, dict):
        raise UnreadableCheckpoint(f"{path} holds a {type(loaded).__name__} and no dict. Save state_dicts in a dict.")
    return loaded


def load_open(file: BinaryIO) -> Any:
    """What an open file of torch's holds; the one place that unpickles. Raises whatever torch raises, and ValueError.

    Its records and its pickle are looked at before they are loaded, and what came of them before it is handed on.
    """
    import torch

    from ganguard import numpy_pickles

    size = os.fstat(file.fileno()).st_size
    _weigh(file, size, numpy_pickles.NAMES)
    file.seek(0)
    with numpy_pickles.plain():
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    _require_bounded(loaded, size)
    return loaded


def _weigh(file: BinaryIO, size: int, also: frozenset[str]) -> None:
    """Raises as ``Weighing.weigh``."""
    import torch

    if not archive.is_zip(file):
        file.seek(0)
        reader = io.BufferedReader(file)  # type: ignore[type-var]  # opened raw
        try:
            Weighing(size, None, also).weigh_legacy(reader)
        finally:
            reader.detach()
        return
    try:
        records = archive.stored(file)
    except ValueError as error:
        raise Unbounded(str(error)) from error
    file.seek(0)
    pickled = torch._C.PyTorchFileReader(file).get_record("data.pkl")  # by torch's own eyes: it is what torch loads
    Weighing(size, records, also).weigh(io.BytesIO(pickled))


def _require_bounded(loaded: Any, size: int) -> None:
    import torch

    storages: dict[int, int] = {}
    seen = 0
    for tensor in _tensors(loaded, _MOST_VALUES + size, torch.Tensor):
        if tensor.is_meta:
            raise Unbounded("it holds a tensor without values")
        parts = dense_of(tensor)
        if not parts:
            raise Unbounded(f"it holds a tensor of the layout {tensor.layout}")
        for dense in parts:
            held = dense.untyped_storage()
            storages[held.data_ptr()] = held.nbytes()
            seen += dense.numel() * dense.element_size()
    if sum(storages.values()) > size or seen > MOST_VIEWS * size + SMALL_VIEWS:
        raise Unbounded("its tensors are larger than the file")


def _tensors(loaded: Any, most: int, kind: type[torch.Tensor]) -> Iterator[torch.Tensor]:
    """Every tensor within plain values, which are counted and may nest only so deep."""
    waiting = [(loaded, 0)]
    count = 0
    while waiting:
        value, depth = waiting.pop()
        count += 1
        if isinstance(value, kind):
            yield value
            continue
        inner: Any = value.values() if isinstance(value, dict) else value
        if not isinstance(value, dict | list | tuple | set):
            continue
        if depth >= _DEEPEST or count + len(value) > most:
            raise Unbounded("its values are nested beyond reason")
        waiting += [(item, depth + 1) for item in inner]


def dense_of(tensor: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The dense tensors that hold a tensor's bytes; none where its layout is unknown."""
    import torch

    if tensor.layout is torch.strided:
        return (tensor,)
    if tensor.layout is torch.sparse_coo:
        return tensor._indices(), tensor._values()
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return tensor.crow_indices(), tensor.col_indices(), tensor.values()
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return tensor.ccol_indices(), tensor.row_indices(), tensor.values()
    return ()


def in_short(error: Exception) -> str:
    """What torch said, without its advice."""
    text = " ".join(str(error).split())
    named = re.search(r"(GLOBAL|Unsupported (global|class|operand))[^.]*?([\w.]+\.[\w.]+)", text)
    return named.group(3) if named else text[:160]
