"""Checkpoints of two files under the guard: side by side, never mixed, copied by hand, older ones."""

import contextlib
import io
import shutil
import signal

import pytest
import torch
from systems import remove
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ganguard import Guard
from ganguard.errors import DamagedCheckpoint, DoesNotFit, FolderInUse, NoCheckpoint, Stopped, UsageError
from ganguard.store import durable, names
from ganguard.store.catalog import Catalog, newest_first
from ganguard.store.pair import Pair
from ganguard.store.resume import Request
from ganguard.store.shelf import Shelf
from ganguard.store.summary import Kind


def networks(width=3, seed=0):
    torch.manual_seed(seed)
    G, D = nn.Linear(2, width), nn.Linear(width, 1)
    return {
        "generator": G,
        "critic": D,
        "opt_g": torch.optim.Adam(G.parameters(), 1e-3),
        "opt_d": torch.optim.Adam(D.parameters(), 1e-3),
        "ema": nn.Linear(2, width),
    }


def data(size=4):
    return DataLoader(TensorDataset(torch.arange(40.0).reshape(20, 2) / 40), size, shuffle=True)


def train(made, batch):
    loss = made["critic"](made["generator"](batch[0] + torch.randn(2))).square().mean()
    for opt in ("opt_g", "opt_d"):
        made[opt].zero_grad()
    loss.backward()
    for opt in ("opt_g", "opt_d"):
        made[opt].step()
    return loss


class Weights:
    """One weights folder in which runs of several names are started."""

    def __init__(self, folder):
        self.folder = folder
        self.said = []

    def guard(self, name="DRUSEN", made=None, layout=None, **options):
        made = networks() if made is None else made
        layout = layout or Pair(name=name)
        options = {"save_every_epochs": 1, **options}  # not thinned out
        return Guard(self.folder, made, layout=layout, say=self.said.append, **options), made

    def run(self, name="DRUSEN", epochs=2, at=lambda guard: None, tail=lambda guard: None, loader=data, **options):
        guard, made = self.guard(name, **options)
        with guard:
            for _ in guard.epochs(epochs):
                for batch in guard.batches(loader()):
                    guard.log(loss=train(made, batch))
                    at(guard)
                tail(guard)
        return guard, made

    def stopped(self, name="DRUSEN", step=2, **options):
        with pytest.raises(Stopped):
            self.run(
                name, at=lambda guard: guard.step == step and signal.raise_signal(signal.SIGTERM), epochs=9, **options
            )

    def files(self):
        return sorted(p.relative_to(self.folder).as_posix() for p in self.folder.rglob("*.pth"))

    def history(self, name="DRUSEN"):
        return [f for f in self.files() if f.startswith("history/") and f"_{name}_epoch" in f]

    def newest(self, name="DRUSEN"):
        return newest_first(Catalog.of(Shelf(self.folder, Pair(name=name))).heads)[0]

    def told(self, text):
        return [line for line in self.said if text in line]


@pytest.fixture
def weights(tmp_path):
    return Weights(tmp_path / "weights")


# The files.


def test_the_names_and_what_lies_in_which_file(weights):
    weights.run(epochs=1, save_every_batches=4)
    assert weights.files() == [
        "critic_DRUSEN_local.pth",
        "generator_DRUSEN_local.pth",
        "history/critic_DRUSEN_epoch_001.pth",
        "history/critic_DRUSEN_epoch_001_batch_00004.pth",
        "history/generator_DRUSEN_epoch_001.pth",
        "history/generator_DRUSEN_epoch_001_batch_00004.pth",
    ]
    head = torch.load(weights.folder / "generator_DRUSEN_local.pth", weights_only=True)
    second = torch.load(weights.folder / "critic_DRUSEN_local.pth", weights_only=True)
    fresh = networks(seed=5)
    for content, module, optimizer in ((head, "generator", "opt_g"), (second, "critic", "opt_d")):
        fresh[module].load_state_dict(content["state_dict"])  # as the usual snippets do
        fresh[optimizer].load_state_dict(content["optimizer"])
    assert {"ema", "random", "history", "config"} <= set(head)
    assert "ema" not in second


def test_emergencies_of_one_second_get_names_of_their_own_and_their_files_the_same_one(weights):
    for step in (2, 3, 4):
        weights.stopped(step=step)
    names = [f for f in weights.files() if f.startswith("EMERGENCY")]
    heads = [n.removeprefix("EMERGENCY_generator_") for n in names if "generator" in n]
    assert heads == [n.removeprefix("EMERGENCY_critic_") for n in names if "critic" in n]
    assert len(heads) == 3
    assert len(weights.told("verified")) == 3


