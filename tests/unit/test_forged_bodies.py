"""Law 6: whatever a checkpoint's body or summary holds, under a digest that is right, is refused in a sentence."""

from __future__ import annotations

import functools
import io
import os
import random
import shutil
import struct
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

sys.path.append(str(Path(__file__).parents[1] / "helpers"))
from forging import forge, nested, places, put, seal, tables, wrong_values
from generators import save_cgan
from stores import summary
from systems import remove, remove_tree

from ganguard import Guard, load_generator, streams
from ganguard.cli import cgan, checkpoints
from ganguard.errors import CheckpointError, GanguardError, RefusedCheckpoint, UsageError
from ganguard.metrics import find_extractor
from ganguard.store import body, envelope


def train(folder: Path, epochs: int) -> None:
    """A loop with networks, two optimizers and a scheduler, all of which a resume goes on with."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    adam = torch.optim.Adam(net.parameters(), lr=1e-3)
    sgd = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(adam, 1)
    parts = {"net": net, "adam": adam, "sgd": sgd, "scheduler": scheduler}
    loader = DataLoader(TensorDataset(torch.randn(8, 2)), batch_size=4, shuffle=True)
    with Guard(folder, parts, config={"a": 1, "names": ["x"]}, seed=3, say=lambda text: None) as guard:
        for epoch in guard.epochs(epochs):
            for (x,) in guard.batches(loader):
                loss = net(x).square().mean()
                loss.backward()
                adam.step()
                sgd.step()
                guard.log(loss=loss)
            scheduler.step()
            guard.score(fid=1.0 / epoch)


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """A run with one checkpoint; the disk is not waited for."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    train(tmp_path / "run", 1)
    remove(tmp_path / "run/latest_checkpoint.pth")
    return tmp_path / "run/checkpoint_epoch_001.pth"


def outcome(folder: Path, epochs: int) -> BaseException | None:
    """What a start of the loop ends with."""
    try:
        train(folder, epochs)
    except (Exception, SystemExit) as error:
        return error
    return None


def test_law_6_no_value_anywhere_in_a_checkpoint_ends_a_resume_in_a_traceback(trained, tmp_path):
    """Every fourth place of the body and of the summary, each with a wrong value; what is harmless trains on.

    Into every table of the body keys are put that it has not, of another type and of its own.
    """
    held, about = torch.load(trained, weights_only=True), envelope.verify(trained)
    targets = [("body", place) for place in places(held)]
    targets += [("summary", place) for place in places(about) if place[0] not in ("digest", "bytes", "format")]
    added = [("body", (*place, key)) for place in tables(held) for key in (1, "x")]
    values, draw = wrong_values(), random.Random(7)
    ends = {}
    for which, place in targets[::4] + added:
        name = draw.choice([n for n in values if which == "body" or n in ("text", "negative", "huge", "nan", "list")])
        if name == "deep":
            continue  # torch cannot write it
        case = tmp_path / "case"
        remove_tree(case)
        shutil.copytree(trained.parent, case)
        change = functools.partial(put_into, which, place, values[name])
        forge(case / trained.name, change)
        ends[which, place, name] = outcome(case, 2)
    wrong = {where: end for where, end in ends.items() if end and not is_an_end_in_words(end)}
    assert wrong == {}
    assert sum(isinstance(end, GanguardError) for end in ends.values()) > len(ends) / 2


def forged_resume(trained: Path, *changes: tuple[tuple, object]) -> BaseException | None:
    """How a resume from the checkpoint ends, with other values at these places of its body."""
    forge(trained, lambda held, about: [put(held, place, value) for place, value in changes])
    return outcome(trained.parent, 2)


@pytest.mark.parametrize("value", [[0.1], "x", [torch.tensor([1.0, 2.0]), 0.9], {}, torch.zeros(2)], ids=str)
@pytest.mark.parametrize("key", ["lr", "betas", "eps"])
def test_law_6_an_optimizers_option_is_a_number_or_several(trained, key, value):
    end = forged_resume(trained, (("constructed", "adam", 0, key), value))
    assert end is None or is_an_end_in_words(end)


def test_law_6_random_streams_have_names_and_each_device_one(trained):
    for added in ({1: [], "x": []}, {"x": []}, {"mps": []}, {"cuda": [torch.zeros(1)]}):
        end = forged_resume(trained, *((("random", key), value) for key, value in added.items()))
        assert isinstance(end, CheckpointError), added


