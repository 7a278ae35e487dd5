"""The contract of the loop, point by point, with loops that are not ours. Signals are real ones."""

# ruff: noqa: PT012 - a with block that has to be left by an exception
import contextlib
import errno
import hashlib
import json
import re
import signal
import socket
import sys
import threading
import time

import pytest
import torch
from systems import needs_posix
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from ganguard import Guard
from ganguard.errors import DoesNotFit, FolderInUse, NotSaved, SaveFailed, Stopped, UsageError
from ganguard.reports.console import size
from ganguard.store.catalog import Catalog, newest_first
from ganguard.store.resume import Request
from ganguard.store.scheduled import BackupPlan
from ganguard.store.summary import Kind


def parts(width=3):
    torch.manual_seed(0)
    net = nn.Linear(2, width)
    return {"net": net, "opt": torch.optim.Adam(net.parameters(), 0.01)}


def data(length=20, batch=4):
    return DataLoader(TensorDataset(torch.arange(2.0 * length).reshape(length, 2)), batch, shuffle=True)


def train(parts, batch):
    x = batch[0] if isinstance(batch, list | tuple) else batch
    loss = parts["net"](x + torch.randn(2)).square().mean()
    parts["opt"].zero_grad()
    loss.backward()
    parts["opt"].step()
    return loss


def newest(folder):
    return newest_first(Catalog.of(folder).heads)[0].summary


def file_names(lines):
    """Of the files that these lines tell of."""
    return [re.split(r"[\\/]", line)[-1].split()[0] for line in lines]


def fingerprints(folder):
    files = [p for p in folder.rglob("*") if p.is_file() and p.name != ".ganguard.lock"]
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture
def said():
    return []


@pytest.fixture
def guarded(tmp_path, said):
    """A function that makes a guard on one folder, with its parts."""

    def make(made=None, **options):
        made = parts() if made is None else made
        return Guard(tmp_path / "ck", made, say=said.append, **options), made

    return make


def run(guard, made, epochs=2, at=lambda guard, epoch: None, tail=lambda guard, epoch: None, loader=None):
    loader = data() if loader is None else loader
    with guard:
        for epoch in guard.epochs(epochs):
            for batch in guard.batches(loader):
                guard.log(loss=train(made, batch))
                at(guard, epoch)
            tail(guard, epoch)


# How a loop is left.


def test_break_ends_the_epoch(guarded):
    """After break the tail runs, and the next epoch is the next one; what was read counts."""
    guard, made = guarded()
    tails = []
    with guard:
        for epoch in guard.epochs(2):
            for batch in guard.batches(data()):
                train(made, batch)
                if epoch == 1 and guard.batch == 1:
                    break
            tails.append((epoch, guard.step))
    assert tails == [(1, 2), (2, 7)]
    assert newest(guard.folder).step == 7


def test_break_is_counted_once_under_a_progress_bar_that_outlives_it(guarded):
    """tqdm keeps the loop alive after break and closes it in the middle of the next epoch."""
    guard, made = guarded()
    bars = []
    with guard:
        for epoch in guard.epochs(2):
            bars.append(guard.batches(data()))
            for number, batch in enumerate(bars[-1]):
                train(made, batch)
                if epoch == 1 and number == 1:
                    break
                if epoch == 2 and number == 2:
                    bars[0].close()
    assert guard.step == 7
    assert newest(guard.folder).images == 28


@pytest.mark.parametrize("where", ["body", "tail"])
def test_return_saves_where_it_is(guarded, where):
    """Left in mid-epoch: an autosave; left in the tail: the epoch is finished."""
    guard, made = guarded()

    def loop():
        with guard:
            for _ in guard.epochs(3):
                for batch in guard.batches(data()):
                    train(made, batch)
                    if where == "body" and guard.batch == 2:
                        return
                if where == "tail":
                    return

    loop()
    there = newest(guard.folder)
    assert (there.kind, there.epoch, there.batch) == ((Kind.AUTOSAVE, 0, 3) if where == "body" else (Kind.EPOCH, 1, 0))
    again, made = guarded()
    run(again, made, epochs=3)
    assert again.step == 15


