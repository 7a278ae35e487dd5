"""The runs that lie where a training would begin: which of them a data folder's is, and what is said of the others.

A run is tied to its images. It is found by where they lie, which its newest checkpoint records, and known again by a
sketch of them; its name is for people. Nothing here is decoded or changed, and torch is needed only where settings do
not fit into a summary.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganguard.errors import CheckpointError, DoesNotFit, NoCheckpoint, UnreadableCheckpoint
from ganguard.reports import console
from ganguard.store import resume, runfile
from ganguard.store.pair import Pair
from ganguard.store.resume import Request
from ganguard.store.shelf import Shelf
from ganguard.store.summary import Summary
from ganguard.training import run_names
from ganguard.training.cgan_config import CganConfig
from ganguard.training.progan_config import ProganConfig

if TYPE_CHECKING:
    from ganguard.data.sketch import Overlap, Sketch

SKETCH = "_images"
"""The key under which a checkpoint's config holds the sketch of its images."""

_SHOWN = 5


@dataclass(frozen=True)
class RunBeside:
    """A run with a checkpoint that a training could go on from."""

    shelf: Shelf
    newest: Summary
    config: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.shelf.pair.name if self.shelf.pair else str(self.shelf.folder)

    @property
    def key(self) -> str:
        """What its name counts as, where several runs share a folder."""
        return self.shelf.pair.key if self.shelf.pair else ""

    @property
    def images(self) -> str:
        """Where they were when it was last saved."""
        return str(self.config.get("data", ""))

    def is_of(self, data: str) -> bool:
        """Whether its images are those in ``data``, or were there before a folder around them was moved."""
        if run_names.same_place(self.images, run_names.place(data)):
            return True
        moved = not run_names.is_there(self.images)
        return moved and run_names.name_for(self.images) == run_names.name_for(data)

    def overlap(self, now: Sketch) -> Overlap | None:
        recorded = self.config.get(SKETCH)
        return now.overlap(recorded) if isinstance(recorded, str) else None

    def __str__(self) -> str:
        return f"{self.name} (in epoch {self.newest.epoch_under_way}, on {self.images})"


def _runs(shelves: Iterable[Shelf], unusable: list[CheckpointError]) -> Iterator[RunBeside]:
    """Those that could be gone on with; what keeps others from it is added to ``unusable``."""
    for shelf in shelves:
        try:
            start, settings = resume.settings(shelf, Request())
        except CheckpointError as error:
            unusable.append(error)
            continue
        # A run that has saved nothing yet goes on from the file that it began from, which is another run's.
        if start and start.summary and shelf.holds(start.path, start.state, start.summary) and "data" in settings:
            yield RunBeside(shelf, start.summary, settings)


def progressive_in(weights: str, unusable: list[CheckpointError] | None = None) -> list[RunBeside]:
    """The progressive GANs' runs in a folder of weights; what keeps others from being used goes to ``unusable``."""
    found = _runs(runfile.shelves_of_pairs(Path(weights)), [] if unusable is None else unusable)
    return [run for run in found if run.config.get("network") == "progan"]


def settled(asked: ProganConfig) -> ProganConfig:
    """With the name of the run that is meant: as typed, else that of the run on these images, else after the images.

    Raises:
        NoCheckpoint: several runs are of these images.
        UnreadableCheckpoint: none is, and one that cannot be read now may be.
    """
    if asked.run_name is not None:
        return asked
    unusable: list[CheckpointError] = []
    runs, place = progressive_in(asked.weights_dir, unusable), run_names.place(asked.data_dir)
    there = [run for run in runs if run_names.same_place(run.images, place)]
    mine = there or [run for run in runs if run.is_of(asked.data_dir)]
    usual = asked.layout
    if not mine:
        _require_all_told(unusable, usual)
    if not mine or any(run.key == usual.key for run in mine):
        return replace(asked, run_name=usual.name)
    if len(mine) == 1:
        return replace(asked, run_name=mine[0].name)
    lines = [f"  {run}:  {console.command_with('--run-name', run.name)}" for run in mine]
    raise NoCheckpoint(
        f"{len(mine)} runs in {asked.weights_dir} are of the images in {asked.data_dir}. Say which is meant:", *lines
    )


def _require_all_told(unusable: list[CheckpointError], usual: Pair) -> None:
    """Raises UnreadableCheckpoint where a run that cannot be read may be that of the images."""
    for error in unusable:
        if isinstance(error, UnreadableCheckpoint):
            raise UnreadableCheckpoint(
                *error.lines,
                "It may be of the run on these images, so nothing was begun. Mend that and type the same command.",
                f"  To begin a new run all the same:  {console.command_with('--run-name', usual.name)}",
            )


def check_progressive(
    config: ProganConfig, request: Request, sketch: Sketch, *, named: bool, other_images: bool
) -> None:
    """Before anything is decoded: stop where the run's images are other ones, or another run has these.

    Args:
        named: the run's name was typed.
        other_images: the run is to go on with other images.

    Raises:
        DoesNotFit: which run or which images are meant must be said.
    """
    if request.afresh or request.file is not None:
        return
    runs = progressive_in(config.weights_dir)
    own = next((run for run in runs if run.key == config.layout.key), None)
    if own is None:
        others = [(run, _going_on_progressive(run, config, sketch)) for run in runs]
        _tell_others(others, sketch, None if named else ("--run-name", config.layout.name))
    elif not other_images and _has_others(own, config.data_dir, sketch):
        raise DoesNotFit(*_which_is_meant(own, runs, config, sketch))


