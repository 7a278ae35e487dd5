"""Command-line options and TOML files ⇄ config dataclasses."""

from __future__ import annotations

import argparse
import difflib
import itertools
import sys
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, NoReturn

from ganguard.cli import toml_text
from ganguard.errors import EXIT_USAGE, DoesNotFit, UsageError
from ganguard.printable import one_line
from ganguard.reports import console
from ganguard.store import reading
from ganguard.store.catalog import Entry
from ganguard.store.durable import why


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


class Parser(argparse.ArgumentParser):
    """Answers a mistake with one sentence."""

    _typed: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's own; an empty word means nothing, least of all the current folder."""
        self._typed = sys.argv[1:] if args is None else list(args)
        for before, word in itertools.pairwise(("", *self._typed)):
            if not word.strip() or (word.startswith("--") and word.endswith("=")):
                self.error(f"nothing is given{f' for {before}' if before.startswith('--') else ''}: {word!r}")
        return super().parse_known_args(args, namespace)

    def _print_message(self, message: str, file: Any = None) -> None:
        """Help, usage and errors go where all else is printed; argparse knows nothing of encodings."""
        console.say_all(message.splitlines(), stream=file or sys.stderr)

    def error(self, message: str) -> NoReturn:
        message = one_line(message)  # it may quote what was typed
        words = (word.partition("=")[0] for word in self._typed if word.startswith("--"))
        unknown = next((word for word in words if word not in self._option_string_actions), "")
        if "are required" in message or "is required" in message:
            message = f"unrecognized arguments: {unknown}" if unknown else message
        close = difflib.get_close_matches(unknown, self._option_string_actions, n=1) if unknown else []
        hint = f" Did you mean {close[0]}?" if close else ""
        self.exit(EXIT_USAGE, f"{self.prog}: {message}.{hint} All options: {self.prog} --help")


def split_command(parser: argparse.ArgumentParser, words: Sequence[str], commands: Sequence[str]) -> list[str]:
    """``words`` with the command first, wherever it stands among the options of ``parser``; as they are without one."""
    place = 0
    while place < len(words):
        if words[place] in commands:
            return [words[place], *words[:place], *words[place + 1 :]]
        action = parser._option_string_actions.get(words[place])
        place += 1 if action is None or action.nargs == 0 else 2  # past its value
    return list(words)


def add_options(parser: argparse.ArgumentParser, config: type[Any]) -> None:
    """An option for each field; only those that are typed appear in the result."""
    hints = typing.get_type_hints(config)
    for item in fields(config):
        kind, optional = _kind(hints[item.name])
        shown = "" if optional or "(default" in item.metadata["help"] else f" (default: {item.default})"
        arguments: dict[str, Any] = {"default": argparse.SUPPRESS, "help": item.metadata["help"] + shown}
        if kind is bool:
            parser.add_argument(flag(item.name), action=argparse.BooleanOptionalAction, **arguments)
            continue
        choices = item.metadata["choices"]
        metavar = item.metadata["metavar"] or ("{" + ",".join(map(str, choices)) + "}" if choices else _metavar(kind))
        parser.add_argument(flag(item.name), type=_read_by(kind), choices=choices or None, metavar=metavar, **arguments)


def add_machine(parser: argparse.ArgumentParser) -> None:
    """What images are made on."""
    parser.add_argument("--device", default="cpu", metavar="NAME", help="cpu, cuda, cuda:1, mps … (default: cpu)")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: as many as there are cores)")


def _kind(hint: Any) -> tuple[type, bool]:
    """The plain type in ``int | None``, and whether None is allowed."""
    if isinstance(hint, types.UnionType):
        return next(t for t in hint.__args__ if t is not type(None)), True
    return hint, False


def _read_by(kind: type) -> Callable[[str], Any]:
    """What reads an option; its name is what argparse says that a value is not."""
    if kind in (int, float, str):
        return kind

    def read(text: str) -> Any:
        return kind(text)

    read.__name__ = "list of whole numbers"
    return read


def _metavar(kind: type) -> str:
    return {int: "N", float: "X", str: "NAME"}[kind]


def read_toml(path: Path, config: type[Any]) -> dict[str, Any]:
    """Options from a TOML file, with the names of the command line (hyphens or underscores).

    Raises:
        UsageError: no such file, no TOML, an unknown name, a value of the wrong type.
    """
    try:
        values = toml_text.parse(reading.read_whole(path), path)
    except FileNotFoundError as error:
        raise UsageError(f"--config {path}: there is no such file.") from error
    except OSError as error:
        raise UsageError(f"--config {path}: {why(error)}.") from error
    known = {item.name: item for item in fields(config)}
    hints = typing.get_type_hints(config)
    read = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {close[0]}?" if close else f" Known are: {', '.join(sorted(known))}."
            raise UsageError(f"--config {path} sets {key}, which is no option.{hint}")
        read[name] = _checked(known[name], _kind(hints[name])[0], value, path)
    return read


def _checked(item: Field[Any], kind: type, value: Any, path: Path) -> Any:
    try:
        return _of_kind(kind, value)
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"--config {path}: {item.name} takes {_in_words(kind)}, not {str(value)[:80]!r}.") from error


def _in_words(kind: type) -> str:
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text between quotes"}
    return words.get(kind, "a list of whole numbers, such as [16, 16, 12]")


def _of_kind(kind: type, value: Any) -> Any:
    """A file's value as an option's type. Raises TypeError, ValueError or OverflowError where it is of another."""
    if kind is float and type(value) is int:
        return float(value)
    if isinstance(value, list) and issubclass(kind, tuple):
        return kind(value)
    if type(value) is not kind:
        raise TypeError(f"no {kind.__name__}")
    return value


def recorded(
    config: type[Any], settings: Mapping[str, Any], left_out: Collection[str], start: Entry | None
) -> dict[str, Any]:
    """The settings of the checkpoint ``start`` that are options of ``config``; they hold where nothing else was typed.

    Raises:
        DoesNotFit: one is of another type than the option's.
    """
    kinds = {name: _kind(hint) for name, hint in typing.get_type_hints(config).items()}
    read = {}
    for item in fields(config):
        if item.name in left_out or item.name not in settings:
            continue
        value, (kind, optional) = settings[item.name], kinds[item.name]
        try:
            read[item.name] = None if value is None and optional else _of_kind(kind, value)
        except (TypeError, ValueError, OverflowError) as error:
            raise DoesNotFit(
                f"{start.path if start else 'The checkpoint'} holds settings that cannot be: {item.name} is "
                f"{str(value)[:80]!r}. Name another checkpoint, or start afresh: --no-checkpoint."
            ) from error
    return read


def merge(config: type[Any], *sources: dict[str, Any]) -> Any:
    """The config that earlier sources decide over later ones; unknown keys of a checkpoint are left out."""
    known = {item.name for item in fields(config)}
    values: dict[str, Any] = {}
    for source in reversed(sources):
        values |= {name: value for name, value in source.items() if name in known}
    return config(**values)
