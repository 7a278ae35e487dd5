"""Law 6: a file takes no more memory than its size accounts for, whatever its pickle asks torch to call."""

from __future__ import annotations

import codecs
import collections
import contextlib
import io
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ganguard.errors import CheckpointError, RefusedCheckpoint
from ganguard.store import body

MB = 1 << 20
TEXT = "a" * MB  # one object: pickle stores it once
BYTES = b"a" * MB
MANY = list(range(MB // 16))
SHAPE = tuple(MANY)
TABLE = dict.fromkeys(MANY)


class Call:
    """Pickled as a call of ``function``, and as a state that is put into what comes of it."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.reduced


def array(dtype):
    state = (1, (MB // 8,), np.dtype(dtype), False, BYTES)
    return Call(np.zeros(0).__reduce__()[0], np.ndarray, (0,), b"b", state=state)


def times(number, make):
    return [make() for _ in range(number)]


ASKED = {
    "bytes by a number": lambda: times(30, lambda: Call(bytearray, 2**31 - 1)),
    "bytes by a tensor that is a number": lambda: Call(bytearray, torch.tensor(2**31 - 1)),
    "bytes by a number within a call": lambda: Call(
        torch._tensor._rebuild_from_type_v2, bytearray, torch.Tensor, (1 << 30,), {}
    ),
    "a tensor by a number": lambda: Call(torch.Tensor, 1 << 30),
    "a typed tensor by a number": lambda: Call(torch.FloatTensor, 1 << 30),
    "a storage by a number": lambda: Call(torch.UntypedStorage, 1 << 32),
    "a text's bytes": lambda: times(100, lambda: Call(codecs.encode, TEXT, "latin1")),
    "a text in a wide encoding": lambda: Call(codecs.encode, TEXT, "utf-32"),
    "bytes of a text": lambda: times(100, lambda: Call(bytearray, Call(codecs.encode, TEXT, "latin1"))),
    "arrays whose bytes are swapped": lambda: times(100, lambda: array(">f8")),
    "arrays that share their bytes": lambda: times(100, lambda: array("<f8")),
    "sets": lambda: times(100, lambda: Call(set, MANY)),
    "dicts": lambda: times(100, lambda: Call(collections.Counter, TABLE)),
    "ordered dicts": lambda: times(100, lambda: Call(collections.OrderedDict, TABLE)),
    "shapes": lambda: times(100, lambda: Call(torch.Size, SHAPE)),
    "tables of attributes": lambda: times(100, lambda: Call(collections.OrderedDict, state=TABLE)),
    "a set of a tensor's items": lambda: Call(set, torch.zeros(1).expand(1 << 22)),
    "a tensor on another device": lambda: Call(
        torch._utils._rebuild_device_tensor_from_cpu_tensor,
        *(torch.zeros(1).expand(1 << 22), torch.float64, "cpu", False),
    ),
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("asked", ASKED)
def test_law_6_what_a_pickle_asks_for_is_refused_before_it_is_made(tmp_path, asked, legacy, monkeypatch):
    path = tmp_path / "asks.pth"
    torch.save({"x": ASKED[asked]()}, path, _use_new_zipfile_serialization=not legacy)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was loaded"))
    with pytest.raises(RefusedCheckpoint):
        body.load_file(path)


def with_pickle(path: Path, old: bytes, new: bytes) -> None:
    """The same archive, its pickle changed."""
    with zipfile.ZipFile(path) as source:
        held = {name: source.read(name) for name in source.namelist()}
    (pickled,) = [name for name in held if name.endswith("data.pkl")]
    assert held[pickled].count(old) == 1
    with zipfile.ZipFile(path, "w") as target:
        for name, content in held.items():
            target.writestr(name, content.replace(old, new) if name == pickled else content)


@pytest.mark.parametrize("legacy", [False, True])
def test_law_6_a_storage_is_no_larger_than_what_is_stored_of_it(tmp_path, legacy, monkeypatch):
    """torch would read behind the record's bytes, or ask for as many as an old file says."""
    path = tmp_path / "claims.pth"
    torch.save({"w": torch.zeros(77), "v": torch.zeros(1000)}, path, _use_new_zipfile_serialization=not legacy)
    claimed = (b"KM", b"M\xe7\x03") if not legacy else (b"KM", b"J\x00\x00\x00\x70")
    if legacy:
        path.write_bytes(path.read_bytes().replace(claimed[0] + b"Nt", claimed[1] + b"Nt"))
    else:
        with_pickle(path, claimed[0] + b"t", claimed[1] + b"t")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was loaded"))
    with pytest.raises(RefusedCheckpoint, match="larger than the file"):
        body.load_file(path)


def test_law_6_a_record_is_read_under_one_name_only(tmp_path):
    """torch finds a record however its name is capitalised, and reads it again for each spelling."""
    path = tmp_path / "named.pth"
    torch.save({"w": torch.zeros(7)}, path)
    with_pickle(path, b"X\x01\x00\x00\x000q", b"X\x02\x00\x00\x00aAq")
    with pytest.raises(CheckpointError):
        body.load_file(path)
    torch.save({"w": torch.zeros(7)}, path)
    with zipfile.ZipFile(path, "a") as again:
        again.writestr("named/DATA/0", b"")
    with pytest.raises(RefusedCheckpoint, match="holds data/0 twice"):
        body.load_file(path)


def test_law_6_an_array_without_bytes_has_no_items(tmp_path):
    state = (1, (1 << 40,), np.dtype("S0"), False, b"")
    made = Call(np.zeros(0).__reduce__()[0], np.ndarray, (0,), b"b", state=state)
    torch.save({"x": made}, tmp_path / "texts.pth")
    with pytest.raises(RefusedCheckpoint):
        body.load_file(tmp_path / "texts.pth")


def test_law_6_a_damaged_pickle_is_told_in_a_sentence(tmp_path):
    """Cut off anywhere, or a byte of it changed."""
    whole, path, draw = io.BytesIO(), tmp_path / "a.pth", random.Random(3)
    torch.save({"net": nn.Linear(2, 2).state_dict(), "x": np.arange(3.0)}, whole, _use_new_zipfile_serialization=False)
    for _ in range(300):
        data = bytearray(whole.getvalue())
        data[draw.randrange(len(data))] = draw.randrange(256)
        path.write_bytes(data[: draw.randrange(len(data))] if draw.random() < 0.5 else data)
        with contextlib.suppress(CheckpointError):
            body.load_file(path)


def held_by_checkpoints() -> dict[str, object]:
    """What a training's checkpoint may hold, and what scripts put beside it."""
    net = nn.Sequential(nn.Linear(4, 300), nn.BatchNorm1d(300))
    adam = torch.optim.Adam(net.parameters())
    net(torch.randn(8, 4)).sum().backward()
    adam.step()
    marked = nn.Parameter(torch.ones(2))
    marked.tag = "x"
    return {
        "net": net.state_dict(),
        "adam": adam.state_dict(),
        "parameters": [nn.Parameter(torch.ones(1)), marked, torch.ones(2).as_subclass(torch.Tensor)],
        "sparse": [torch.eye(3).to_sparse(), torch.eye(3).to_sparse_csr(), torch.eye(4).to_sparse_bsr((2, 2))],
        "types": [torch.zeros(3, dtype=t) for t in (torch.bfloat16, torch.bool, torch.complex128, torch.half)],
        "views": [torch.arange(12).view(3, 4).t(), torch.zeros(1).expand(1000), torch.zeros(0, 5), torch.tensor(1)],
        "random": [random.getstate(), np.random.get_state(), torch.get_rng_state()],
        "generator": np.random.default_rng(0).bit_generator.state,
        "arrays": [np.arange(50_000.0), np.arange(9, dtype=">f8"), np.array([]), np.array(["a", "bc"]), np.eye(3)],
        "numbers": [np.float64(1.5), np.int64(3), np.bool_(True), np.str_("a"), 1 + 2j, 1 << 70, float("nan"), None],
        "losses": [np.float32(i) for i in range(3000)],
        "bytes": [b"abc", b"", b"a", bytearray(b"abc"), bytearray()],
        "collections": [set(range(50_000)), collections.Counter("aab"), collections.OrderedDict(a=1), (1, (2, [3]))],
        "torch": [torch.Size([2, 3]), torch.device("cpu"), torch.float32, torch.strided],
    }


@pytest.mark.filterwarnings("ignore:.*(parse|beta|quantize|uantiz)")
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("what", held_by_checkpoints())
def test_whatever_a_training_stores_loads_as_before(tmp_path, what, legacy):
    torch.save({what: held_by_checkpoints()[what]}, tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy)
    assert what in body.load_file(tmp_path / "a.pth")


@pytest.mark.filterwarnings("ignore")  # torch is about to give quantized tensors up
def test_quantized_tensors_and_those_of_later_types_load_as_before(tmp_path):
    quantized = torch.quantize_per_channel(torch.ones(2, 2), torch.tensor([0.1, 0.2]), torch.zeros(2), 0, torch.qint8)
    held = [quantized, torch.zeros(2, dtype=torch.uint16), torch.zeros(2).to(torch.float8_e4m3fn)]
    torch.save({"x": held}, tmp_path / "a.pth")
    assert len(body.load_file(tmp_path / "a.pth")["x"]) == 3