def test_break_of_both_loops_in_mid_epoch_goes_on_there(guarded):
    guard, made = guarded()
    with guard:
        for _ in guard.epochs(3):
            for batch in guard.batches(data()):
                train(made, batch)
                if guard.batch == 2:
                    break
            break
    assert (newest(guard.folder).epoch, newest(guard.folder).batch) == (0, 3)


def test_an_exception_saves_nothing_and_unlocks(guarded, said):
    guard, made = guarded()

    def fail(guard, epoch):
        if guard.step == 7:
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        run(guard, made, at=fail)
    assert newest(guard.folder).step == 5
    assert "The newest checkpoint is" in said[-1]
    again, made = guarded()
    run(again, made)
    assert again.step == 10


def test_an_exception_of_the_data_set_loses_nothing(guarded, said):
    """It comes between two steps: what was trained is saved, and it goes on there."""

    class Broken(TensorDataset):
        def __getitem__(self, index):
            if guard.step == 7 and not mended:
                raise ValueError("mine")
            return super().__getitem__(index)

    mended = False
    loader = DataLoader(Broken(*data().dataset.tensors), 4, shuffle=True)
    guard, made = guarded()
    with pytest.raises(ValueError, match="mine"):
        run(guard, made, loader=loader)
    assert (newest(guard.folder).kind, newest(guard.folder).step) == (Kind.EMERGENCY, 7)
    assert "To go on:" in said[-1]
    mended = True
    again, made = guarded()
    run(again, made, loader=loader)
    assert again.step == 10


def test_sys_exit_in_the_body_saves_nothing_and_says_so(guarded, said):
    guard, made = guarded()
    with pytest.raises(SystemExit) as left:
        run(guard, made, at=lambda guard, epoch: sys.exit(7))
    assert left.value.code == 7
    assert "lost" in said[-1]


def test_stopped_is_a_system_exit_and_what_follows_the_loop_does_not_run(guarded):
    guard, made = guarded()
    reached = []
    with pytest.raises(Stopped) as stop, guard:
        for _ in guard.epochs(2):
            for batch in guard.batches(data()):
                train(made, batch)
                signal.raise_signal(signal.SIGTERM)
        reached.append("after the loop")
    assert isinstance(stop.value, SystemExit)
    assert stop.value.code == 128 + signal.SIGTERM
    assert not reached
    assert newest(guard.folder).kind is Kind.EMERGENCY


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_stop_in_the_tail_is_honoured_at_its_end(guarded, epoch):
    """In the last epoch's tail too: it is finished and saved, and no emergency save is needed."""
    guard, made = guarded()
    done = []

    def tail(guard, now):
        if now == epoch:
            signal.raise_signal(signal.SIGINT)
        done.append(now)

    with pytest.raises(Stopped):
        run(guard, made, tail=tail)
    assert done[-1] == epoch
    assert (newest(guard.folder).kind, newest(guard.folder).epoch) == (Kind.EPOCH, epoch)


def test_a_stop_at_a_position_on_disk_names_its_file_before_anything_else_is_closed(guarded, said):
    """A trainer that draws its curves then takes seconds, and the person wants to know at once."""
    guard, made = guarded()

    def trainer():
        with guard, contextlib.ExitStack() as closing:
            closing.callback(said.append, "the curves are drawn")
            for _ in guard.epochs(3):
                for batch in guard.batches(data()):
                    train(made, batch)
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(Stopped):
        trainer()
    held = guard.folder / "checkpoint_epoch_001.pth"
    assert f"Nothing is left to save: all of it is in {held}." in said
    assert said.index(f"Nothing is left to save: all of it is in {held}.") < said.index("the curves are drawn")
    assert not list(guard.folder.glob("EMERGENCY*"))


