"""Somebody else's GAN on points of a spiral, guarded: the lines with ``guard`` are all that was added."""

import math
import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from ganguard import Guard


class Spiral(Dataset):
    """4,000 points of a spiral, each with a little noise that is new in every epoch."""

    def __len__(self):
        return 4000

    def __getitem__(self, index):
        angle = 4 * math.pi * index / len(self)
        point = torch.tensor([angle * math.cos(angle), angle * math.sin(angle)]) / 12
        return point + 0.02 * torch.randn(2)


def network(inputs, outputs):
    return nn.Sequential(nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, outputs))


def train_step(G, D, opt_g, opt_d, real):
    loss = nn.functional.binary_cross_entropy_with_logits
    fake = G(torch.randn(len(real), 8))
    ones, zeros = torch.ones(len(real), 1), torch.zeros(len(real), 1)
    opt_d.zero_grad()
    loss_d = loss(D(real), ones) + loss(D(fake.detach()), zeros)
    loss_d.backward()
    opt_d.step()
    opt_g.zero_grad()
    loss_g = loss(D(fake), ones)
    loss_g.backward()
    opt_g.step()
    return loss_d, loss_g


def main(folder="spiral_checkpoints", epochs=5, workers=2):
    torch.manual_seed(0)
    G, D = network(8, 2), network(2, 1)
    opt_g, opt_d = torch.optim.Adam(G.parameters(), 1e-3), torch.optim.Adam(D.parameters(), 1e-3)
    decay = torch.optim.lr_scheduler.StepLR(opt_g, step_size=2, gamma=0.5)
    loader = DataLoader(Spiral(), batch_size=50, shuffle=True, num_workers=workers)
    parts = {"generator": G, "discriminator": D, "opt_g": opt_g, "opt_d": opt_d, "decay": decay}
    with Guard(folder, parts) as guard:
        for epoch in guard.epochs(epochs):
            for real in guard.batches(loader):
                loss_d, loss_g = train_step(G, D, opt_g, opt_d, real)
                guard.log(loss_d=loss_d, loss_g=loss_g)
            decay.step()
            print(f"epoch {epoch}: {guard.history[-1] if guard.history else 'the first'}")


if __name__ == "__main__":
    main(*sys.argv[1:2], *(int(word) for word in sys.argv[2:]))
