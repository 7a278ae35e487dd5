"""Named parts ⇄ one plain dict, and that dict ⇄ a file that ``torch.load(weights_only=True)`` opens anywhere."""

from __future__ import annotations

import io
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.parameter import is_lazy

from ganguard import numpy_pickles, strictly
from ganguard.errors import DoesNotFit, RefusedCheckpoint, UnreadableCheckpoint, UsageError
from ganguard.store import foreign
from ganguard.store.durable import why

RESERVED = ("ganguard", "progress", "history", "best", "config", "random", "constructed")
_PLAIN = (str, bool, int, float, complex, type(None))  # not bytes: torch refuses empty ones
_OF_SCHEDULERS = {"initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum"}  # what those add to a group
_ARRAY = "ganguard.ndarray"  # marks a numpy array that became a tensor


def unwrap(part: Any) -> Any:
    """The part inside ``torch.compile`` and data-parallel wrappers, whose keys differ only by the wrapper's name."""
    while True:
        if hasattr(part, "_orig_mod"):
            part = part._orig_mod
        elif isinstance(part, torch.nn.DataParallel | torch.nn.parallel.DistributedDataParallel):
            part = part.module
        else:
            return part


def check_parts(parts: Mapping[str, Any]) -> None:
    """Send every part through the format once, in memory, with the tensors left empty.

    Raises:
        UsageError: a name is reserved, a part has no state, or a key holds what the format cannot carry.
    """
    for name, part in parts.items():
        if name in RESERVED or not isinstance(name, str):
            raise UsageError(f"A part cannot be called {name!r}: that key of the checkpoint is taken. Rename it.")
        if not (hasattr(part, "state_dict") and hasattr(part, "load_state_dict")):
            raise UsageError(f"The part {name!r} has no state_dict and load_state_dict, so it cannot be saved.")
        plain = to_plain(unwrap(part).state_dict(), name, keep=_emptied)
        buffer = io.BytesIO()
        try:
            torch.save(plain, buffer)
            buffer.seek(0)
            torch.load(buffer, weights_only=True)
        except pickle.UnpicklingError as error:
            raise UsageError(
                f"The state of part {name!r} cannot be read back as plain data: {_short(error)}"
            ) from error


