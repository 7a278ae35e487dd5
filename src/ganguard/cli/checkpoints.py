"""``checkpoint_manager.py``: list, show, verify, back up, clean up, delete. Needs no torch."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from ganguard.cli import options, running
from ganguard.errors import EXIT_IN_USE, EXIT_NO_CHECKPOINT, EXIT_USAGE, CheckpointError, GanguardError, UsageError
from ganguard.reports import best_pair, checkpoint_list, console
from ganguard.store import backup, catalog, foreign, names, removal, retention, runfile, spared, verdicts
from ganguard.store.catalog import Catalog, Entry
from ganguard.store.durable import why
from ganguard.store.envelope import State
from ganguard.store.pair import HISTORY
from ganguard.store.plans import naming
from ganguard.store.reading import open_regular
from ganguard.store.retention import Policy
from ganguard.store.shelf import Shelf
from ganguard.store.summary import Summary

_EPILOG = """\
Safe beside a running training. FILE is a path, or a name in the checkpoint folder. Of a checkpoint of two files
(a progressive GAN's, in weights/) either name stands for both.
Exit codes: 0 done, 2 wrong usage, no such folder, or refused, 3 a checkpoint is damaged, 4 the folder or a file to be
removed is in use, 6 a backup could not be written."""


def parser(prog: str) -> argparse.ArgumentParser:
    parser = options.Parser(
        prog=prog,
        description="Look after the checkpoints of a training.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--list", action="store_true", help="list all checkpoints, backups and what was set aside")
    what.add_argument("--show", type=Path, metavar="FILE", help="tell all that a checkpoint says about itself")
    what.add_argument("--verify", type=Path, nargs="*", metavar="FILE", help="read every byte of these, or of all")
    what.add_argument("--backup", type=Path, metavar="FILE", help="make a verified copy in checkpoint_backups/")
    what.add_argument("--cleanup", action="store_true", help="remove what is not kept")
    what.add_argument("--delete", type=Path, metavar="FILE", help="remove one checkpoint")
    keep = Policy()
    parser.add_argument(
        "--checkpoint-dir", type=Path, default=Path("checkpoints"), metavar="DIR", help="default: checkpoints"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--keep-latest",
        type=int,
        metavar="N",
        help=f"with --cleanup: newest epochs that stay (default: {keep.keep_latest}; of pairs 2)",
    )
    parser.add_argument(
        "--keep-every",
        type=int,
        metavar="N",
        help=f"with --cleanup: each so many-th epoch stays (default: {keep.keep_every}; of pairs 0: none)",
    )
    parser.add_argument(
        "--older", action="store_true", help="with --list: open files of older scripts too, for their epochs and losses"
    )
    parser.add_argument("--set-aside", action="store_true", help="with --cleanup: remove what was set aside too")
    parser.add_argument("--dry-run", action="store_true", help="with --cleanup: only tell what would go")
    parser.add_argument("--force", action="store_true", help="with --delete: even the last good checkpoint")
    return parser


def main(argv: Sequence[str] | None = None, *, prog: str = "checkpoint_manager.py") -> int:
    """Run the command; returns the exit code."""
    return running.run(lambda: _work(parser(prog).parse_args(argv)))


def _work(asked: argparse.Namespace) -> int:
    _refuse_stray_options(asked)
    folder: Path = asked.checkpoint_dir
    if not folder.is_dir() and not asked.list:
        raise UsageError(f"There is no folder {folder}. Name the right one with --checkpoint-dir.")
    if asked.list:
        return show_list(folder, as_json=asked.json, older=asked.older)
    if asked.show:
        return _show(_found(asked.show, folder), as_json=asked.json)
    if asked.verify is not None:
        return _verify([_found(file, folder) for file in asked.verify], folder, as_json=asked.json)
    if asked.backup:
        return _back_up(_found(asked.backup, folder), folder, as_json=asked.json)
    if asked.cleanup:
        return _clean_up(folder, asked)
    return _delete(_found(asked.delete, folder), folder, force=asked.force, as_json=asked.json)


def _refuse_stray_options(asked: argparse.Namespace) -> None:
    for name in ("keep_latest", "keep_every", "set_aside", "dry_run"):
        if getattr(asked, name) and not asked.cleanup:
            raise UsageError(f"--{name.replace('_', '-')} belongs to --cleanup.")
    if asked.older and not asked.list:
        raise UsageError("--older belongs to --list; --show opens such a file by itself.")
    if asked.force and not asked.delete:
        raise UsageError("--force belongs to --delete.")
    if (asked.keep_latest is not None and asked.keep_latest < 1) or (asked.keep_every or 0) < 0:
        raise UsageError("--keep-latest is at least 1, --keep-every at least 0.")


def _found(file: Path, folder: Path) -> Path:
    """The file as typed, or the one of that name in the checkpoint folder or its history."""
    if file.exists() or len(file.parts) > 1:
        return file
    return folder / HISTORY / file if (folder / HISTORY / file).exists() else folder / file


def _print(values: dict[str, Any], lines: Iterable[str], *, as_json: bool) -> None:
    console.say_all(json.dumps(values, indent=1).splitlines() if as_json else lines)


def _about_older() -> Callable[[Path], dict[str, Any]]:
    """What opens an older script's file, which takes torch."""
    with running.loading_libraries():
        from ganguard import older
    return older.about


def show_list(folder: Path, *, as_json: bool, older: bool = False) -> int:
    """Print the list of a checkpoint folder, 2 where there is none; shared with ``gan.py --list-checkpoints``.

    Args:
        older: open the files of older scripts too.
    """
    listing = checkpoint_list.make(folder, about=_about_older() if older else None)
    _print(listing.to_json(), checkpoint_list.lines(listing), as_json=as_json)
    return 0 if listing.exists else EXIT_USAGE


def _require_checkpoint(file: Path, folder: Path) -> Entry:
    removal.require_inside(file, folder)
    entry = catalog.read(file)
    if file.suffix != names.SUFFIX or (entry.state is State.INCOMPLETE and not _looks_torn(file, folder)):
        other = foreign.of(file)
        raise UsageError(f"{file} is no checkpoint{f', but {other}' if other else '. List them with --list'}.")
    return entry


def _looks_torn(file: Path, folder: Path) -> bool:
    """Whether a file without a readable end may once have been a checkpoint: zip archives begin with PK."""
    shelf = removal.shelf_of(file, folder)
    if shelf.is_versioned(file.name) or file.name in shelf.aliases:
        return True
    with open_regular(file) as content:
        return content.read(4) == b"PK\x03\x04"


def _show(file: Path, *, as_json: bool) -> int:
    if not file.exists():
        raise UsageError(f"There is no file {file}. List the checkpoints with --list.")
    siblings = Catalog.beside(file)
    typed = next((e for e in siblings.entries if e.path.absolute() == file.absolute()), None) or catalog.read(file)
    entry = siblings.head_of(typed)
    others = siblings.companions(entry)
    size = entry.size + sum(other.size for other in others)
    values: dict[str, Any] = {"file": str(entry.path), "size": size, "state": entry.state.value}
    if others:
        values["second"] = ", ".join(str(other.path) for other in others)
    best = best_pair.about(entry.path)
    if best is not None:
        values |= {"state": best.words, **best.told}
    if entry.summary is not None:
        summary = _summary(entry)
        values |= dataclasses.asdict(summary)
        if summary.config is not None:  # what begins with an underscore is for programs
            values["config"] = {k: v for k, v in summary.config.items() if not k.startswith("_")}
    elif best is None:
        values |= _without_summary(entry)
    if as_json:
        _print(values, (), as_json=True)
        return 0
    for name, value in values.items():
        if value not in (None, "", (), {}, []):
            shown = json.dumps(value) if isinstance(value, dict | list | tuple) else value
            console.say(f"{name:<12} {shown}")
    return 0


def _summary(entry: Entry) -> Summary:
    """All that a checkpoint says of itself, also what is only in its body, where that can be read."""
    assert entry.summary is not None  # it was looked at
    try:
        return spared.whole(entry) or entry.summary
    except CheckpointError as error:
        console.say(f"What did not fit into its summary is not shown: {error}", stream=sys.stderr)
        return entry.summary


def _without_summary(entry: Entry) -> dict[str, Any]:
    """What can be told of a file that carries no summary: what is in it, where it can be opened safely."""
    if other := foreign.of(entry.path):
        return {"note": f"It is {other}."}
    if entry.state is not State.OLDER:
        return {"note": "It carries no summary: its end was lost."}
    note = {"note": "It carries no summary: an older script wrote it, or its end was lost."}
    try:
        return {**_about_older()(entry.path), **note}
    except CheckpointError as error:
        return {**note, "refused": str(error)}


def _verify(files: list[Path], folder: Path, *, as_json: bool) -> int:
    named = [_require_checkpoint(file, folder) for file in files]
    everything = [e for shelf in runfile.shelves(folder) for e in _checkpoints(Catalog.of(shelf))]
    chosen = {entry.path: entry for entry in named or everything}
    if not chosen:
        raise UsageError(f"There are no checkpoints in {folder}. Name another folder with --checkpoint-dir.")
    results = []
    for path in chosen:
        if best := best_pair.about(path):
            results.append({"file": str(path), "good": best.good, "verdict": best.verdict})
            if not as_json:
                console.say(f"{path}: {best.verdict}")
            continue
        found = verdicts.of(path)
        if found is None:  # by a training or a cleanup beside us
            if named:
                console.say(f"{path} is being written or removed, or was removed since.", stream=sys.stderr)
            continue
        results.append({"file": str(found.head.path), "good": found.good, "verdict": found.text})
        if not as_json:
            console.say(f"{found.shown}: {found.text}")
    if as_json:
        _print({"verified": results}, (), as_json=True)
    return 0 if all(result["good"] for result in results) else EXIT_NO_CHECKPOINT


def _checkpoints(there: Catalog) -> list[Entry]:
    """Every checkpoint once, and every file that is none: a pair by its first file, once that is written."""
    return [e for e in there.versioned if there.head_of(e) == e and not there.is_in_between(e)]


def _back_up(file: Path, folder: Path, *, as_json: bool) -> int:
    _require_checkpoint(file, folder)
    copies = backup.back_up(file, removal.backups(folder))
    shown = [f"Backed up and verified: {copy}" for copy in copies]
    _print({"copies": [str(copy) for copy in copies]}, shown, as_json=as_json)
    return 0


@dataclasses.dataclass
class _Cleanup:
    """What a cleanup removed, or would remove, and what it could not."""

    files: list[Entry] = dataclasses.field(default_factory=list)
    aside: dict[Path, int] = dataclasses.field(default_factory=dict)  # bytes
    stuck: dict[Path, OSError] = dataclasses.field(default_factory=dict)
    warnings: list[str] = dataclasses.field(default_factory=list)

    @property
    def paths(self) -> list[Path]:
        return [*(file.path for file in self.files), *self.aside]

    @property
    def bytes(self) -> int:
        return sum(file.size for file in self.files) + sum(self.aside.values())


def _clean_up(folder: Path, asked: argparse.Namespace) -> int:
    done = _Cleanup()
    try:
        for shelf in runfile.shelves(folder):
            _prune(shelf, asked, done)
        if asked.set_aside:
            aside = {path: path.lstat().st_size for path in removal.set_aside_in(folder)}
            gone = aside if asked.dry_run else removal.clear_set_aside(folder)
            done.aside = {path: aside.get(path, 0) for path in gone}
    except (OSError, GanguardError):
        if done.paths:
            _tell_of(done, asked)
        raise
    _tell_of(done, asked)
    return EXIT_IN_USE if done.stuck else 0


def _prune(shelf: Shelf, asked: argparse.Namespace, done: _Cleanup) -> None:
    keep = retention.usual(shelf)
    policy = Policy(
        keep_latest=keep.keep_latest if asked.keep_latest is None else asked.keep_latest,
        keep_every=keep.keep_every if asked.keep_every is None else asked.keep_every,
    )
    if asked.dry_run:
        done.files += removal.would_go(shelf, policy)
        return
    gone = removal.prune(shelf, policy, stays=done.stuck.__setitem__)
    done.files += gone.files
    done.warnings += [gone.warning] if gone.warning else []


def _tell_of(done: _Cleanup, asked: argparse.Namespace) -> None:
    verb = "Would remove" if asked.dry_run else "Removed"
    verified = "" if asked.dry_run else " The newest good one was verified first."
    lines = [f"{verb} {path}" for path in done.paths]
    lines.append(f"{verb} {console.counted(len(lines), 'file')}; {console.size(done.bytes)} of checkpoints.{verified}")
    if not done.paths and not done.stuck:
        lines = ["Nothing to remove: everything there is kept by the rules."]
    for path, error in done.stuck.items():
        lines.append(f"{path} could not be removed ({why(error)}) and stays. Type the same command again later.")
    values = {"dry_run": asked.dry_run, "removed": [str(path) for path in done.paths], "bytes": done.bytes}
    values |= {"left": [str(path) for path in done.stuck], "warnings": done.warnings}
    _print(values, [*lines, *done.warnings], as_json=asked.json)


def _delete(file: Path, folder: Path, *, force: bool, as_json: bool) -> int:
    entry = Catalog.beside(file).head_of(_require_checkpoint(file, folder))
    shelf = removal.shelf_of(file, folder)
    gone = removal.delete(file, folder, force=force)
    left = removal.left_elsewhere(shelf, entry)
    values: dict[str, Any] = {"deleted": [str(path) for path in gone.paths]}
    lines = [f"Deleted {path}" for path in gone.paths]
    if gone.warning:
        values["warnings"] = [gone.warning]
        lines.append(gone.warning)
    if left is not None:
        values["left"] = str(left.path)
        lines.append(
            f"It was the last good checkpoint of its run in {folder}. What is left of it is a backup, which was "
            f"verified; to go on from there: {naming(left.path)}"
        )
    _print(values, lines, as_json=as_json)
    return 0
