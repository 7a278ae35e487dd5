"""Older scripts' single file, mapped part by part to ours."""

import math

import pytest
import torch
from torch import nn

from ganguard import Guard
from ganguard.errors import DoesNotFit, NoCheckpoint
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
