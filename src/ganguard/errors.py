"""Every exception that ganguard raises.

GanguardError                 has an exit code and lines; its text ends in what to do next
├── UsageError          2     a wrong or contradicting option, a loop that breaks the contract
│   └── DataError       2     a data folder or file that cannot be trained on
├── CheckpointError     3     no usable checkpoint
│   ├── NoCheckpoint    3     none there, or none that may be resumed unasked
│   ├── DamagedCheckpoint 3   proven damage: the bytes are not those that were written
│   ├── UnreadableCheckpoint 3  not proven damage: a read error, a permission, a newer format
│   ├── RefusedCheckpoint 3   unpickling would need more than plain types and tensors
│   └── DoesNotFit      3     whole, but made for other networks or another configuration
├── FolderInUse         4     another training holds the folder
├── WorkerFailed        5     no more data comes: a data worker failed
├── SaveFailed          6     a checkpoint could not be written
└── TrainingFailed      6     something else than a save failed while training

SystemExit
├── Stopped   128 + signal    the run was asked to stop, and has saved
└── NotSaved            6     the run ended, and its newest state is not on disk
"""

from __future__ import annotations

from ganguard.printable import one_line

EXIT_USAGE = 2
EXIT_NO_CHECKPOINT = 3
EXIT_IN_USE = 4
EXIT_STOPPED_ITSELF = 5
EXIT_NOT_SAVED = 6
EXIT_SIGNAL_BASE = 128


class GanguardError(Exception):
    """Base of all errors; ``exit_code`` is what the commands exit with.

    Args:
        lines: of its text. What they name (a file, a class) may hold anything, and still adds no line to them.
    """

    exit_code = 1

    def __init__(self, *lines: str) -> None:
        super().__init__(*lines)
        self.lines = tuple(one_line(str(line)) for line in lines)

    def __str__(self) -> str:
        return "\n".join(self.lines)


class UsageError(GanguardError):
    """The caller asked for something that cannot be."""

    exit_code = EXIT_USAGE


class DataError(UsageError):
    """The images or labels cannot be trained on."""


class CheckpointError(GanguardError):
    """No checkpoint can be used."""

    exit_code = EXIT_NO_CHECKPOINT


class NoCheckpoint(CheckpointError):
    """None is there, or none that may be resumed without being asked for."""


class DamagedCheckpoint(CheckpointError):
    """The bytes are provably not those that were written."""


class UnreadableCheckpoint(CheckpointError):
    """It cannot be read now; nothing says that it is damaged."""


class RefusedCheckpoint(CheckpointError):
    """Loading it would mean running code from it."""


class DoesNotFit(CheckpointError):
    """Whole, but made for other networks or under another configuration."""


class FolderInUse(GanguardError):
    """Another training process writes into this folder."""

    exit_code = EXIT_IN_USE


class WorkerFailed(GanguardError):
    """A data worker failed, so that no more data comes; the training stopped itself."""

    exit_code = EXIT_STOPPED_ITSELF


class SaveFailed(GanguardError):
    """A checkpoint could not be written; the older ones are untouched.

    ``needed`` is the number of bytes that it would take, 0 where unknown.
    """

    exit_code = EXIT_NOT_SAVED

    def __init__(self, message: str, *, needed: int = 0) -> None:
        super().__init__(message)
        self.needed = needed


class TrainingFailed(GanguardError):
    """The system refused something that a step needed; what came after the last save is lost."""

    exit_code = EXIT_NOT_SAVED


class Stopped(SystemExit):
    """The run was asked to stop and has saved; the process ends with 128 + signal."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(EXIT_SIGNAL_BASE + signal_number)
        self.signal_number = signal_number


class NotSaved(SystemExit):
    """The run ended, but its newest state is not on disk."""

    def __init__(self) -> None:
        super().__init__(EXIT_NOT_SAVED)
