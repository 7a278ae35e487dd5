"""Law 4: N + M iterations equal N, stop, M, bit for bit, with whatever loader a loop brings along."""

import functools

import pytest
import torch
from loops import ITEMS, Loop, Noisy, plain_loader, same
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    RandomSampler,
    Sampler,
    Subset,
    WeightedRandomSampler,
    get_worker_info,
)


class Pairs(Sampler):
    """A user's batch sampler: batches of changing size, shuffled by the global stream."""

    def __iter__(self):
        order = torch.randperm(ITEMS).tolist()
        while order:
            size = 2 + order[0] % 4
            yield tuple(order[:size])
            order = order[size:]

    def __len__(self):
        return ITEMS // 2


class AtOnce(Noisy):
    """A data set that reads several items at once."""

    def __getitems__(self, indices):
        common = torch.randn(1)
        return [super(AtOnce, self).__getitem__(i) + common for i in indices]


class Ready(Noisy):
    """A data set that gives whole batches."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        indices = index if isinstance(index, list) else [index, index + 1]
        return torch.stack([super(Ready, self).__getitem__(i) for i in indices])


class Keyed(Dataset):
    """Items under names that are no numbers."""

    def __len__(self):
        return 8

    def __getitem__(self, key):
        return torch.randn(3) + len(key)


def tell_the_dataset(_worker):
    get_worker_info().dataset.length = ITEMS  # the user's own data set, not a wrapper of it


def seeded_sampler():
    own = torch.Generator().manual_seed(5)
    return DataLoader(Noisy(), batch_size=4, sampler=RandomSampler(range(ITEMS), generator=own))


def weighted():
    sampler = WeightedRandomSampler(torch.arange(1.0, ITEMS + 1), ITEMS, replacement=True)
    return DataLoader(Noisy(), batch_size=4, sampler=sampler)


LOADERS = {
    "plain": plain_loader(),
    "drop_last": plain_loader(drop_last=True),
    "in order": plain_loader(shuffle=False),
    "generator given": lambda: DataLoader(Noisy(), 4, shuffle=True, generator=torch.Generator().manual_seed(3)),
    "sampler with its own generator": seeded_sampler,
    "weighted": weighted,
    "batch sampler of the user": lambda: DataLoader(Noisy(), batch_sampler=Pairs()),
    "torch's batch sampler, given": lambda: DataLoader(
        Noisy(), batch_sampler=BatchSampler(RandomSampler(range(ITEMS)), 4, drop_last=False)
    ),
    "batches from the data set": lambda: DataLoader(Ready(), batch_size=None, shuffle=True),
    "batches from the data set by lists": lambda: DataLoader(
        Ready(), batch_size=None, sampler=BatchSampler(RandomSampler(range(ITEMS)), 4, drop_last=False)
    ),
    "several items at once": lambda: DataLoader(AtOnce(), 4, shuffle=True),
    "subset": lambda: DataLoader(Subset(Noisy(40), range(3, 26)), 4, shuffle=True),
    "keys that are strings": lambda: DataLoader(
        Keyed(), 4, sampler=["a", "bb", "ccc", "d" * 9, "e", "ff", "g", "h", "i", "jj", "k"]
    ),
    "a list of batches": lambda: [torch.full((4, 3), float(i)) for i in range(5)],
    "two workers": plain_loader(num_workers=2),
    "two persistent workers, prefetching": plain_loader(num_workers=2, persistent_workers=True, prefetch_factor=4),
    "worker_init_fn": plain_loader(num_workers=2, worker_init_fn=tell_the_dataset),
}


@functools.cache
def uninterrupted(name: str, folder) -> dict:
    loop = Loop(folder, LOADERS[name])
    return loop.run()


@pytest.fixture
def whole(request, tmp_path):
    """The same training without an interruption."""
    return uninterrupted(request.node.callspec.params["name"], tmp_path / "whole")


@pytest.mark.parametrize("name", LOADERS)
def test_three_resumes_change_nothing(name, whole, tmp_path):
    """Stopped mid-epoch, with all batches done but not the tail, and in a tail: all is as if never stopped."""
    loop = Loop(tmp_path / "run", LOADERS[name])
    per_epoch = whole["place"][1] // 3
    stops = [{"stop_at": 2}, {"stop_at": per_epoch}, {"stop_at": per_epoch + 2}, {"stop_in_tail": 2}]
    codes = [
        loop.run(seed=attempt, save_every_batches=1 + attempt, **stop)["code"] for attempt, stop in enumerate(stops)
    ]
    assert codes == [130, 130, 130, 143]
    assert not same(loop.run(seed=99), {**whole, "code": 0}), loop.said
    assert not [line for line in loop.said if line.startswith("Not ")]


@pytest.mark.parametrize("batch", range(1, 13))
def test_every_position_of_two_epochs_can_be_resumed(batch, tmp_path, shared):
    """Wherever a run is stopped, it goes on the same."""
    loop = Loop(tmp_path, plain_loader(), epochs=2)
    assert loop.run(stop_at=batch, seed=0)["code"] == 130
    assert not same(loop.run(seed=7), shared)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return Loop(tmp_path_factory.mktemp("whole"), plain_loader(), epochs=2).run()


def test_workers_or_none_make_no_difference(tmp_path):
    """The same items in the same order with 0, 1 and 2 workers."""
    runs = [Loop(tmp_path / str(n), plain_loader(num_workers=n), epochs=1).run() for n in (0, 1, 2)]
    assert not same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


def test_how_often_it_is_saved_changes_nothing(tmp_path):
    """Looking changes nothing: saving after each batch and never come to the same."""
    often = Loop(tmp_path / "often", plain_loader(), options={"save_every_batches": 1}).run()
    never = Loop(tmp_path / "never", plain_loader(), options={"save_every_batches": 0, "save_every_epochs": 9}).run()
    assert not same(often, never)


def test_code_before_the_loop_may_draw(tmp_path):
    """What is drawn between ``with`` and the loop happens again at a resume, and shifts nothing."""
    whole = Loop(tmp_path / "whole", plain_loader(), between=lambda: torch.rand(3)).run()
    loop = Loop(tmp_path / "run", plain_loader(), between=lambda: torch.rand(3))
    loop.run(stop_at=3)
    loop.between = lambda: torch.rand(77)
    loop.run(stop_in_tail=1, seed=1)
    assert not same(loop.run(seed=2), whole)


def test_accumulated_batches_are_never_parted(tmp_path):
    """With accumulate=3 a stop at any batch is honoured at a multiple of 3, and so are saves that fall due."""
    loop = Loop(tmp_path, plain_loader(), accumulate=3, options={"save_every_batches": 4})
    stopped = loop.run(stop_at=4)
    assert stopped["place"][1] == 6
    whole = Loop(tmp_path / "whole", plain_loader(), accumulate=3).run()
    assert not same(loop.run(seed=1), whole)
    saved = [line for line in loop.said if "_batch_" in line and line.startswith("saved")]
    assert saved
    assert all("_batch_00003" in line or "_batch_00006" in line for line in saved)


def test_an_accumulation_that_an_epoch_cuts_is_said_to_be_inexact(tmp_path):
    """Six batches do not divide by 4."""
    loop = Loop(tmp_path, plain_loader(), accumulate=4)
    loop.run()
    assert sum(line.startswith("Not exact: an accumulation") for line in loop.said) == 1


def test_batch_size_may_change_in_mid_epoch(tmp_path):
    """The order of samples stays; none is seen twice or left out, each item comes out as it would have."""
    seen: list[float] = []

    class Recording(Noisy):
        def __getitem__(self, index):
            item = super().__getitem__(index)
            seen.append(round(float(item.sum()), 6))
            return item

    def read(folder, sizes, stop_at):
        seen.clear()
        for size, stop in zip(sizes, stop_at, strict=True):
            Loop(folder, lambda s=size: DataLoader(Recording(), s, shuffle=True), epochs=2).run(stop_at=stop)
        return list(seen)

    assert read(tmp_path / "a", [4, 5, 3], [2, 5, None]) == read(tmp_path / "b", [4], [None])