def test_the_fixed_names_may_be_others(weights):
    layout = Pair(name="DRUSEN", head_alias="gen.pth", companion_alias="disc.pth")
    weights.run(epochs=1, layout=layout)
    assert [f for f in weights.files() if "/" not in f] == ["disc.pth", "gen.pth"]
    weights.run(epochs=2, layout=layout)
    assert weights.told("resumed from step 5")


@pytest.mark.parametrize("size", [4, 3, 7])
def test_a_pair_goes_on_bit_for_bit_also_with_another_batch_size(weights, tmp_path, size):
    """The order of samples is the same from the samples done on; with the same size all is."""
    seen = {}

    def run(where, name, loader, stop_at=None):
        order = seen.setdefault(name, [])
        guard, made = where.guard()
        with contextlib.suppress(Stopped), guard:
            for _ in guard.epochs(2):
                for batch in guard.batches(loader):
                    order.extend((batch[0][:, 0] * 20).round().int().tolist())
                    train(made, batch)
                    if guard.step + 1 == stop_at:
                        signal.raise_signal(signal.SIGINT)
        return made

    whole = run(Weights(tmp_path / "whole"), "whole", data())
    run(weights, "parts", data(), stop_at=7)
    resumed = run(weights, "parts", data(size))
    assert seen["parts"] == seen["whole"]
    same = [torch.equal(whole[n].weight, resumed[n].weight) for n in ("generator", "critic")]
    assert same == [size == 4] * 2


def test_within_an_epoch_the_batch_size_may_change_after_a_break(weights):
    """The epoch goes on with the samples that are left; another data set is refused as ever."""

    def run(where, sizes):
        order = []
        guard, made = where.guard()
        with guard:
            for _ in guard.epochs(1):
                for size in sizes:
                    for batch in guard.batches(data(size)):
                        order.extend((batch[0][:, 0] * 20).round().int().tolist())
                        train(made, batch)
                        if size == 4 and len(sizes) > 1:
                            break
        assert guard.images == 20
        return order

    assert run(weights, [4, 2]) == run(Weights(weights.folder / "plain"), [4])
    guard, made = Weights(weights.folder / "other").guard()
    other = DataLoader(TensorDataset(torch.ones(8, 2)), 2)
    with pytest.raises(UsageError, match="once an epoch"), guard:  # noqa: PT012 - a loop is left
        for _ in guard.epochs(1):
            for batch in guard.batches(data()):
                train(made, batch)
                break
            list(guard.batches(other))


# Side by side.


def test_runs_of_two_names_lie_side_by_side_and_never_mix(weights):
    for epochs in (1, 3, 4):
        for name in ("DRUSEN", "CNV", "DRUSEN_local"):
            weights.run(name, epochs=epochs)
    for name in ("DRUSEN", "CNV", "DRUSEN_local"):
        assert weights.history(name) == sorted(
            f"history/{w}_{name}_epoch_{e:03d}.pth" for w in ("critic", "generator") for e in (3, 4)
        )
        assert weights.newest(name).summary.step == 20
    assert len({weights.newest(name).summary.run for name in ("DRUSEN", "CNV", "DRUSEN_local")}) == 3
    assert not weights.told("another run")
    assert not (weights.folder / "set_aside").exists()


def test_emergencies_belong_to_a_run_by_what_they_say_of_themselves(weights):
    weights.run("CNV", epochs=1)
    weights.stopped("DRUSEN", step=7)
    weights.stopped("CNV", step=8)
    for name, step in (("DRUSEN", 8), ("CNV", 9)):
        weights.said.clear()
        guard, _ = weights.guard(name)
        with guard:
            assert guard.step == step
    weights.run("DRUSEN", epochs=3)  # its retention leaves the other's emergency alone
    assert weights.newest("CNV").summary.kind is Kind.EMERGENCY


def test_a_second_trainer_is_refused_on_the_same_name_only(weights):
    first, _ = weights.guard("DRUSEN")
    other, _ = weights.guard("CNV")
    same, _ = weights.guard("drusen")  # one file on some file systems
    with first, other, pytest.raises(FolderInUse, match="in use"), same:
        pass


def test_starting_afresh_sets_only_its_own_run_aside(weights):
    for name in ("DRUSEN", "CNV"):
        weights.run(name, epochs=1)
    weights.stopped("DRUSEN", step=6)
    before = weights.history("CNV")
    weights.run("DRUSEN", epochs=1, resume=Request(afresh=True))
    assert weights.history("CNV") == before
    (aside,) = (weights.folder / "set_aside").iterdir()
    assert aside.name.endswith("_old_run_DRUSEN")
    assert len(list(aside.glob("*.pth"))) == 6  # epoch 1, the emergency, the fixed names
    assert weights.newest("DRUSEN").summary.epoch == 1


