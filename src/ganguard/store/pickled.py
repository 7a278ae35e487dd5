"""A pickle of torch's, gone through before it is loaded: which functions it calls, and how much they would make.

Even torch's reader of plain types calls what it allows with any arguments: a number may ask for so many bytes, a text
that is stored once may be copied by every call, a tensor may say that its storage is larger than it is. So a file of a
kilobyte could fill the memory. Here every value is a stand-in that only tells its size. What calls copy is counted, and
may be no more than a few times the bytes of the pickle so far; pickle itself writes what it hands to a call once.
"""

from __future__ import annotations

import math
import pickle
import pickletools
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING  # names of Python 2, which torch translates as well
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

_MOST_COPIED = 1 << 20  # characters, bytes and items, and…
_COPIES = 4  # …of each byte of the pickle
MOST_VIEWS = 4  # how often a file's bytes may be seen through its tensors, which may share them…
SMALL_VIEWS = 64 << 20  # …or repeat a single number
_LEGACY_PICKLES = 5  # of a file from before torch 1.6: three that name its format, the content, its storages' keys

_VIEWS = frozenset(f"torch._utils._rebuild_{kind}" for kind in ("tensor", "tensor_v2", "tensor_v3", "qtensor"))
_FROM_TYPE = "torch._tensor._rebuild_from_type_v2"
_SIZE = "torch.Size"
_ENCODE = "_codecs.encode"
_BYTES = (_ENCODE, "builtins.bytearray")
_COLLECTIONS = ("collections.OrderedDict", "collections.Counter", "builtins.set")
_CALLED = _VIEWS | {
    *_BYTES,
    *_COLLECTIONS,
    *(_FROM_TYPE, _SIZE, "torch.device", "torch.serialization._get_layout", "torch.nn.parameter.Parameter"),
    "builtins.complex",
    *(f"torch._utils._rebuild_parameter{how}" for how in ("", "_with_state")),
    *(f"torch._utils._rebuild_{kind}_tensor" for kind in ("sparse", "nested")),
    "torch._utils._rebuild_meta_tensor_no_storage",
}
_ITEM_SIZES = {
    **dict.fromkeys(("Untyped", "Byte", "Char", "Bool", "QInt8", "QUInt8", "QUInt4x2", "QUInt2x4"), 1),
    **dict.fromkeys(("Short", "Half", "BFloat16"), 2),
    **dict.fromkeys(("Int", "Float", "QInt32"), 4),
    **dict.fromkeys(("Long", "Double", "ComplexFloat"), 8),
    "ComplexDouble": 16,
}


class Unbounded(ValueError):
    """A file's size does not account for what it would take."""


@dataclass(frozen=True)
class _Named:
    """A class or function."""

    name: str


@dataclass
class _Held:
    """A collection, or bytes."""

    size: int = 0


@dataclass
class _Made(_Held):
    """What else a call made: a tensor, an array, a device."""

    by: str = ""


@dataclass(frozen=True)
class _Storage:
    items: int
    item_size: int