def test_law_6_random_streams_that_are_not_a_devices_own_are_told(monkeypatch):
    class Device:
        device_count = staticmethod(lambda: 1)

        @staticmethod
        def set_rng_state_all(states):
            raise RuntimeError("RNG state is wrong size")

        set_rng_state = set_rng_state_all

    monkeypatch.setattr(streams, "_accelerators", lambda: [("cuda", Device), ("mps", Device)])
    states = {**streams.capture_host(), "cuda": [torch.zeros(1)], "mps": [torch.zeros(1)]}
    assert [line.split(",")[1] for line in streams.restore(states)] == [" which do not fit this device's"] * 2


def test_the_options_of_every_optimizer_of_torchs_come_back(tmp_path, monkeypatch):
    """Adafactor's eps has a None in it; a rate and betas may be tensors."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    made = {
        "adafactor": lambda p: torch.optim.Adafactor(p),
        "adam": lambda p: torch.optim.Adam(p, torch.tensor(0.1), betas=(torch.tensor(0.9), torch.tensor(0.999))),
        "rprop": lambda p: torch.optim.Rprop(p),
    }
    for name, make in made.items():
        for epochs in (1, 2):
            said = []
            optimizer = make([nn.Parameter(torch.ones(2, 2))])
            with Guard(tmp_path / name, {"opt": optimizer}, say=said.append) as guard:
                for _ in guard.epochs(epochs):
                    next(iter(guard.batches([torch.ones(1)])))
            assert not [line for line in said if "now, it was" in line]


def put_into(which: str, place: tuple, value: object, held: dict, about: dict) -> None:
    put(held if which == "body" else about, place, value)


def is_an_end_in_words(end: BaseException) -> bool:
    """A sentence and its exit code; or parameters that are not finite, which are not saved."""
    if isinstance(end, GanguardError):
        return end.exit_code in (2, 3) and all(line.isprintable() for line in end.lines)
    return isinstance(end, SystemExit) and end.code == 6


def deflated(whole: bytes) -> bytes:
    """The same archive with its records compressed."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for item in source.infolist():
            target.writestr(item.filename, source.read(item.filename))
    return packed.getvalue()