def test_handlers_are_put_back(guarded):
    """A with block may run twice in a process, and Ctrl+C is Python's own between."""
    known = ("SIGINT", "SIGTERM", "SIGHUP", "SIGCHLD", "SIGBREAK")
    numbers = [getattr(signal, name) for name in known if hasattr(signal, name)]
    before = [signal.getsignal(n) for n in numbers]
    for stop in (False, True):
        guard, made = guarded()
        with contextlib.suppress(Stopped):
            run(guard, made, epochs=5, at=lambda guard, epoch, stop=stop: stop and signal.raise_signal(signal.SIGINT))
        assert [signal.getsignal(n) for n in numbers] == before
        assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.parametrize("missing", ["descriptors", "threads"])
def test_handlers_are_put_back_where_entering_fails(guarded, monkeypatch, missing):
    """And the folder is free again."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(n) for n in numbers]

    def fail(*_words, **_options):
        raise OSError(errno.EMFILE, "Too many open files") if missing == "descriptors" else RuntimeError("no thread")

    guard, made = guarded()
    with monkeypatch.context() as patched:
        patched.setattr(*((socket, "socketpair") if missing == "descriptors" else (threading.Thread, "start")), fail)
        with pytest.raises(SaveFailed, match="Nothing was lost"):
            guard.__enter__()
    assert [signal.getsignal(n) for n in numbers] == before
    assert signal.set_wakeup_fd(-1) == -1
    run(guard, made)


def test_one_guard_serves_two_with_blocks(guarded):
    guard, made = guarded()
    run(guard, made, epochs=1)
    run(guard, made, epochs=2)
    assert guard.step == 10


def test_a_second_guard_on_the_folder_is_refused(guarded):
    guard, _ = guarded()
    other, _ = guarded()
    with guard, pytest.raises(FolderInUse), other:
        pass


# What else is in the surface.


def test_save_in_the_body_and_in_the_tail(guarded, said):
    """Each waits for a boundary: the batch's end, the tail's end."""
    guard, made = guarded(save_every_epochs=0, save_every_batches=0, keep=9)

    def at(guard, epoch):
        if guard.step == 2:
            guard.save()

    run(guard, made, epochs=3, at=at, tail=lambda guard, epoch: epoch == 1 and guard.save())
    saved = file_names(line for line in said if line.startswith("saved"))
    assert saved == ["checkpoint_epoch_001_batch_00003.pth", "checkpoint_epoch_001.pth", "checkpoint_epoch_003.pth"]


def test_the_best_score_is_kept(guarded):
    """Epoch 2 has the lowest FID and stays, whatever else goes."""
    guard, made = guarded(keep=1, keep_every=0)
    run(guard, made, epochs=4, tail=lambda guard, epoch: guard.score(fid=[9.0, 3.0, 5.0, float("nan")][epoch - 1]))
    assert {e.summary.epoch for e in Catalog.of(guard.folder).heads} == {2, 4}
    assert newest(guard.folder).best["value"] == 3.0
    assert [row["fid"] for row in guard.history][:3] == [9.0, 3.0, 5.0]


def test_a_score_made_with_something_else_begins_the_best_anew(guarded, said):
    """Never compared, said once, and the checkpoints and their summaries tell with what each was made."""
    told = []

    def tail(guard, epoch):
        about = {"extractor": "lite" if epoch < 3 else "inception", "samples": 2048}
        value = [3.0, 4.0, 9.0, 8.0, float("nan")][epoch - 1]
        told.append((guard.score(fid=value, about=about), guard.best["value"], guard.best["about"]["extractor"]))

    guard, made = guarded(keep=1, keep_every=0)
    run(guard, made, epochs=5, tail=tail)
    assert told == [
        (True, 3.0, "lite"),
        (False, 3.0, "lite"),
        (True, 9.0, "inception"),
        (True, 8.0, "inception"),
        (False, 8.0, "inception"),
    ]
    assert len([line for line in said if "begins anew" in line]) == 1
    heads = {e.summary.epoch: e.summary for e in Catalog.of(guard.folder).heads}
    assert set(heads) == {1, 4, 5}  # the best of each kind, and the newest
    assert heads[4].score["about"] == heads[5].best["about"] == {"extractor": "inception", "samples": 2048}
    again, made = guarded(keep=1, keep_every=0)
    run(again, made, epochs=6, tail=lambda guard, epoch: guard.score(fid=8.5, about=guard.best["about"]))
    assert again.best["epoch"] == 4


def test_leaving_within_a_tail_repeats_all_of_it(guarded, said):
    """And only there: elsewhere the guard leaves by itself."""
    tails = []

    def tail(guard, epoch):
        tails.append(epoch)
        guard.leave()
        if epoch == 2 and tails.count(2) == 1:
            signal.raise_signal(signal.SIGINT)
            assert guard.stopping
            guard.leave()
        guard.score(fid=10.0 - epoch)

    guard, made = guarded()
    with pytest.raises(Stopped):
        run(guard, made, epochs=3, tail=tail)
    assert [row["fid"] for row in guard.history] == [9.0]
    assert "To go on" in said[-1]
    again, made = guarded()
    run(again, made, epochs=3, tail=tail)
    assert tails == [1, 2, 2, 3]
    assert [row["fid"] for row in again.history] == [9.0, 8.0, 7.0]
    with again, pytest.raises(UsageError, match="tail"):
        again.leave()


def test_means_in_the_tail_are_those_of_the_epochs_row(guarded):
    seen = []
    guard, made = guarded()
    run(guard, made, tail=lambda guard, epoch: seen.append(guard.means))
    assert seen == [{"loss": row["loss"]} for row in guard.history]
    assert len(seen) == 2


def test_a_score_in_a_loop_of_steps_is_of_the_saved_state(guarded):
    guard, made = guarded(keep=1)
    batches = list(data(batch=2))
    with guard:
        for step in guard.steps(6):
            train(made, batches[step])
            if step % 2 == 0:
                guard.score(fid=abs(step - 4.0))
    heads = {e.summary.step: e.summary.score for e in Catalog.of(guard.folder).heads}
    assert heads[4]["value"] == 0.0
    assert set(heads) == {4, 6}


def test_steps_go_on_and_are_exact(guarded, tmp_path):
    def loop(guard, made, stop_at=None):
        batches = list(data(40, batch=2))
        with guard:
            torch.rand(3)
            for step in guard.steps(9):
                train(made, batches[step])
                if step == stop_at:
                    signal.raise_signal(signal.SIGINT)
        return made

    whole = loop(*one_elsewhere(tmp_path))
    with pytest.raises(Stopped):
        loop(*guarded(), stop_at=4)
    torch.rand(5)
    guard, made = guarded()
    assert torch.equal(loop(guard, made)["net"].weight, whole["net"].weight)
    assert newest(guard.folder).kind is Kind.STEP


def one_elsewhere(tmp_path, **options):
    made = parts()
    return Guard(tmp_path / "elsewhere", made, say=lambda line: None, **options), made


def test_bare_ticks_go_on_and_are_exact(guarded, tmp_path):
    def loop(guard, made, stop_at=None):
        batches = [torch.full((2, 2), float(i)) for i in range(9)]
        with guard:
            while guard.step < 9:
                train(made, batches[guard.step])
                if guard.step + 1 == stop_at:
                    signal.raise_signal(signal.SIGINT)
                guard.tick(2)
        return made

    whole = loop(*one_elsewhere(tmp_path))
    with pytest.raises(Stopped):
        loop(*guarded(), stop_at=3)
    with pytest.raises(Stopped):
        loop(*guarded(save_every_batches=1), stop_at=6)
    guard, made = guarded()
    assert torch.equal(loop(guard, made)["net"].weight, whole["net"].weight)
    assert guard.images == 18


def test_break_in_a_loop_of_steps_counts_the_step(guarded):
    guard, made = guarded()
    with guard:
        for step in guard.steps(9):
            train(made, torch.ones(2, 2))
            if step == 4:
                break
    assert newest(guard.folder).step == 4


def test_tick_within_batches_is_refused(guarded):
    guard, made = guarded()
    with pytest.raises(UsageError, match=r"leave guard\.tick"):
        run(guard, made, at=lambda guard, epoch: guard.tick())


def test_batches_twice_in_an_epoch_is_refused_and_a_plain_second_loader_is_not(guarded):
    guard, made = guarded()
    run(guard, made, tail=lambda guard, epoch: [batch for batch in data()])
    assert guard.step == 10
    again, made = guarded()
    with pytest.raises(UsageError, match="once an epoch"):
        run(again, made, epochs=3, tail=lambda guard, epoch: list(guard.batches(data())))


def test_a_loop_of_epochs_alone_is_saved_too(guarded):
    """Without batches or ticks an epoch is the unit; a stop and a break lose none."""
    guard, made = guarded(save_every_epochs=0)
    with pytest.raises(Stopped), guard:
        for epoch in guard.epochs(9):
            train(made, torch.ones(2, 2))
            if epoch == 3:
                signal.raise_signal(signal.SIGINT)
    assert newest(guard.folder).epoch == 3
    guard, made = guarded(save_every_epochs=0)
    with guard:
        for epoch in guard.epochs(9):
            train(made, torch.ones(2, 2))
            if epoch == 5:
                break
    assert newest(guard.folder).epoch == 5


def test_autosaves_fall_due_between_multiples_of_accumulate_too(guarded, said):
    guard, made = guarded(save_every_batches=5)
    with guard:
        for _ in guard.epochs(1):
            for batch in guard.batches(data(40, 2), accumulate=4):
                train(made, batch)
    assert file_names(line for line in said if "_batch_" in line) == [
        f"checkpoint_epoch_001_batch_{n:05d}.pth" for n in (8, 12, 16, 20)
    ]


def test_the_guard_in_a_thread_says_what_is_missing(guarded, said):
    guard, made = guarded()
    thread = threading.Thread(target=run, args=(guard, made))
    thread.start()
    thread.join()
    assert guard.step == 10
    assert [line for line in said if line.startswith("Not protected from Ctrl+C")]


# What can be a part.


class Odd:
    def __init__(self, value):
        self.value = value

    def state_dict(self):
        return {"deep": [{"key": self.value}]}

    def load_state_dict(self, state):
        self.value = state["deep"][0]["key"]


def test_what_the_format_cannot_carry_is_named_on_entering(guarded, tmp_path):
    guard, _ = guarded({"mine": Odd(object())})
    with pytest.raises(UsageError, match=r"mine\.deep\[0\]\.key is a object"), guard:
        pass
    assert not (tmp_path / "ck").exists()


@pytest.mark.parametrize("name", ["progress", "random", "ganguard", "config"])
def test_reserved_names_are_refused(guarded, name):
    guard, _ = guarded({name: nn.Linear(1, 1)})
    with pytest.raises(UsageError, match="Rename it"), guard:
        pass


def test_a_part_without_a_state_is_refused(guarded):
    guard, _ = guarded({"mine": object()})
    with pytest.raises(UsageError, match="state_dict"), guard:
        pass


def test_a_state_that_turns_odd_later_fails_the_save_and_not_the_run(guarded, said):
    """Law 8 for a part that only later holds what cannot be saved."""
    mine = Odd(1)
    guard, made = guarded({**parts(), "mine": mine}, patience_s=0)
    with pytest.raises(NotSaved):
        run(guard, made, at=lambda guard, epoch: setattr(mine, "value", object()))
    assert guard.step == 10
    assert [line for line in said if line.startswith("NOT SAVED") and "mine.deep[0].key" in line]


@pytest.mark.parametrize(
    "error",
    [RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported"), DoesNotFit("It:", "a, b")],
)
def test_an_error_of_several_lines_is_told_by_its_first(guarded, said, error):
    """A line at the terminal shows a line end as two characters."""

    class Failing(Odd):
        def state_dict(self):
            if self.value == "failing":
                raise error
            return super().state_dict()

    mine = Failing(1)
    guard, _ = guarded({"mine": mine}, patience_s=0)
    with pytest.raises(NotSaved), guard:
        for _ in guard.steps(2):
            mine.value = 2
        mine.value = "failing"
        raise error
    first = str(error).splitlines()[0].rstrip(":")
    assert [line for line in said if line.startswith("NOT SAVED") and f": {first}. " in line]
    assert f"{type(error).__name__}: {first}" in said
    assert not [line for line in said if "\n" in line or "\\n" in line]


class Compiled(nn.Module):
    """What torch.compile returns: the module under _orig_mod."""

    def __init__(self, module):
        super().__init__()
        self._orig_mod = module

    def forward(self, x):
        return self._orig_mod(x)


@pytest.mark.parametrize("wrap", [Compiled, nn.DataParallel, lambda m: Compiled(nn.DataParallel(m))])
def test_wrappers_make_no_difference_to_the_file(guarded, wrap):
    guard, made = guarded()
    made["net"] = wrap(made["net"])
    guard = Guard(guard.folder, made, say=lambda line: None)
    run(guard, made, epochs=1)
    plain, made = guarded()
    run(plain, made, epochs=2)
    assert plain.step == 10


def test_other_parts_than_the_checkpoint_holds_are_refused_unless_they_may_change(guarded, said):
    guard, made = guarded()
    run(guard, made, epochs=1)
    before = fingerprints(guard.folder)
    more = {**parts(), "ema": nn.Linear(1, 1)}
    with pytest.raises(DoesNotFit, match="ema is a part here, and not in the checkpoint"), guarded(more)[0]:
        pass
    assert fingerprints(guard.folder) == before
    guard, made = guarded(more, may_change=["ema"])
    run(guard, made)
    assert [line for line in said if "ema is not in" in line]
    with pytest.raises(DoesNotFit, match="ema is in the checkpoint, and no part here"), guarded()[0]:
        pass
    guard, made = guarded(may_change=["ema"])
    run(guard, made)
    assert [line for line in said if "ema is in the checkpoint, but no part" in line]


# What has to fit.


def test_another_config_is_refused_with_the_difference_and_nothing_changes(guarded, said):
    guard, made = guarded(config={"width": 64, "betas": (0.5, 0.9)})
    run(guard, made, epochs=1)
    before = fingerprints(guard.folder)
    other, made = guarded(config={"width": 32, "betas": [0.5, 0.9]})
    with pytest.raises(DoesNotFit, match="width: 32 here, 64 in the checkpoint") as refused, other:
        pass
    assert "Request(afresh=True)" in refused.value.__notes__[0]
    assert fingerprints(guard.folder) == before
    free, made = guarded(config={"width": 32}, may_change=["width"])
    run(free, made)
    assert "width is 32 now, it was 64." in said


def test_a_config_that_cannot_be_stored_is_refused_at_once(guarded):
    with pytest.raises(UsageError, match="'data'"):
        guarded(config={"data": {1, 2}})


def test_another_seed_is_refused(guarded):
    guard, made = guarded(seed=1)
    run(guard, made, epochs=1)
    other, made = guarded(seed=2)
    with pytest.raises(DoesNotFit, match="seed: 2 here, 1 in"), other:
        pass


def shrunk():
    made = parts()
    made["opt"] = torch.optim.Adam([made["net"].weight], 0.01)
    return made


def swapped():
    made = parts()
    made["opt"] = torch.optim.SGD(made["net"].parameters(), 0.01)
    return made


@pytest.mark.parametrize(
    ("make", "named"),
    [(lambda: parts(5), "net: weight is 5x2 here and 3x2"), (shrunk, "opt: groups of"), (swapped, "opt: another kind")],
)
def test_other_networks_and_optimizers_are_refused_and_nothing_changes(guarded, make, named):
    guard, made = guarded()
    run(guard, made, epochs=1)
    before = fingerprints(guard.folder)
    made = make()
    weights = made["net"].weight.clone()
    other, _ = guarded(made)
    with pytest.raises(DoesNotFit, match=named), other:
        pass
    assert fingerprints(guard.folder) == before
    assert torch.equal(made["net"].weight, weights)


def test_the_thread_count_belongs_to_the_run(guarded, said):
    here = torch.get_num_threads()
    guard, made = guarded(threads=3)
    run(guard, made, epochs=1)
    assert torch.get_num_threads() == here
    seen = []
    guard, made = guarded()
    run(guard, made, tail=lambda guard, epoch: seen.append(torch.get_num_threads()))
    assert seen == [3]
    guard, made = guarded(threads=2)
    run(guard, made, epochs=3)
    assert [line for line in said if "2 threads now, 3 before" in line]


def test_another_length_of_the_data_restarts_the_epoch_and_says_so(guarded, said):
    guard, made = guarded()
    with pytest.raises(Stopped):
        run(guard, made, at=lambda guard, epoch: guard.step == 2 and signal.raise_signal(signal.SIGINT))
    again, made = guarded()
    run(again, made, loader=data(24))
    assert again.step == 3 + 12
    assert [line for line in said if "begins again" in line]


# What is said to be inexact.


class Stream(IterableDataset):
    def __iter__(self):
        return iter(torch.ones(12, 2))


def test_an_iterable_dataset_is_said_to_be_inexact_at_once(guarded, said):
    guard, made = guarded()
    with pytest.raises(Stopped):
        run(
            guard,
            made,
            loader=DataLoader(Stream(), 2),
            at=lambda guard, epoch: guard.step == 2 and signal.raise_signal(signal.SIGINT),
        )
    assert len([line for line in said if line.startswith("Not exact: a DataLoader over Stream")]) == 1
    again, made = guarded()
    run(again, made, loader=DataLoader(Stream(), 2))
    assert again.step == 12
    assert [line for line in said if "3 batches that are already done" in line]


class OwnGenerator(TensorDataset):
    def __init__(self):
        super().__init__(torch.ones(8, 2))
        import numpy as np

        self.transform = [{"noise": np.random.default_rng(0)}]


def test_a_data_set_with_a_generator_of_its_own_is_said_to_be_inexact(guarded, said):
    guard, made = guarded()
    run(guard, made, loader=DataLoader(torch.utils.data.Subset(OwnGenerator(), range(6)), 2))
    told = [line for line in said if line.startswith("Not exact")]
    assert len(told) == 1
    assert "dataset.dataset.transform[0]['noise']" in told[0]


# Law 7.


def test_parameters_that_are_not_finite_are_never_the_newest_good_ones(guarded, said):
    """No regular save; on a signal one that is marked; the next start goes on from the last good one."""
    guard, made = guarded(save_every_batches=1)

    def poison(guard, epoch):
        if guard.step >= 7:
            made["net"].weight.data[0, 0] = float("nan")
        if guard.step == 8:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Stopped):
        run(guard, made, at=poison)
    assert newest(guard.folder).kind is Kind.EMERGENCY
    assert not newest(guard.folder).finite
    assert [line for line in said if "not finite" in line]
    alias = torch.load(guard.folder / "latest_checkpoint.pth", weights_only=True)
    assert torch.isfinite(alias["net"]["weight"]).all()
    again, made = guarded()
    run(again, made)
    assert "resumed from step 7" in " ".join(said)
    assert torch.isfinite(made["net"].weight).all()


def test_a_run_that_ends_not_finite_ends_with_6(guarded):
    guard, made = guarded()
    with pytest.raises(NotSaved) as left:
        run(guard, made, at=lambda guard, epoch: made["net"].bias.data.fill_(float("inf")))
    assert left.value.code == 6


def test_starting_afresh_keeps_the_old_journal_apart(guarded):
    guard, made = guarded()
    run(guard, made)
    guard, made = guarded(resume=Request(afresh=True))
    run(guard, made, epochs=1)
    lines = (guard.folder / "journal.jsonl").read_text().splitlines()
    assert len(lines) == 7  # five steps, the epoch, what saving took
    assert (guard.folder / "journal_after_step_0.jsonl").exists()


# What a cluster and a clock ask for.


@needs_posix("SIGUSR1")
def test_sigusr1_saves_and_leaves_or_saves_and_goes_on(guarded, said):
    def warn(guard, epoch):
        if guard.step == 2:
            signal.raise_signal(signal.SIGUSR1)

    guard, made = guarded()
    with pytest.raises(Stopped) as stop:
        run(guard, made, at=warn)
    assert stop.value.code == 128 + signal.SIGUSR1
    assert newest(guard.folder).step == 3
    guard, made = guarded(resume=Request(afresh=True), on_usr1="save", save_every_epochs=1)
    run(guard, made, at=warn)
    assert guard.step == 10
    heads = {(e.summary.step, e.summary.kind) for e in Catalog.of(guard.folder).heads}
    assert heads == {(3, Kind.AUTOSAVE), (5, Kind.EPOCH), (10, Kind.EPOCH)}
    with pytest.raises(UsageError, match="on_usr1"):
        guarded(on_usr1="leave")


@needs_posix("SIGUSR1")
def test_a_handler_of_ones_own_for_sigusr1_stays(guarded):
    heard = []
    before = signal.signal(signal.SIGUSR1, lambda *_: heard.append(True))
    try:
        guard, made = guarded()
        run(guard, made, at=lambda guard, epoch: guard.step == 2 and signal.raise_signal(signal.SIGUSR1))
        assert (guard.step, heard) == (10, [True])
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_saves_by_the_clock_within_an_epoch(guarded, said, monkeypatch):
    """Every five minutes by a clock that goes on a minute each step; between, and after a failure, none."""
    now = [time.monotonic()]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    guard, made = guarded(save_every_minutes=5, save_every_epochs=0, save_every_batches=0)
    run(guard, made, epochs=3, at=lambda guard, epoch: now.__setitem__(0, now[0] + 60))
    saved = file_names(line for line in said if line.startswith("saved"))
    names = ["epoch_001_batch_00005", "epoch_002_batch_00005", "epoch_003_batch_00005", "epoch_003"]
    assert saved == [f"checkpoint_{name}.pth" for name in names]


def test_what_saving_took_is_told_at_the_end_and_in_the_journal(guarded, said):
    guard, made = guarded(save_every_batches=2, save_every_epochs=1)
    run(guard, made)
    savings = guard.savings
    assert (savings["epoch"]["count"], savings["autosave"]["count"]) == (2, 5)
    files = Catalog.of(guard.folder).heads
    assert savings["epoch"]["bytes"] == sum(e.size for e in files if e.summary.kind is Kind.EPOCH)
    assert 0 < savings["share"] < 1
    assert [line for line in said if line.startswith("Saved in this start: 5 within epochs, 2 at epochs' ends")]
    last = json.loads((guard.folder / "journal.jsonl").read_text().splitlines()[-1])
    assert last["savings"]["epoch"]["count"] == 2
    assert (last["step"], last["epoch"]) == (10, 2)


def test_backups_by_the_clock_are_counted_too(guarded, said, tmp_path):
    plan = BackupPlan(every_s=3600, keep=7, folder=tmp_path / "other disk")
    guard, made = guarded(backups=plan, save_every_epochs=1)
    run(guard, made)
    (copy,) = plan.folder.glob("*.pth")
    backups = guard.savings["backups"]
    assert (backups["count"], backups["bytes"]) == (1, copy.stat().st_size)
    assert backups["seconds"] > 0
    assert any(line.endswith(f"With it 1 backed up, {size(copy.stat().st_size)}.") for line in said)


@pytest.mark.parametrize(("count", "told"), [("batches", False), ("tick", False), ("nothing", True)])
def test_a_loop_that_counts_nothing_within_an_epoch_is_told_so_once(guarded, said, count, told):
    guard, made = guarded()
    with guard:
        for _ in guard.epochs(3):
            for batch in guard.batches(data()) if count == "batches" else data():
                train(made, batch)
                if count == "tick":
                    guard.tick(len(batch[0]))
    assert len([line for line in said if "No batch was counted" in line]) == told
