"""The order of data as a function of (seed, epoch, position), and what can be told of a loader by looking at it."""

import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, ConcatDataset, DataLoader, Dataset, RandomSampler, Subset, TensorDataset

from ganguard import inspection, streams
from ganguard.order import ExactLoader


class Drawn(Dataset):
    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return index, torch.rand(()), random.random(), np.random.rand()


def read(loader, seed=1, epoch=1, samples=0, batches=0):
    exact = ExactLoader(loader, seed)
    exact.start(epoch, samples_done=samples, batches_done=batches)
    found = []
    while (got := exact.next()) is not None:
        found.append(got)
    exact.close()
    return found


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.booleans(), st.data())
def test_from_any_position_the_rest_is_the_same(length, size, drop_last, data):
    """Skipping is arithmetic: what is left after k batches is what the whole epoch has after k."""
    loader = DataLoader(Drawn(length), size, shuffle=True, drop_last=drop_last)
    whole = read(loader)
    done = data.draw(st.integers(0, len(whole)))
    rest = read(loader, samples=sum(count for _, count in whole[:done]), batches=done)
    assert [[v.tolist() for v in batch] for batch, _ in rest] == [
        [v.tolist() for v in batch] for batch, _ in whole[done:]
    ]


def test_epochs_and_seeds_differ_and_repeat():
    loader = DataLoader(Drawn(50), 50, shuffle=True)

    def order(**at):
        return read(loader, **at)[0][0][0].tolist()

    assert order() == order() != order(epoch=2)
    assert order() != order(seed=2)
    assert sorted(order()) == list(range(50))


def test_skipping_reads_nothing():
    """PAINS 15: no item before the position is touched."""

    class Counting(Drawn):
        def __getitem__(self, index):
            touched.append(index)
            return super().__getitem__(index)

    touched = []
    read(DataLoader(Counting(10_000), 10, shuffle=True), samples=9_990, batches=999)
    assert len(touched) == 10


def test_an_index_that_is_drawn_twice_comes_out_differently():
    loader = DataLoader(Drawn(1), 2, sampler=[0, 0])
    (_, values, *_), _ = read(loader)[0]
    assert values[0] != values[1]


def test_the_order_of_a_batch_sampler_that_was_given_is_kept():
    """The loader's own sampler is then a sequential one that means nothing."""
    loader = DataLoader(Drawn(6), batch_sampler=BatchSampler([5, 3, 1, 4, 2, 0], 4, drop_last=False))
    assert [batch[0].tolist() for batch, _ in read(loader)] == [[5, 3, 1, 4], [2, 0]]


def test_the_samplers_own_generator_is_left_alone():
    own = torch.Generator().manual_seed(3)
    before = own.get_state()
    read(DataLoader(Drawn(9), 3, sampler=RandomSampler(range(9), generator=own)))
    assert torch.equal(own.get_state(), before)


def test_drawing_an_order_leaves_the_global_streams_alone():
    before = streams.capture_host()
    loader = ExactLoader(DataLoader(Drawn(9), 3, shuffle=True), 1)
    loader.start(1, samples_done=0, batches_done=0)
    after = streams.capture_host()
    assert torch.equal(before["torch"], after["torch"])
    assert before["python"] == after["python"]


class Holder:
    def __init__(self, value):
        self.value = value


@pytest.mark.parametrize(
    "kind", [random.Random(1), np.random.default_rng(1), np.random.RandomState(1), torch.Generator()]
)
def test_generators_are_found_wherever_they_hide(kind):
    dataset = TensorDataset(torch.ones(3))
    dataset.transform = Holder([Holder({"noise": Holder(kind)})])
    assert inspection.own_generators(DataLoader(Subset(dataset, [0]))) != []
    sampler = RandomSampler(range(3))
    sampler.mine = kind
    assert inspection.own_generators(DataLoader(TensorDataset(torch.ones(3)), sampler=sampler)) == [
        "batch_sampler.sampler.mine"
    ]


def test_the_global_generators_are_no_generators_of_its_own():
    dataset = TensorDataset(torch.ones(3))
    dataset.rng, dataset.numpy = np.random.mtrand._rand, np
    assert inspection.own_generators(DataLoader(dataset, shuffle=True)) == []


def test_fingerprints_tell_data_sets_apart():
    def of(dataset):
        return inspection.fingerprint(dataset)

    one, two = TensorDataset(torch.ones(9)), TensorDataset(torch.ones(8))
    assert of(one) == of(TensorDataset(torch.zeros(9)))
    prints = [of(one), of(two), of(Subset(one, [1, 2])), of(Subset(one, [1, 3])), of(ConcatDataset([one, two]))]
    prints.append(of(ConcatDataset([two, one])))
    assert len(set(prints)) == len(prints)


def test_two_ways_to_restore_the_streams_agree():
    kept = streams.own()
    wanted = [random.random(), np.random.rand(), float(torch.rand(()))]
    streams.put_back(kept)
    held = streams.capture_host()
    streams.restore_host(held)
    assert [random.random(), np.random.rand(), float(torch.rand(()))] == wanted


def test_a_gaussian_held_back_by_numpy_is_restored():
    np.random.seed(0)
    np.random.randn()
    held = streams.capture_host()
    wanted = np.random.randn()
    np.random.seed(1)
    streams.restore_host(held)
    assert np.random.randn() == wanted


HANGING_UP = """
import multiprocessing, time
from multiprocessing import connection, resource_sharer
from ganguard.protection.workers import WorkerInit

def work(pipe):
    WorkerInit(None)(0)
    handed = resource_sharer.DupFd(0)
    pipe.send(handed._id[0])
    pipe.recv()

ours, theirs = multiprocessing.Pipe()
worker = multiprocessing.get_context("fork").Process(target=work, args=(theirs,))
worker.start()
address = ours.recv()
for _ in range(20):
    connection.SocketClient(address).close()
time.sleep(0.3)
ours.send(None)
worker.join()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="tensors are handed over by file descriptors elsewhere")
def test_a_hang_up_while_a_tensor_is_handed_over_is_not_reported():
    """As when a stop breaks off the wait for a batch: the worker's thread would print a traceback."""
    done = subprocess.run([sys.executable, "-c", HANGING_UP], capture_output=True, text=True, check=True)
    assert done.stderr == ""