def as_bytes(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def with_another_directory(whole: bytes) -> bytes:
    """A compressed archive, and behind it one that some readers take for all: an end that leads to both."""
    honest = as_bytes({"w": torch.zeros(2)})
    end = honest.rindex(b"PK\x05\x06")
    tail = bytearray(honest[end : end + 22])
    packed = deflated(whole)
    first = packed.rindex(b"PK\x05\x06")
    offset = struct.unpack_from("<L", packed, first + 16)[0]
    directory = honest[honest.index(b"PK\x01\x02") : end]
    struct.pack_into("<2L", tail, 12, len(directory), offset)
    return packed + directory + bytes(tail)


@pytest.mark.parametrize("make", [deflated, with_another_directory])
def test_law_6_compressed_records_are_refused_before_they_are_inflated_by_every_reader(tmp_path, make):
    bomb = make(as_bytes({"ema": {"w": torch.zeros(8 << 20)}, "progress": {"epoch": 1}}))
    assert len(bomb) < 1 << 20
    plain = tmp_path / "bomb.pth"
    plain.write_bytes(bomb)
    with pytest.raises(RefusedCheckpoint, match=r"compressed|whole|damaged|larger"):
        body.load_file(plain)
    with pytest.raises(UsageError, match="damaged"):
        find_extractor(plain, say=lambda text: None)
    folder = tmp_path / "checkpoints"
    about = summary(1, name="checkpoint_epoch_001.pth").to_json()
    sealed = seal(folder / "checkpoint_epoch_001.pth", bomb, about)
    with pytest.raises(CheckpointError):
        load_generator(sealed)
    with pytest.raises(CheckpointError), Guard(folder, {"w": nn.Linear(1, 1)}, say=lambda text: None):
        pass


def test_law_6_a_tensor_larger_than_its_file_is_refused(tmp_path):
    """torch enlarges a storage that is too small for what a file says of it."""
    path = tmp_path / "grown.pth"
    whole = as_bytes({"w": torch.zeros(7, 3)})
    sizes = (b"K\x07K\x03\x86", b"J\x00\x00\x00\x04K\x03\x87"[:-1] + b"\x86")  # 67 million rows
    assert whole.count(sizes[0]) == 1
    path.write_bytes(whole.replace(sizes[0] + b"q", sizes[1] + b"q"))
    with pytest.raises(CheckpointError):
        body.load_file(path)
    grown = torch.zeros(1).expand(1 << 40)
    torch.save({"w": grown}, path)
    with pytest.raises(RefusedCheckpoint, match="larger than the file"):
        body.load_file(path)
    shared = nested(90)
    for _ in range(60):
        shared = [shared, shared]  # named often, held once
    torch.save({"w": [shared]}, path)
    with pytest.raises(RefusedCheckpoint, match="nested"):
        body.load_file(path)


def test_what_torch_writes_for_shared_and_repeated_tensors_loads(tmp_path):
    weight = torch.randn(100, 100)
    content = {"a": weight, "b": weight, "c": weight[:2], "d": torch.zeros(1).expand(1000), "e": torch.zeros(0)}
    torch.save({**content, "s": torch.eye(3).to_sparse()}, tmp_path / "a.pth")
    assert torch.equal(body.load_file(tmp_path / "a.pth")["b"], weight)


FORGED = {
    "config.width": 1 << 19,
    "config.image_size": "32",
    "config.label_names": {"a": 1},
    "config.network": ["cgan"],
    "config": "none",
    "ema": [1],
    "fixed.latents": torch.zeros(3),
    "fixed.labels": "x",
    "fixed": 7,
    "progress.epoch": -1,
    "best": {"name": "fid"},
    "history": {"epochs": [{"epoch": "x"}], "sums": {}},
}


@pytest.mark.parametrize("where", FORGED)
def test_law_6_a_forged_generator_is_refused_and_its_folder_still_listed(tmp_path, where, capsys):
    path = save_cgan(tmp_path / "checkpoints", 1)
    forge(path, lambda b, s: put(b, tuple(where.split(".")), FORGED[where]))
    assert (
        cgan.main(["generate", "--run-dir", str(tmp_path), "--checkpoint", str(path), "--out", str(tmp_path / "o")])
        == 3
    )
    said = capsys.readouterr().err
    assert str(path) in said
    assert "Traceback" not in said
    for words in (["--list"], ["--list", "--json"], ["--show", str(path)], ["--verify"]):
        assert checkpoints.main(["--checkpoint-dir", str(path.parent), *words]) == 0


SUMMARIES = {
    "step": 10**400,
    "images": -3,
    "means": {"loss_g": 10**400},
    "score": {"name": "fid", "value": 10**400},
    "best": {"name": 5, "value": "x"},
    "branch": 10**12,
    "lineage": [[1, 2, 3]],
    "pair": {"name": "x", "head": ["a"]},
    "companions": [{"name": 1, "digest": 2}],
    "config": nested(200),
    "run": "x/../../../victim/logs/a",
    "spared": ["everything"],
}


@pytest.mark.parametrize("key", SUMMARIES)
def test_law_6_a_forged_summary_is_not_obeyed_by_any_command(tmp_path, key, capsys):
    path = save_cgan(tmp_path / "checkpoints", 1)
    forge(path, lambda b, s: put(s, (key,), SUMMARIES[key]))
    for words in (["--list"], ["--list", "--json"], ["--show", str(path)]):
        assert checkpoints.main(["--checkpoint-dir", str(path.parent), *words]) == 0
    out = ["--out", str(tmp_path / "o")]
    assert cgan.main(["generate", "--run-dir", str(tmp_path), "--checkpoint", str(path), *out]) == 3
    assert cgan.main(["--run-dir", str(tmp_path), "--epochs", "1"]) == 3
    assert capsys.readouterr().err.count("newer ganguard") == 2


@pytest.mark.parametrize("forged", [("epochs", "x"), ("batch_size", [1]), ("flip", "yes"), ("epochs", -5)])
def test_forged_settings_are_refused_before_anything_is_built(tmp_path, forged, capsys):
    path = save_cgan(tmp_path / "checkpoints", 1)
    forge(path, lambda b, s: put(s, ("config", forged[0]), forged[1]))
    assert cgan.main(["--run-dir", str(tmp_path)]) in (2, 3)
    assert forged[0].replace("_", "-")[:5] in capsys.readouterr().err