def _which_is_meant(own: RunBeside, runs: list[RunBeside], config: ProganConfig, sketch: Sketch) -> Iterator[str]:
    """A sentence, and a command for each that may be."""
    were = f"it was trained on {own.images}"
    if run_names.same_place(own.images, run_names.place(config.data_dir)):
        were = "others lay there when it was last saved"
    yield (
        f"The images in {config.data_dir} are not those of the run {own.name} in {config.weights_dir}: {were}. "
        "Nothing was changed. Say which is meant:"
    )
    same = [run for run in runs if (overlap := run.overlap(sketch)) and overlap.is_same]
    for run in same:
        yield f"  To go on with {run}, which has these:  {console.command_with('--run-name', run.name)}"
    yield f"  To go on with {own.name} on these images:  {console.command_with('--other-images')}"
    if not same:
        name = _free_name(config, runs)
        yield f"  To begin a run of its own on them:  {console.command_with('--run-name', name)}"


def _has_others(own: RunBeside, data: str, sketch: Sketch) -> bool:
    """A run of an earlier version tells only where its images were."""
    overlap = own.overlap(sketch)
    return overlap.is_other if overlap else not own.is_of(data) and run_names.is_there(own.images)


def _free_name(config: ProganConfig, runs: list[RunBeside]) -> str:
    taken = {run.key for run in runs}
    possible = (replace(config, run_name=name).layout for name in run_names.possible_names(config.data_dir))
    return next(pair.name for pair in possible if pair.key not in taken)


def _going_on_progressive(run: RunBeside, config: ProganConfig, sketch: Sketch | None) -> tuple[str, ...]:
    data = _its_images(run, config.data_dir, sketch)
    other = ("--other-images",) if data is None else ()
    return "--run-name", run.name, *(("--data-dir", data) if data else ()), *other


def _its_images(run: RunBeside, data: str, sketch: Sketch | None) -> str | None:
    """Where the run's images are, if not in ``data``, which is then empty; None where they are gone."""
    overlap = run.overlap(sketch) if sketch else None
    if not overlap.is_other if overlap else run.is_of(data):
        return ""
    elsewhere = run_names.is_there(run.images) and not run_names.same_place(run.images, run_names.place(data))
    return run.images if elsewhere else None


def check_conditional(config: CganConfig, folder: Path, request: Request, sketch: Sketch) -> None:
    """The same for the conditional GAN, whose run is where ``folder`` is.

    Raises:
        DoesNotFit: a run on these images lies beside, and no folder was named.
    """
    if request.afresh or request.file is not None or resume.plan(folder, request, verified=False).start:
        return
    others = [(run, _going_on_conditional(run, config, sketch)) for run in _conditional_near(config, folder)]
    named = config.checkpoint_dir is not None or config.run_dir != CganConfig().run_dir
    _tell_others(others, sketch, None if named else ("--checkpoint-dir", str(folder)))


def _conditional_near(config: CganConfig, folder: Path) -> list[RunBeside]:
    """The conditional GANs' runs in other folders below that of the runs."""
    name = Shelf(folder).run_file.name
    places = {file.parent for near in ("*", "*/checkpoints") for file in Path(config.run_dir).glob(f"{near}/{name}")}
    shelves = (Shelf(place) for place in sorted(places) if not run_names.same_place(str(place), str(folder)))
    return [run for run in _runs(shelves, []) if "label_names" in run.config]


def _going_on_conditional(run: RunBeside, config: CganConfig, sketch: Sketch | None) -> tuple[str, ...]:
    folder, data = run.shelf.folder, _its_images(run, config.data, sketch)
    root = folder.parent if folder.name == "checkpoints" else Path(config.run_dir)
    where = ("--run-dir", str(root)) if root != Path(config.run_dir) else ()
    return *where, "--checkpoint-dir", str(folder), *(("--data", data) if data else ())


def progressive_beside(config: ProganConfig) -> list[str]:
    """The runs in the folder of weights, for an answer that one has no checkpoint; empty where there are none."""
    return named((run, _going_on_progressive(run, config, None)) for run in progressive_in(config.weights_dir))


def conditional_beside(config: CganConfig, folder: Path) -> list[str]:
    """Likewise."""
    return named((run, _going_on_conditional(run, config, None)) for run in _conditional_near(config, folder))


def named(others: Iterable[tuple[RunBeside, tuple[str, ...]]]) -> list[str]:
    """Lines for an answer that a run has no checkpoint: which have one, with the options that name them."""
    lines = [f"  {run}. To name it:  {console.command_with(*options)}" for run, options in others]
    return ["Other runs lie here:", *lines[:_SHOWN]] if lines else []


def _tell_others(others: list[tuple[RunBeside, tuple[str, ...]]], sketch: Sketch, anew: tuple[str, ...] | None) -> None:
    """Say which runs lie beside the one that begins, those of the same images first.

    Args:
        others: with the options that go on with each.
        anew: the options that say that a new run is meant; None where they were typed.

    Raises:
        DoesNotFit: another run has these very images, and nothing says that a new one is meant.
    """
    same = [run for run, _ in others if (overlap := run.overlap(sketch)) and overlap.is_same]
    lines = [
        f"  {'On these very images: ' if run in same else ''}{run}. To go on with it:  {console.command_with(*options)}"
        for run, options in sorted(others, key=lambda other: other[0] not in same)
    ]
    more = [f"  and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    shown = [*lines[:_SHOWN], *more]
    if same and anew:
        raise DoesNotFit(
            "A new run would begin from zero, though one on these very images lies here. Nothing was changed. Say "
            "which is meant:",
            *shown,
            f"  To begin a new run:  {console.command_with(*anew)}",
        )
    if lines:
        console.say_all(["A new run begins. Here lie already:", *shown])