def test_a_start_clears_only_its_own_leftovers(weights):
    weights.run("DRUSEN", epochs=1)
    weights.run("CNV", epochs=1)
    tags = [Shelf(weights.folder, Pair(name=n)).tag for n in ("DRUSEN", "CNV")]
    left = [weights.folder / place / f".tmp-{tag}-1-2-x.pth" for tag in tags for place in ("", "history")]
    for path in left:
        path.write_bytes(b"half")
    weights.run("DRUSEN", epochs=2)
    assert [path.exists() for path in left] == [False, False, True, True]


@pytest.mark.parametrize("mine", ["single", "DRUSEN"])
def test_law_10_a_start_clears_nothing_that_another_run_or_a_backup_is_writing(weights, mine):
    """A run of single files beside pairs, pairs beside it, and backups into the same folder."""
    weights.run("DRUSEN", epochs=1)
    shelves = {"single": Shelf(weights.folder), "DRUSEN": Shelf(weights.folder, Pair(name="DRUSEN"))}
    shelves["CNV"] = Shelf(weights.folder, Pair(name="CNV"))
    tags = {name: shelf.tag for name, shelf in shelves.items()} | {"backup": names.BACKUP_TAG}
    left = {}
    for name, tag in tags.items():
        for wanted in ("checkpoint_epoch_002.pth", "generator_DRUSEN_local.pth", "probe"):
            left.setdefault(name, []).append(durable.temporary_name(weights.folder / wanted, tag))
    for path in (p for paths in left.values() for p in paths):
        path.write_bytes(b"half")
    if mine == "single":
        with Guard(weights.folder, networks(), say=weights.said.append):
            pass
    else:
        weights.run("DRUSEN", epochs=2)
    there = {name: [path.exists() for path in paths] for name, paths in left.items()}
    assert there == {name: [name != mine] * 3 for name in tags}


# Retention.


def test_the_two_newest_milestones_and_the_best_stay(weights):
    def tail(guard):
        guard.score(fid=[9.0, 8.0, 1.0, 7.0, 6.0, 5.0, 4.0][guard.epoch - 1])
        if guard.epoch in (1, 4):
            guard.save(milestone=True)

    weights.run(epochs=7, tail=tail)
    heads = Catalog.of(Shelf(weights.folder, Pair(name="DRUSEN"))).heads
    assert sorted(e.summary.epoch for e in heads) == [1, 3, 4, 6, 7]
    assert [e.summary.epoch for e in heads if e.summary.milestone] == [1, 4]
    assert len(weights.history()) == 10


# Never a mixed pair.