def _weightless(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(tensor, device="meta")


def _emptied(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty(0, dtype=tensor.dtype)


def _compact(tensor: torch.Tensor) -> torch.Tensor:
    """A view of a larger storage would be saved with all of it."""
    if tensor.layout is torch.strided and tensor.untyped_storage().nbytes() > tensor.nbytes:
        return tensor.clone()
    return tensor


def to_plain(value: Any, path: str, *, keep: Callable[[torch.Tensor], torch.Tensor] = _compact) -> Any:
    """``value`` in plain types and tensors. ``path`` names it in errors.

    Raises:
        UsageError: it holds something else; the message names the key.
    """
    if isinstance(value, torch.Tensor):
        return keep(_plain_tensor(value, path))
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject or value.dtype.kind not in "biufc":
            raise UsageError(f"{path} is an array of {value.dtype}, which a checkpoint cannot carry.")
        return {_ARRAY: keep(torch.from_numpy(np.ascontiguousarray(value)))}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        plain = ((to_plain(k, f"a key of {path}"), to_plain(v, f"{path}.{k}", keep=keep)) for k, v in value.items())
        return _like(value, plain)
    if isinstance(value, list | tuple):
        items = [to_plain(item, f"{path}[{i}]", keep=keep) for i, item in enumerate(value)]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, set) and all(isinstance(item, _PLAIN) for item in value):
        return value
    if isinstance(value, _PLAIN):
        return _exactly(value)
    raise UsageError(
        f"{path} is a {type(value).__qualname__}, which a checkpoint cannot carry. "
        "Keep numbers, strings, lists, dicts and tensors in state_dict()."
    )


def _plain_tensor(tensor: torch.Tensor, path: str) -> torch.Tensor:
    if is_lazy(tensor):
        raise UsageError(f"{path} has no shape yet. Run the lazy module once before guarding it.")
    plain = tensor.detach()
    if type(plain) is not torch.Tensor:
        raise UsageError(f"{path} is a {type(plain).__qualname__}, which a checkpoint cannot carry as a plain tensor.")
    return plain


def _like(mapping: Mapping[Any, Any], items: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    """A dict of ``items``; a module's state keeps the versions of its layouts, which torch hangs onto the dict."""
    if not isinstance(mapping, OrderedDict):
        return dict(items)
    ordered = OrderedDict(items)
    if metadata := getattr(mapping, "_metadata", None):
        ordered._metadata = to_plain(metadata, "_metadata")  # type: ignore[attr-defined]  # torch's own
    return ordered


def _exactly(value: Any) -> Any:
    """An enum's or another subclass's plain value: it would be pickled under its own name."""
    kinds: tuple[type[Any], ...] = (bool, int, float, complex, str)
    for kind in kinds:
        if isinstance(value, kind):
            return value if type(value) is kind else kind(value)
    return None


def from_plain(value: Any) -> Any:
    """The inverse of ``to_plain`` where it is not the identity: numpy arrays come back as such."""
    if isinstance(value, dict):
        if set(value) == {_ARRAY}:
            return value[_ARRAY].numpy()
        return _like(value, ((k, from_plain(v)) for k, v in value.items()))
    if isinstance(value, list | tuple):
        return type(value)(from_plain(item) for item in value)
    return value


def capture(parts: Mapping[str, Any]) -> dict[str, Any]:
    """One key a part. Tensors are not copied: write them before training goes on."""
    return {name: to_plain(unwrap(part).state_dict(), name) for name, part in parts.items()}


def tensor_bytes(value: Any) -> int:
    """Bytes of all tensors within a plain value: about the size of its file."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    if isinstance(value, Mapping):
        return sum(tensor_bytes(v) + 400 for v in value.values())
    if isinstance(value, list | tuple):
        return sum(tensor_bytes(v) + 16 for v in value)
    return 0


def expected_bytes(parts: Mapping[str, Any]) -> int:
    """About how large a checkpoint will be, with what an optimizer will hold after its first step."""
    total = 0
    for part in map(unwrap, parts.values()):
        total += tensor_bytes(to_plain(part.state_dict(), "", keep=_weightless))
        if isinstance(part, torch.optim.Optimizer) and not part.state:
            total += sum(_moments(group) * sum(p.nbytes for p in group["params"]) for group in part.param_groups)
    return total


def _moments(group: Mapping[str, Any]) -> int:
    """Tensors a parameter: two for Adam and its kin, one for momentum or a mean square."""
    return 2 if "betas" in group else int(bool(group.get("momentum") or "alpha" in group))


def load_file(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU without running code from it.

    Raises:
        RefusedCheckpoint: it holds more than plain types and tensors.
        UnreadableCheckpoint: it cannot be read, or is no torch file; the message tells what it is where that is known.
    """
    foreign.require_none(path)
    try:
        with numpy_pickles.plain():
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise RefusedCheckpoint(
            f"{path} holds more than plain types and tensors ({_short(error)}); it was not opened, since opening it "
            "could run code from it. Save its state_dicts anew with the script that wrote it."
        ) from error
    except OSError as error:
        raise UnreadableCheckpoint(f"{path} cannot be read: {why(error)}") from error
    except (RuntimeError, ValueError, KeyError, EOFError, AttributeError, IndexError, TypeError) as error:
        raise UnreadableCheckpoint(f"{path} is not a file that torch can read: {_short(error)}") from error
    if not isinstance(loaded, dict):
        raise UnreadableCheckpoint(f"{path} holds a {type(loaded).__name__} and no dict. Save state_dicts in a dict.")
    return loaded


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    named = re.search(r"(GLOBAL|Unsupported (global|class|operand))[^.]*?([\w.]+\.[\w.]+)", text)
    return named.group(3) if named else text[:160]


def differences(parts: Mapping[str, Any], loaded: Mapping[str, Any]) -> list[str]:
    """Where modules and optimizers do not fit, one a line; nothing is changed."""
    lines: list[str] = []
    for name, wrapped in parts.items():
        part = unwrap(wrapped)
        if name not in loaded:
            continue
        if not isinstance(loaded[name], Mapping):
            lines.append(f"{name} is a {type(loaded[name]).__name__} in the checkpoint")
        elif isinstance(part, torch.nn.Module):
            unfit = [f"{name}: {line}" for line in _module_differences(part, loaded[name])]
            lines += [] if unfit and strictly.loads(part, loaded[name]) else unfit
        elif isinstance(part, torch.optim.Optimizer):
            lines += [f"{name}: {line}" for line in _optimizer_differences(part, loaded[name])]
    return lines


def mismatch(lines: list[str], source: str, advice: str) -> str:
    """What ``differences`` found, as an error's text."""
    shown = "\n".join(f"  {line}" for line in lines[:20])
    more = f"\n  and {len(lines) - 20} more" if len(lines) > 20 else ""
    return f"{source} was made for other networks; nothing was changed:\n{shown}{more}\n{advice}"


def _module_differences(module: torch.nn.Module, stored: Mapping[str, Any]) -> Iterator[str]:
    here = module.state_dict()
    for key in sorted(set(here) | set(stored)):
        mine, theirs = here.get(key), stored.get(key)
        if key not in stored:
            yield f"{key} {_shape(mine)} is not in the checkpoint"
        elif key not in here:
            yield f"{key} {_shape(theirs)} is only in the checkpoint"
        elif _shape(mine) != _shape(theirs):
            yield f"{key} is {_shape(mine)} here and {_shape(theirs)} in the checkpoint"


def _optimizer_differences(optimizer: torch.optim.Optimizer, stored: Mapping[str, Any]) -> Iterator[str]:
    """What torch would load without a word, or only refuse once other parts are changed."""
    here, there = optimizer.param_groups, stored.get("param_groups", [])
    counts = [len(group["params"]) for group in here], [len(group["params"]) for group in there]
    if counts[0] != counts[1]:
        yield f"groups of {counts[0]} parameters here and {counts[1]} in the checkpoint"
        return
    for mine, theirs in zip(here, there, strict=True):
        # Newer versions of torch add options; another kind of optimizer lacks some as well.
        if set(mine) - set(theirs) and (lacking := set(theirs) - set(mine) - {"param_names"} - _OF_SCHEDULERS):
            yield f"another kind of optimizer: {', '.join(sorted(lacking))} only in the checkpoint"
        for index, parameter in zip(theirs["params"], mine["params"], strict=True):
            for key, value in stored.get("state", {}).get(index, {}).items():
                if isinstance(value, torch.Tensor) and value.ndim and value.shape != parameter.shape:
                    yield f"{key} of parameter {index} is {_shape(value)} for {_shape(parameter)} here"


def _shape(value: Any) -> str:
    return "x".join(map(str, value.shape)) or "scalar" if isinstance(value, torch.Tensor) else type(value).__name__


def restore(parts: Mapping[str, Any], loaded: Mapping[str, Any], source: str) -> list[str]:
    """Load every part that ``loaded`` holds; returns what could not be, in words.

    ``differences`` comes first: it finds what does not fit before anything is changed.

    Raises:
        DoesNotFit: a part refuses its state.
    """
    told = []
    for name, part in parts.items():
        if name not in loaded:
            told.append(f"{name} is not in {source}; it begins anew")
            continue
        try:
            unwrap(part).load_state_dict(from_plain(loaded[name]))
        except (ValueError, KeyError, RuntimeError, TypeError, IndexError) as error:
            raise DoesNotFit(f"{name} of {source} does not fit: {_short(error)}") from error
    return told


def all_finite(parts: Mapping[str, Any]) -> bool:
    """Whether every parameter is finite: a cheap sum, looked at closely only on suspicion."""
    modules = [m for m in map(unwrap, parts.values()) if isinstance(m, torch.nn.Module)]
    by_device: dict[torch.device, list[torch.Tensor]] = {}
    for parameter in (p for module in modules for p in module.parameters()):
        if parameter.is_floating_point() and parameter.numel():
            by_device.setdefault(parameter.device, []).append(parameter.detach())
    return all(map(_finite, by_device.values()))


def _finite(values: list[torch.Tensor]) -> bool:
    try:
        sums = torch.stack([value.sum(dtype=torch.float32) for value in values]).cpu()
    except (RuntimeError, NotImplementedError):  # an exotic type without a sum
        return True
    return bool(torch.isfinite(sums).all()) or all(bool(torch.isfinite(value).all()) for value in values)
