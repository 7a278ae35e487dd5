"""Older scripts' files, mapped part by part to ours: what torch itself would load, loads; no code of theirs runs."""

import json
import math
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from ganguard import Guard
from ganguard.cli import checkpoints
from ganguard.errors import DoesNotFit, NoCheckpoint, RefusedCheckpoint
from ganguard.store.resume import Request


def networks():
    G, D = nn.Linear(2, 3), nn.Linear(3, 1)
    return {
        "generator": G,
        "critic": D,
        "opt_g": torch.optim.Adam(G.parameters()),
        "opt_d": torch.optim.Adam(D.parameters()),
    }


def older(path, made, **changes):
    content = {
        "epoch": 2,
        "netG_state_dict": made["generator"].state_dict(),
        "netD_state_dict": made["critic"].state_dict(),
        "optimizerG_state_dict": made["opt_g"].state_dict(),
        "optimizerD_state_dict": made["opt_d"].state_dict(),
        "g_losses": [0.5, 0.25],
        "d_losses": [1.0, 2.0],
        "best_fid": 42.0,
        "hyperparameters": {"lr": 1e-3},
    }
    torch.save({**content, **changes}, path)
    return path


def guard_at(folder, made, file, said):
    return Guard(folder, made, resume=Request(file=file), say=said.append)


def test_all_parts_losses_and_the_epoch_arrive(tmp_path):
    old, made, said = networks(), networks(), []
    with guard_at(tmp_path / "ck", made, older(tmp_path / "old.pth", old), said) as guard:
        assert torch.equal(made["generator"].weight, old["generator"].weight)
        assert [row["loss_g"] for row in guard.history] == [0.5, 0.25]
        assert guard.epoch == 3
    assert [line for line in said if "older script" in line]


def test_it_is_not_resumed_unasked(tmp_path):
    (tmp_path / "ck").mkdir()
    older(tmp_path / "ck" / "latest_checkpoint.pth", networks())
    with pytest.raises(NoCheckpoint, match="--checkpoint-path"), Guard(tmp_path / "ck", networks()):
        pass


def test_what_has_no_part_here_is_said(tmp_path):
    made, said = networks(), []
    file = older(tmp_path / "old.pth", made, best_fid=math.inf)
    with guard_at(tmp_path / "ck", {"generator": networks()["generator"]}, file, said):
        pass
    assert [line for line in said if line.startswith("netD_state_dict has no part")]


def test_another_shape_is_listed_and_nothing_changes(tmp_path):
    made = networks()
    made["generator"] = nn.Linear(2, 4)
    before = made["critic"].weight.clone()
    with (
        pytest.raises(DoesNotFit, match="4x2 here and 3x2"),
        guard_at(tmp_path / "ck", made, older(tmp_path / "old.pth", networks()), []),
    ):
        pass
    assert torch.equal(made["critic"].weight, before)


def test_an_unknown_layout_is_refused(tmp_path):
    torch.save({"model": {}}, tmp_path / "x.pth")
    with (
        pytest.raises(DoesNotFit, match="no known layout"),
        guard_at(tmp_path / "ck", networks(), tmp_path / "x.pth", []),
    ):
        pass


def content(made, **changes):
    """What ``older`` writes, with other state dicts."""
    return {
        "netG_state_dict": made["generator"].state_dict(),
        "netD_state_dict": made["critic"].state_dict(),
        "optimizerG_state_dict": made["opt_g"].state_dict(),
        "optimizerD_state_dict": made["opt_d"].state_dict(),
        **changes,
    }


def of(generator, critic):
    return {
        "generator": generator,
        "critic": critic,
        "opt_g": torch.optim.Adam(generator.parameters()),
        "opt_d": torch.optim.Adam(critic.parameters()),
    }


def taken_over(tmp_path, made, held):
    """What a run that begins from such a file says, and its history; ``made`` gets its weights."""
    torch.save(held, tmp_path / "old.pth")
    said = []
    with guard_at(tmp_path / "ck", made, tmp_path / "old.pth", said) as guard:
        return said, guard.history, guard.best


@pytest.mark.parametrize(
    ("losses", "best"),
    [
        ([np.float64(0.5), np.float32(0.25)], np.float64(42.0)),
        (np.array([0.5, 0.25], dtype="f4"), np.int64(42)),
        (np.array([0.5, 0.25], dtype=">f8"), torch.tensor(42.0)),
        (torch.tensor([0.5, 0.25], requires_grad=True), "42"),
        ([torch.tensor(0.5, requires_grad=True), "0.25"], 42),
    ],
)
def test_numbers_arrive_however_a_script_kept_them(tmp_path, losses, best):
    held = content(networks(), epoch=np.int64(2), g_losses=losses, d_losses=np.array([]), best_fid=best)
    _, history, found = taken_over(tmp_path, networks(), held)
    assert [row["loss_g"] for row in history] == [0.5, 0.25]
    assert found["value"] == 42.0


@pytest.mark.parametrize("module", ["numpy.core", "numpy._core"])
def test_numpy_1_and_numpy_2_are_one_to_a_reader(tmp_path, module):
    """The two name the same functions by other modules; whichever is installed reads both."""
    written = older(tmp_path / "old.pth", networks(), best_fid=np.float64(42.0), g_losses=np.array([0.5, 0.25]))
    here = np.float64.__reduce__(np.float64())[0].__module__.removesuffix(".multiarray").encode()
    renamed = tmp_path / "renamed.pth"
    with zipfile.ZipFile(written) as source, zipfile.ZipFile(renamed, "w") as target:
        for name in source.namelist():
            held = source.read(name)
            assert not name.endswith("data.pkl") or held.count(here + b".multiarray") == 2
            target.writestr(name, held.replace(here + b".multiarray", module.encode() + b".multiarray"))
    made, said = networks(), []
    with guard_at(tmp_path / "ck", made, renamed, said) as guard:
        assert guard.best["value"] == 42.0
        assert [row["loss_g"] for row in guard.history] == [0.5, 0.25]