def damage(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 8
    remove(path)
    path.write_bytes(content)


@pytest.mark.parametrize(
    "broken", ["lone head", "lone companion", "companion of another epoch", "damaged companion", "damaged head"]
)
def test_what_is_no_whole_pair_is_named_set_aside_and_never_resumed(weights, broken):
    weights.run(epochs=2, keep=9)
    history = weights.folder / "history"
    for alias in weights.folder.glob("*_local.pth"):
        remove(alias)  # where they are copies they would stand in
    critic, generator = (history / f"{word}_DRUSEN_epoch_002.pth" for word in ("critic", "generator"))
    if broken == "lone head":
        remove(critic)
    elif broken == "lone companion":
        remove(generator)
    elif broken == "companion of another epoch":
        remove(critic)
        shutil.copy(history / "critic_DRUSEN_epoch_001.pth", critic)
    else:
        damage(critic if "companion" in broken else generator)
    weights.said.clear()
    guard, _ = weights.guard()
    with guard:
        assert guard.step == 5
    assert weights.told("_DRUSEN_epoch_002.pth")
    aside = {p.name for p in (weights.folder / "set_aside").rglob("*.pth")}
    assert aside <= {critic.name, generator.name}
    assert (critic if broken == "lone companion" else generator).name in aside
    if broken != "companion of another epoch":  # there it is a second copy of the first epoch's, and good
        assert weights.history() == [f"history/{w}_DRUSEN_epoch_001.pth" for w in ("critic", "generator")]


def test_a_damaged_companion_is_stood_in_for_by_its_copy(weights):
    """Where a fixed name is a copy, damage to the file does not reach it."""
    weights.run(epochs=1)
    alias, critic = weights.folder / "critic_DRUSEN_local.pth", weights.folder / "history/critic_DRUSEN_epoch_001.pth"
    content = critic.read_bytes()
    remove(alias)
    alias.write_bytes(content)
    damage(critic)
    guard, _ = weights.guard()
    with guard:
        assert guard.step == 5
    assert weights.told("critic_DRUSEN_epoch_001.pth is damaged")
    assert critic.read_bytes() == content  # its name back


# Named files and copies by hand.


def test_pairs_copied_by_hand_into_another_folder_go_on_there(weights, tmp_path):
    weights.run(epochs=2)
    other = Weights(tmp_path / "elsewhere" / "weights")
    other.folder.mkdir(parents=True)
    for path in (weights.folder / "history").glob("*_epoch_002.pth"):
        shutil.copy(path, other.folder)
    other.run(epochs=3)
    assert other.told("resumed from step 10")
    only_fixed = Weights(tmp_path / "third")
    only_fixed.folder.mkdir()
    for path in weights.folder.glob("*_local.pth"):
        shutil.copy(path, only_fixed.folder)
    only_fixed.run(epochs=3)
    assert only_fixed.told("resumed from step 10")
    assert only_fixed.told("has its name back")
    assert "history/critic_DRUSEN_epoch_002.pth" in only_fixed.files()


def test_a_critic_whose_generator_somebody_removed_is_told_truly(weights):
    """Its fixed name too, which may be a copy: nothing says then that it never was."""
    weights.stopped(step=7)
    for name in ("EMERGENCY_generator_*.pth", "generator_*_local.pth"):
        (gone,) = weights.folder.glob(name)
        remove(gone)
    weights.said.clear()
    weights.run(epochs=2)
    (told,) = weights.told("is a second file whose first is not there: removed, or never written")
    assert told.startswith("EMERGENCY_critic_")
    assert weights.told("resumed from step 5")
    assert len(list(weights.folder.glob("set_aside/*/EMERGENCY_critic_*.pth"))) == 1


@pytest.mark.parametrize("word", ["generator", "critic"])
def test_either_file_of_a_pair_may_be_named(weights, tmp_path, word):
    weights.run(epochs=3, keep=9)
    named = weights.folder / "history" / f"{word}_DRUSEN_epoch_002.pth"
    weights.run(epochs=3, resume=Request(file=named, branch=True))
    assert weights.told("resumed from step 10")
    other = Weights(tmp_path / "other")
    other.run("CNV", epochs=3, resume=Request(file=named))
    assert other.told("resumed from step 10")
    other.said.clear()
    other.run("CNV", epochs=4, resume=Request(file=named))
    assert other.told("resumed from step 15")


def test_two_files_that_were_not_saved_together_are_refused(weights, tmp_path):
    weights.run(epochs=2, keep=9)
    heads, seconds = (
        [weights.folder / "history" / f"{w}_DRUSEN_epoch_00{e}.pth" for e in (1, 2)] for w in ("generator", "critic")
    )
    other = Weights(tmp_path / "other")
    with pytest.raises(UsageError, match="not saved together"):
        other.run(resume=Request(file=heads[0], companion=seconds[1]))
    stripped = []
    for path in (heads[0], *seconds):  # saved anew by a script: no digest any more
        stripped.append(tmp_path / path.name)
        torch.save(torch.load(path, weights_only=True), stripped[-1])
    with pytest.raises(DoesNotFit, match="not saved together"):
        other.run(resume=Request(file=stripped[0], companion=stripped[2]))
    with pytest.raises(DoesNotFit, match="Name both"):
        other.run(resume=Request(file=stripped[0]))
    other.run(resume=Request(file=stripped[0], companion=stripped[1]))
    assert other.told("resumed from step 5")
    lone = Weights(tmp_path / "lone")
    shutil.copy(heads[0], tmp_path / "mine.pth")
    with pytest.raises(DamagedCheckpoint, match="lacks its second file"):
        lone.run(resume=Request(file=tmp_path / "mine.pth"))


# Older files.


def older(folder, made, *, optimizer=True, bare=False):
    """What the usual script writes with plain torch.save."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for word, module, opt in (("generator", "generator", "opt_g"), ("critic", "critic", "opt_d")):
        content = {"state_dict": made[module].state_dict(), "optimizer": made[opt].state_dict()}
        content = content if optimizer else {"state_dict": content["state_dict"]}
        files.append(folder / f"{word}_DRUSEN_local.pth")
        torch.save(content["state_dict"] if bare else content, files[-1])
    return files


@pytest.mark.parametrize("kind", ["pair", "without optimizers", "bare"])
def test_an_older_pair_loads_when_named_and_begins_where_it_is_told(weights, kind):
    """At the very fixed names: they are set aside, and the same command goes on, also before the first save."""
    old = networks(seed=3)
    train(old, next(iter(data())))
    head, second = older(weights.folder, old, optimizer=kind == "pair", bare=kind == "bare")
    request = Request(file=head, companion=second, begins_at={"epoch": 40, "images": 800, "step": 200})
    for _ in range(2):
        guard, made = weights.guard(resume=request)
        with guard:
            assert (guard.epoch, guard.images, guard.step) == (41, 800, 200)
            assert torch.equal(made["generator"].weight, old["generator"].weight)
            assert torch.equal(made["critic"].weight, old["critic"].weight)
            assert bool(made["opt_d"].state) == (kind == "pair")
    assert weights.told("no digest, no position and no random states")
    assert bool(weights.told("no state of its optimizer")) == (kind != "pair")
    assert weights.told("ema is not in")
    weights.run(epochs=42, resume=request)
    weights.run(epochs=43, resume=request)
    assert weights.newest().summary.epoch == 43
    assert len(list((weights.folder / "set_aside").rglob("*_local.pth"))) == 2


def test_an_older_pair_is_not_resumed_unasked_nor_one_of_another_name_in_the_way(weights):
    older(weights.folder, networks())
    with pytest.raises(NoCheckpoint, match="--checkpoint-path"):
        weights.run()
    weights.run("CNV", epochs=1)
    assert weights.newest("CNV").summary.epoch == 1


def test_older_networks_of_other_shapes_are_listed(weights):
    head, second = older(weights.folder, networks(width=4))
    with pytest.raises(DoesNotFit, match="generator: weight is 3x2 here and 4x2") as refused:
        weights.run(resume=Request(file=head, companion=second))
    assert "critic: weight is 1x3 here and 1x4" in str(refused.value)


def test_a_bare_state_dict_goes_to_the_network_that_it_fits(tmp_path):
    """Under a guard of single files too; what fits none tells how it differs from the closest."""
    made, old = networks(), networks(seed=4)
    torch.save(old["critic"].state_dict(), tmp_path / "net.pth")
    said = []
    with Guard(tmp_path / "ck", made, resume=Request(file=tmp_path / "net.pth"), say=said.append):
        assert torch.equal(made["critic"].weight, old["critic"].weight)
    assert [line for line in said if "generator is not in net.pth" in line]
    torch.save(nn.Linear(2, 5).state_dict(), tmp_path / "wide.pth")
    refused = Guard(tmp_path / "ck2", networks(), resume=Request(file=tmp_path / "wide.pth"))
    with pytest.raises(DoesNotFit, match="weight is 3x2 here and 5x2"), refused:
        pass


def test_a_pair_is_a_pair_to_a_guard_of_single_files_too(weights, tmp_path):
    """Named, it goes on there: which part lies in which file the pair itself tells."""
    weights.run(epochs=1)
    made = networks(seed=9)
    file = weights.folder / "generator_DRUSEN_local.pth"
    with Guard(tmp_path / "ck", made, resume=Request(file=file), say=lambda line: None) as guard:
        assert guard.step == 5
    held = torch.load(weights.folder / "critic_DRUSEN_local.pth", weights_only=True)
    assert torch.equal(made["critic"].weight, held["state_dict"]["weight"])


# The layout.


@pytest.mark.parametrize(
    ("layout", "reason"),
    [
        ({"name": "DRUSEN", "head_parts": ("netG", "opt_g")}, "there is none among"),
        ({"name": "a/b"}, "cannot be a part of file names"),
        ({"name": ""}, "cannot be a part of file names"),
        ({"name": "x", "head": "a_b"}, "letters, digits and hyphens"),
        ({"name": "x", "head": "critic"}, "different names"),
        ({"name": "x", "head_alias": "../x.pth"}, "bare file name"),
        ({"name": "x", "head_alias": "generator_x_epoch_001.pth"}, "look like one of an epoch"),
        ({"name": "x", "head_parts": ("critic", "opt_d")}, "one file of a pair only"),
    ],
)
def test_a_layout_that_cannot_be_is_refused_at_once(weights, layout, reason):
    with pytest.raises(UsageError, match=reason):
        weights.run(layout=Pair(**layout))
    assert not weights.folder.exists()


def test_no_part_may_be_called_like_a_files_own_keys(weights):
    with pytest.raises(UsageError, match="'optimizer'"):
        weights.run(made={**networks(), "optimizer": nn.Linear(1, 1)})


def test_a_pairs_files_hold_plain_data_only(weights):
    weights.run(epochs=1)
    for path in weights.folder.rglob("*.pth"):
        assert isinstance(torch.load(io.BytesIO(path.read_bytes()), weights_only=True), dict)