@dataclass
class Weighing:
    """One file's pickles.

    Args:
        size: of the file, in bytes.
        records: how many bytes are stored under each name; None where the file has no records.
        also: functions that may be called besides those of torch and Python.
    """

    size: int
    records: Mapping[str, int] | None
    also: frozenset[str]
    _position: int = 0
    _copied: int = 0
    _stored: int = 0
    _seen: int = 0
    _storages: dict[str, _Storage] = field(default_factory=dict)

    def weigh_legacy(self, file: BinaryIO) -> None:
        """Go through the pickles at the beginning of a file from before torch 1.6; raises as ``weigh``."""
        for _ in range(_LEGACY_PICKLES):
            self.weigh(file)

    def weigh(self, pickled: BinaryIO) -> None:
        """Go through one pickle.

        Raises:
            Unbounded: it would take more memory than the file's size accounts for.
            pickle.UnpicklingError: it calls what makes neither plain values nor tensors.
            ValueError, LookupError, TypeError, AttributeError: it is damaged.
        """
        stack: list[Any] = []
        marked: list[list[Any]] = []
        memo: dict[int, Any] = {}
        argument: Any
        for opcode, argument, position in pickletools.genops(pickled):
            self._position = position or 0
            match opcode.name:
                case "MARK":
                    marked.append(stack)
                    stack = []
                case "TUPLE" | "APPENDS" | "SETITEMS":
                    items, stack = stack, marked.pop()
                    _gather(stack, items, opcode.name)
                case "BINGET" | "LONG_BINGET":
                    stack.append(memo[argument])
                case "BINPUT" | "LONG_BINPUT":
                    memo[argument] = stack[-1]
                case name if name in _STEPS:
                    _STEPS[name](self, stack)
                case name if name in _VALUES:
                    stack.append(_VALUES[name](argument))
                case "PROTO" | "STOP":
                    pass
                case name:
                    raise pickle.UnpicklingError(f"Unsupported operand {name}")

    def call(self, stack: list[Any]) -> None:
        arguments, function = stack.pop(), stack.pop()
        stack.append(self._called(function, arguments))

    def build(self, stack: list[Any]) -> None:
        """An object's state: numpy's arrays copy it where its bytes are swapped, collections copy a table."""
        state, built = stack.pop(), stack[-1]
        before = self._copied
        self._count(state)
        if isinstance(built, _Made) and isinstance(state, tuple):
            if built.by not in self.also:  # torch's tensors of old
                self._view(*state)
        elif isinstance(built, _Made) or not isinstance(state, _Held):
            raise pickle.UnpicklingError("Unsupported operand BUILD")
        built.size += self._copied - before

    def persist(self, stack: list[Any]) -> None:
        """A storage: torch believes the number of items that the first mention of its key tells."""
        word, kind, key, _, items, *_ = stack.pop()
        if not (word == "storage" and isinstance(key, str) and key.isdecimal() and key.isascii() and _is_count(items)):
            raise TypeError("a storage is named by a number")
        if key not in self._storages:
            self._storages[key] = self._store(kind, key, items)
        stack.append(self._storages[key])

    def _store(self, kind: _Named, key: str, items: int) -> _Storage:
        title = kind.name.rpartition(".")[2].removesuffix("Storage")
        if title not in _ITEM_SIZES:
            raise pickle.UnpicklingError(f"Unsupported class {kind.name}")
        stored = _Storage(items, _ITEM_SIZES[title])
        there = stored.items * stored.item_size
        self._stored += there
        if self._stored > self.size or (self.records is not None and there > self.records[f"data/{key}"]):
            raise Unbounded("its tensors are larger than the file")
        return stored

    def _called(self, function: Any, arguments: Any) -> Any:
        if not (isinstance(function, _Named) and isinstance(arguments, tuple)):
            raise TypeError("only a function is called")
        name = function.name
        no_tensor_yet = not arguments and name.startswith("torch.") and name.endswith("Tensor")
        if not (name in _CALLED or name in self.also or no_tensor_yet) or not _are_right_for(name, arguments):
            raise pickle.UnpicklingError(f"Unsupported class {name}")
        before = self._copied
        self._count(arguments)
        if name in _VIEWS:
            self._view(*arguments[:4])
        elif name == _FROM_TYPE:
            inner, _, inner_arguments, state = arguments
            self._called(inner, inner_arguments)
            self._count(state)
        elif name == _SIZE:
            return arguments[0] if arguments else ()
        made = self._copied - before
        return _Held(made) if name in _BYTES or name in _COLLECTIONS else _Made(made, name)

    def _view(self, storage: Any, offset: Any, shape: Any, strides: Any) -> None:
        """A tensor: torch makes a storage larger where the tensor says so."""
        if not (isinstance(storage, _Storage) and all(map(_is_count, (offset, *shape, *strides)))):
            raise TypeError("a tensor has a shape")
        last = offset + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
        items = math.prod(shape)
        self._seen += items * storage.item_size
        if (items and last >= storage.items) or self._seen > MOST_VIEWS * self.size + SMALL_VIEWS:
            raise Unbounded("its tensors are larger than the file")

    def _count(self, value: Any, depth: int = 2) -> None:
        """What a call may copy of its arguments: those, and what tuples among them hold."""
        self._copied += len(value) if isinstance(value, str | tuple) else getattr(value, "size", 0)
        if self._copied > _MOST_COPIED + _COPIES * self._position:
            raise Unbounded("it would make far more than it stores")
        if isinstance(value, tuple) and depth:
            for item in value:
                self._count(item, depth - 1)


def _are_right_for(name: str, arguments: tuple[Any, ...]) -> bool:
    """Whether what copies its arguments is given text and collections: a tensor may be a number, or any number."""
    if name == _ENCODE:
        return len(arguments) == 2 and isinstance(arguments[0], str) and arguments[1] in ("latin1", "latin-1")
    copies = name in _BYTES or name in _COLLECTIONS or name == _SIZE
    return not copies or all(isinstance(value, str | tuple) or type(value) is _Held for value in arguments)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _gather(stack: list[Any], items: list[Any], how: str) -> None:
    if how == "TUPLE":
        stack.append(tuple(items))
    else:
        stack[-1].size += len(items)


def _tuple_of(count: int) -> Callable[[Weighing, list[Any]], None]:
    def gather(_: Weighing, stack: list[Any]) -> None:
        stack[-count:] = [tuple(stack[-count:])]

    return gather


def _item_of(count: int) -> Callable[[Weighing, list[Any]], None]:
    def put(_: Weighing, stack: list[Any]) -> None:
        del stack[-count:]
        stack[-1].size += 1

    return put


def _named(argument: str) -> _Named:
    module, _, name = argument.partition(" ")
    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
    return _Named(f"{module}.{name}")


_STEPS: dict[str, Callable[[Weighing, list[Any]], None]] = {
    "REDUCE": Weighing.call,
    "NEWOBJ": Weighing.call,
    "BUILD": Weighing.build,
    "BINPERSID": Weighing.persist,
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "APPEND": _item_of(1),
    "SETITEM": _item_of(2),
}
_VALUES: dict[str, Callable[[Any], Any]] = {
    "GLOBAL": _named,
    "EMPTY_TUPLE": lambda _: (),
    **dict.fromkeys(("EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET"), lambda _: _Held()),
    **dict.fromkeys(("NONE", "NEWTRUE", "NEWFALSE"), lambda _: None),
    **dict.fromkeys(
        ("BININT", "BININT1", "BININT2", "BINFLOAT", "LONG1", "BINUNICODE", "SHORT_BINSTRING"), lambda value: value
    ),
}
