"""Files of other programs, and what disks and downloads leave: named for what they are, with what to do."""

import io
import json
import pickle
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.append(str(Path(__file__).parents[1] / "helpers"))
from stores import archive

from ganguard import load_generator
from ganguard.cli import checkpoints
from ganguard.errors import CheckpointError
from ganguard.store import body, catalog, envelope, resume
from ganguard.store.resume import Request


def safetensors():
    header = json.dumps({"weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(4)


def tar():
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as file:
        file.addfile(tarfile.TarInfo("sys_info"), io.BytesIO())
    return held.getvalue()


def zipped(*names):
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as file:
        for name in names:
            file.writestr(name, b"x")
    return held.getvalue()


def scripted():
    held = io.BytesIO()
    torch.jit.save(torch.jit.trace(nn.Linear(1, 1), torch.ones(1, 1)), held)
    return held.getvalue()


pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")  # on its way out, and still in files
FILES = {
    "safetensors": (safetensors, "is a safetensors file. Write it anew once"),
    "pickle": (lambda: pickle.dumps({"G": 1}, protocol=4), "is a Python pickle that torch.save did not write"),
    "HDF5": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(100), "is an HDF5 file, such as Keras writes"),
    "web page": (lambda: b"\n<!DOCTYPE html><html>Virus scan warning</html>", "is a web page in place of the file"),
    "LFS pointer": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "empty": (bytes, "is empty. There is nothing in it"),
    "zeros": (lambda: bytes(3_000_000), "is nothing but zeros"),
    "ONNX": (lambda: b"\x08\x07\x12\x07pytorch\x1a\x032.1" + bytes(range(256)), "is an ONNX model"),
    "tar": (tar, "is a tar archive"),
    "TorchScript": (scripted, "is a TorchScript archive, which holds code"),
    "zip": (lambda: zipped("readme.txt", "net.pth"), "is a zip archive, but none of torch.save"),
    "numpy": (lambda: zipped("a.npy", "b.npy"), "is an archive of numpy's arrays"),
    "gzip": (lambda: b"\x1f\x8b\x08" + bytes(range(200)), "is packed by gzip. Unpack it first"),
    "JSON": (lambda: b'{"error": "not found"}', "is a JSON text"),
    "text": (lambda: "Cota excedida: não é possível baixar\n".encode() * 900, "is a text"),
}


@pytest.fixture(params=FILES)
def file(request, tmp_path):
    """Such a file, what a list calls it, and what is to be said of it."""
    make, words = FILES[request.param]
    path = tmp_path / "checkpoints" / "net.pth"
    path.parent.mkdir()
    path.write_bytes(make())
    return path, request.param, words


def refusal(act):
    with pytest.raises(CheckpointError) as refused:
        act()
    return str(refused.value)


def test_it_is_named_for_what_it_is_wherever_it_is_opened(file, tmp_path):
    """By a start that names it, before anything is read or decoded; by whoever wants its weights; by the manager."""
    path, _, words = file
    request = Request(file=path)
    assert words in refusal(lambda: resume.plan(tmp_path / "run", request, verified=False))
    assert words in refusal(lambda: resume.plan(tmp_path / "run", request))
    assert words in refusal(lambda: body.load_file(path))
    assert words in refusal(lambda: load_generator(path))


def test_the_manager_names_it_too(file, capsys):
    path, name, words = file
    checkpoints.main(["--checkpoint-dir", str(path.parent), "--list"])
    assert f"net.pth  {name} " in capsys.readouterr().out
    checkpoints.main(["--checkpoint-dir", str(path.parent), "--show", str(path)])
    assert words in capsys.readouterr().out


@pytest.mark.parametrize("written", [archive, lambda: archive()[:-30], lambda: bytes(100) + b"\1" + bytes(100)])
def test_what_may_be_ours_is_not_called_foreign(written, tmp_path, capsys):
    """Whole, cut off, or with a hole: what is said of those is said by what knows checkpoints."""
    (tmp_path / "net.pth").write_bytes(written())
    assert catalog.read(tmp_path / "net.pth").summary is None
    checkpoints.main(["--checkpoint-dir", str(tmp_path), "--list"])
    text = capsys.readouterr().out
    assert any(f"net.pth  {word} " in text for word in ("older", "?"))


def test_every_way_of_torch_save_is_left_to_torch(tmp_path):
    for zipped in (False, True):
        torch.save({"weight": torch.ones(2)}, tmp_path / "net.pth", _use_new_zipfile_serialization=zipped)
        assert body.load_file(tmp_path / "net.pth")["weight"].tolist() == [1, 1]


def test_a_checkpoint_that_a_power_cut_left_as_zeros_is_damaged_and_says_so(tmp_path):
    (tmp_path / "checkpoint_epoch_003.pth").write_bytes(bytes(5000))
    assert "nothing but zeros" in refusal(lambda: envelope.verify(tmp_path / "checkpoint_epoch_003.pth"))
