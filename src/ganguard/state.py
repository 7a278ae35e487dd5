"""Named parts ⇄ one plain dict, and that dict ⇄ a file that ``torch.load(weights_only=True)`` opens anywhere."""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from typing import Any

import numpy as np
import torch
from torch.nn.parameter import is_lazy

from ganguard import strictly
from ganguard.errors import DoesNotFit, UsageError
from ganguard.store.body import dense_of, in_short
from ganguard.store.plain import is_number

RESERVED = ("ganguard", "progress", "history", "best", "config", "random", "constructed")
_PLAIN = (str, bool, int, float, complex, type(None))  # not bytes: torch refuses empty ones
_OF_SCHEDULERS = {"initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum"}  # what those add to a group
_ADAMS = (torch.optim.Adam, torch.optim.AdamW)
_OF_ADAM = {"step", "exp_avg", "exp_avg_sq"}
_MOMENTS = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "square_avg"}
_WITHOUT_INFINITY = getattr(torch, "float4_e2m1fn_x2", None)  # nor NaN, and torch can do nothing with it
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
                f"The state of part {name!r} cannot be read back as plain data: {in_short(error)}"
            ) from error


def _as_it_is(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


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


def rows_like(mine: torch.Tensor, stored: Any) -> torch.Tensor:
    """A part's rows as a checkpoint holds them, which may be more or fewer. Raises ValueError where they are none."""
    alike = isinstance(stored, torch.Tensor) and stored.ndim == mine.ndim and len(stored) > 0
    if not alike or _shape(stored[:1]) != _shape(mine[:1]) or stored.dtype != mine.dtype:
        raise ValueError(f"{_shape(stored)} in place of {_shape(mine)}")
    rows: torch.Tensor = stored
    return rows


def tensor_bytes(value: Any) -> int:
    """Bytes of all tensors within a plain value: about the size of its file."""
    if isinstance(value, torch.Tensor):
        return sum(dense.nbytes for dense in dense_of(value))
    if isinstance(value, Mapping):
        return sum(tensor_bytes(v) + 400 for v in value.values())
    if isinstance(value, list | tuple):
        return sum(tensor_bytes(v) + 16 for v in value)
    return 0


def expected_bytes(parts: Mapping[str, Any]) -> int:
    """About how large a checkpoint will be, with what an optimizer will hold after its first step."""
    total = 0
    for part in map(unwrap, parts.values()):
        total += tensor_bytes(to_plain(part.state_dict(), "", keep=_as_it_is))
        if isinstance(part, torch.optim.Optimizer) and not part.state:
            total += sum(_moments(group) * sum(p.nbytes for p in group["params"]) for group in part.param_groups)
    return total


def _moments(group: Mapping[str, Any]) -> int:
    """Tensors a parameter: two for Adam and its kin, one for momentum or a mean square."""
    return 2 if "betas" in group else int(bool(group.get("momentum") or "alpha" in group))


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
        elif isinstance(part, torch.optim.lr_scheduler.LRScheduler):
            lines += [f"{name}: {line}" for line in _scheduler_differences(part.state_dict(), loaded[name])]
    return lines


def mismatch(lines: list[str], source: str, advice: str) -> list[str]:
    """What ``differences`` found, as an error's lines."""
    return [
        f"{source} was made for other networks; nothing was changed:",
        *(f"  {line}" for line in lines[:20]),
        *([f"  and {len(lines) - 20} more"] if len(lines) > 20 else []),
        advice,
    ]


def _module_differences(module: torch.nn.Module, stored: Mapping[str, Any]) -> Iterator[str]:
    here = module.state_dict()
    for key in sorted(set(here) | set(stored), key=str):
        mine, theirs = here.get(key), stored.get(key)
        if key not in stored:
            yield f"{key} {_shape(mine)} is not in the checkpoint"
        elif key not in here:
            yield f"{key} {_shape(theirs)} is only in the checkpoint"
        elif _shape(mine) != _shape(theirs):
            yield f"{key} is {_shape(mine)} here and {_shape(theirs)} in the checkpoint"


def _optimizer_differences(optimizer: torch.optim.Optimizer, stored: Mapping[str, Any]) -> Iterator[str]:
    """What torch would load without a word, or only refuse once other parts are changed."""
    here, there, states = optimizer.param_groups, stored.get("param_groups", []), stored.get("state", {})
    if not _are_groups(there) or not _are_states(states):
        yield "no state of an optimizer in the checkpoint"
        return
    counts = [len(group["params"]) for group in here], [len(group["params"]) for group in there]
    if counts[0] != counts[1]:
        yield f"groups of {counts[0]} parameters here and {counts[1]} in the checkpoint"
        return
    for mine, theirs in zip(here, there, strict=True):
        # Newer versions of torch add options; another kind of optimizer lacks some as well.
        if set(mine) - set(theirs) and (lacking := set(theirs) - set(mine) - {"param_names"} - _OF_SCHEDULERS):
            yield f"another kind of optimizer: {', '.join(sorted(map(str, lacking)))} only in the checkpoint"
        for key in sorted(set(mine) & set(theirs) - {"params"}):
            if not _is_of_the_same_form(mine[key], theirs[key]):
                yield f"{key} is {_shape(mine[key])} here and {_shape(theirs[key])} in the checkpoint"
        for index, parameter in zip(theirs["params"], mine["params"], strict=True):
            needed = _OF_ADAM if type(optimizer) in _ADAMS else set[str]()
            needed = needed | ({"max_exp_avg_sq"} if needed and theirs.get("amsgrad") is True else set())
            for what in _unfit(parameter, states.get(index) or {}, needed):
                yield f"of parameter {index}, {what}"


def _scheduler_differences(here: Any, stored: Any) -> Iterator[str]:
    """Numbers that are none in the checkpoint: torch would stumble over them at the next step."""
    if isinstance(here, dict) and isinstance(stored, dict):
        for key in set(here) & set(stored):
            yield from (f"{key}{what}" for what in _scheduler_differences(here[key], stored[key]))
    elif isinstance(here, list) and isinstance(stored, list):
        for mine, theirs in zip(here, stored, strict=False):
            yield from _scheduler_differences(mine, theirs)
    elif not _is_of_the_same_form(here, stored):
        yield f" is {_shape(here)} here and {_shape(stored)} in the checkpoint"


def _unfit(parameter: torch.Tensor, held: Mapping[str, Any], needed: Set[str]) -> Iterator[str]:
    """What an optimizer cannot go on with, of what it held of a parameter."""
    if held and (lacking := needed - set(held)):
        yield f"{', '.join(sorted(lacking))} is not in the checkpoint"
    for key, value in held.items():
        if not _may_be_of(parameter, key, value):
            yield f"{key} is {_shape(value)} for {_shape(parameter)} here"


def _are_groups(stored: Any) -> bool:
    return isinstance(stored, list) and all(
        isinstance(group, dict)
        and isinstance(group.get("params"), list)
        and all(isinstance(index, int) for index in group["params"])
        for group in stored
    )


def _are_states(stored: Any) -> bool:
    return isinstance(stored, dict) and all(isinstance(values, dict) for values in stored.values())


def _is_of_the_same_form(mine: Any, theirs: Any) -> bool:
    """Whether an option is a number where the code's is one, and as many of them."""
    if isinstance(mine, list | tuple):
        same = isinstance(theirs, list | tuple) and len(mine) == len(theirs)
        return same and all(map(_is_of_the_same_form, mine, theirs))
    if isinstance(mine, bool):
        return isinstance(theirs, bool)
    if mine is None:
        return theirs is None or isinstance(theirs, str) or _is_single(theirs)
    return _is_single(theirs) or not _is_single(mine)


def _is_single(value: Any) -> bool:
    return is_number(value) or (isinstance(value, torch.Tensor) and value.numel() == 1)


def _may_be_of(parameter: torch.Tensor, key: str, value: Any) -> bool:
    """Whether an optimizer may keep this of a parameter: moments have its shape, a count of steps is a number."""
    if key == "step":
        return _is_single(value) and float(value) >= 0
    if key in _MOMENTS:
        return _shape(value) == _shape(parameter) or (value is None and key == "momentum_buffer")
    return not isinstance(value, torch.Tensor) or not value.ndim or value.shape == parameter.shape


def _shape(value: Any) -> str:
    """A tensor's shape, and what else keeps it from being copied into another; else what kind of value it is."""
    if not isinstance(value, torch.Tensor):
        return type(value).__name__
    shape = "x".join(map(str, value.shape)) or "scalar"
    unusual = [
        *([str(value.layout).removeprefix("torch.")] if value.layout is not torch.strided else []),
        *(["quantized"] if value.is_quantized else []),
        *(["complex"] if value.is_complex() else []),
    ]
    return " ".join([shape, *unusual])


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
        except Exception as error:  # a part's own code may raise anything
            raise DoesNotFit(f"{name} of {source} does not fit: {in_short(error)}") from error
    return told


def all_finite(parts: Mapping[str, Any]) -> bool:
    """Whether every parameter is finite."""
    modules = [m for m in map(unwrap, parts.values()) if isinstance(m, torch.nn.Module)]
    return are_finite(p.detach() for module in modules for p in module.parameters())


def are_finite(tensors: Iterable[torch.Tensor]) -> bool:
    """Whether all numbers are finite: a cheap sum, looked at closely only on suspicion."""
    by_device: dict[torch.device, list[torch.Tensor]] = {}
    for tensor in tensors:
        for numbers in _numbers(tensor):
            by_device.setdefault(numbers.device, []).append(numbers)
    return all(map(_finite, by_device.values()))


def _numbers(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """What of a tensor may not be finite, in types that torch can reckon with."""
    for dense in () if tensor.is_meta else dense_of(tensor):
        if dense.is_complex():
            dense = torch.view_as_real(dense.resolve_conj())
        if dense.is_floating_point() and dense.numel() and dense.dtype is not _WITHOUT_INFINITY:
            yield dense if dense.itemsize > 1 else dense.float()  # of one byte it knows nearly nothing


def _finite(values: list[torch.Tensor]) -> bool:
    sums = torch.stack([value.sum(dtype=torch.float32) for value in values]).cpu()
    return bool(torch.isfinite(sums).all()) or all(bool(torch.isfinite(value).all()) for value in values)
