"""Optimizer options edited between two runs: the code wins where it differs from what it was, else the schedule."""

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, LinearLR, SequentialLR

from ganguard import Guard


def run(folder, epochs, lr, schedule=None, betas=(0.9, 0.999)):
    net = nn.Linear(1, 1)
    opt = torch.optim.Adam(net.parameters(), lr, betas=betas)
    made = {"net": net, "opt": opt}
    if schedule is not None:
        made["schedule"] = schedule(opt)
    said, rates = [], []
    with Guard(folder, made, say=said.append) as guard:
        for _ in guard.epochs(epochs):
            for x in guard.batches([torch.ones(1, 1)]):
                opt.zero_grad()
                net(x).sum().backward()
                opt.step()
            rates.append(opt.param_groups[0]["lr"])
            if schedule is not None:
                made["schedule"].step()
    return rates, said, opt


def sequence(opt):
    return SequentialLR(opt, [LinearLR(opt, 0.1, 1.0, 2), ExponentialLR(opt, 0.5)], [2])


def test_an_edited_rate_without_a_schedule_is_the_new_one(tmp_path):
    run(tmp_path, 1, 0.1)
    rates, said, opt = run(tmp_path, 2, 0.05, betas=(0.5, 0.999))
    assert rates == [0.05]
    assert opt.param_groups[0]["betas"] == (0.5, 0.999)
    assert [line for line in said if "lr is 0.05 now, it was 0.1" in line]


def test_a_rate_that_the_loop_changed_by_hand_stands(tmp_path):
    net = nn.Linear(1, 1)
    for epochs in (1, 2):
        opt = torch.optim.SGD(net.parameters(), 0.1)
        with Guard(tmp_path, {"opt": opt}, say=[].append) as guard:
            for epoch in guard.epochs(epochs):
                if epoch == 2:
                    assert opt.param_groups[0]["lr"] == 0.025
                opt.param_groups[0]["lr"] = 0.025


@pytest.mark.parametrize(
    "schedule",
    [
        lambda opt: ExponentialLR(opt, 0.5),
        lambda opt: CosineAnnealingLR(opt, 9),
        lambda opt: LinearLR(opt, 1e-9, 1.0, 4),  # a warm-up from (almost) 0
        lambda opt: torch.optim.lr_scheduler.LambdaLR(opt, lambda n: n / 4),  # one from 0
        sequence,
    ],
)
def test_with_a_schedule_the_edit_scales_it(tmp_path, schedule):
    """From the edit on the rates are those of a run with the new rate; unedited, they are as if never stopped."""
    whole, *_ = run(tmp_path / "whole", 6, 0.1, schedule)
    run(tmp_path / "same", 3, 0.1, schedule)
    same, said, _ = run(tmp_path / "same", 6, 0.1, schedule)
    assert same == whole[3:]
    assert not [line for line in said if "now, it was" in line]
    run(tmp_path / "edited", 3, 0.1, schedule)
    edited, *_ = run(tmp_path / "edited", 6, 0.02, schedule)
    assert edited == pytest.approx([rate / 5 for rate in whole[3:]])