class Bytes:
    def __reduce__(self):
        return bytes, (10**12,)


@pytest.mark.parametrize(
    "beside", [np.array([{"a": 1}], dtype=object), np.zeros(1, dtype=[("a", "f4")]), Bytes(), np.float64]
)
def test_law_6_what_of_numpy_is_not_plain_is_refused(tmp_path, beside):
    held = content(networks(), epoch=1, beside=beside)
    with pytest.raises(RefusedCheckpoint, match="more than plain types and tensors"):
        taken_over(tmp_path, networks(), held)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_a_wrappers_prefix_is_left_out_and_told(tmp_path, prefix):
    old, made = networks(), networks()
    wrapped = OrderedDict((prefix + name, value) for name, value in old["generator"].state_dict().items())
    said, _, _ = taken_over(tmp_path, made, content(old, epoch=1, netG_state_dict=wrapped))
    assert torch.equal(made["generator"].weight, old["generator"].weight)
    assert [line for line in said if f"netG_state_dict begin with {prefix}, which a wrapper added" in line]


def test_a_batch_norm_of_old_loads_as_torch_loads_it(tmp_path):
    """torch 0.4.0 counted no batches; no metadata tells the version either."""
    old = of(nn.BatchNorm1d(3), nn.Linear(3, 1))
    old["generator"].running_mean += 7
    weights = OrderedDict((k, v) for k, v in old["generator"].state_dict().items() if k != "num_batches_tracked")
    made = of(nn.BatchNorm1d(3), nn.Linear(3, 1))
    taken_over(tmp_path, made, content(old, epoch=1, netG_state_dict=weights))
    assert made["generator"].running_mean.tolist() == [7, 7, 7]


@pytest.mark.filterwarnings("ignore:.*weight_norm")  # the older of the two is deprecated
def test_an_older_weight_norm_loads_as_torch_loads_it(tmp_path):
    old = of(nn.utils.weight_norm(nn.Linear(2, 3)), nn.Linear(3, 1))
    made = of(nn.utils.parametrizations.weight_norm(nn.Linear(2, 3)), nn.Linear(3, 1))
    taken_over(tmp_path, made, content(old, epoch=1))
    assert torch.equal(made["generator"](torch.ones(1, 2)), old["generator"](torch.ones(1, 2)))


def test_networks_that_are_built_otherwise_get_no_advice_that_cannot_help(tmp_path):
    """No setting makes them fit, and a start afresh is refused where a file is named."""
    other = of(nn.Sequential(nn.Linear(2, 3)), nn.Sequential(nn.Linear(3, 1)))
    with pytest.raises(DoesNotFit, match="no setting makes it fit") as refused:
        taken_over(tmp_path, networks(), content(other, epoch=1))
    assert "--no-checkpoint" not in str(refused.value)
    assert "do not name it" in str(refused.value)
    with pytest.raises(DoesNotFit, match="Use the settings it was trained with"):
        taken_over(tmp_path, networks(), content(of(nn.Linear(2, 5), nn.Linear(5, 1)), epoch=1))


@pytest.fixture
def folder(tmp_path):
    """Checkpoints of an older script, one of them with more in it than plain data."""
    place = tmp_path / "checkpoints"
    place.mkdir()
    older(place / "checkpoint_epoch_002.pth", networks(), best_fid=np.float64(42.0))
    torch.save({"state_dict": networks()["generator"].state_dict()}, place / "generator_DRUSEN_v11.pth")
    torch.save({"epoch": 3, "net": nn.Linear(1, 1)}, place / "whole_module.pth")
    return place


def test_the_list_opens_older_files_when_asked(folder, capsys):
    manage = ["--checkpoint-dir", str(folder), "--list"]
    assert checkpoints.main(manage) == 0
    text = capsys.readouterr().out
    assert "--list --older" in text
    assert "0.250" not in text
    assert checkpoints.main([*manage, "--older"]) == 0
    text = capsys.readouterr().out
    (row,) = [line.split() for line in text.splitlines() if "checkpoint_epoch_002.pth" in line]
    assert row[1:9] == ["older", "2", "g", "0.250", "d", "2.000", "best", "42.00"]
    assert "whole_module.pth holds more than plain types and tensors (torch.nn.modules.linear.Linear)" in text
    checkpoints.main([*manage, "--older", "--json"])
    (told,) = [row for row in json.loads(capsys.readouterr().out)["checkpoints"] if "epoch_002" in row["file"]]
    assert (told["epoch"], told["loss_g"], told["best_fid"]) == (2, 0.25, 42.0)
    assert told["hyperparameters"] == {"lr": 1e-3}


def test_an_older_file_is_shown_with_what_it_says_of_itself(folder, capsys):
    def shown(name):
        assert checkpoints.main(["--checkpoint-dir", str(folder), "--show", name]) == 0
        return dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())

    single = shown("checkpoint_epoch_002.pth")
    assert [single[key] for key in ("epoch", "loss_g", "loss_d", "best_fid")] == ["2", "0.25", "2.0", "42.0"]
    assert single["hyperparameters"] == '{"lr": 0.001}'
    assert "netG_state_dict (2 tensors)" in single["holds"]
    assert shown("generator_DRUSEN_v11.pth")["holds"] == "state_dict (2 tensors)"
    assert "more than plain types" in shown("whole_module.pth")["refused"]
