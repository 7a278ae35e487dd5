"""A plain conditional GAN, written straight down: the same networks and loss as gan.py, nothing saved.

It is what gan.py's speed is measured against; see cgan_speed.py.
"""

import argparse
import copy
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from ganguard.data import open_images
from ganguard.networks.cgan import ConditionalGenerator, ProjectionCritic

parser = argparse.ArgumentParser()
parser.add_argument("--cache-dir", type=Path, required=True)
parser.add_argument("--epochs", type=int, default=1)
parser.add_argument("--width", type=int, default=16)
parser.add_argument("--loss", choices=["hinge", "wgan-gp", "relativistic"], default="hinge")
parser.add_argument("--threads", type=int, default=2)
args = parser.parse_args()
torch.set_num_threads(args.threads)
torch.use_deterministic_algorithms(True)  # as gan.py on a CPU

images = open_images("fashion-mnist-mini", image_size=32, channels=1, cache_dir=args.cache_dir, say=lambda _: None)
pixels, labels = images.__getitems__(range(len(images)))
dataset = TensorDataset(pixels.float() / 127.5 - 1, functional.one_hot(labels, 10).float())
loader = DataLoader(dataset, batch_size=32, shuffle=True)

shape = {"image_size": 32, "channels": 1, "labels": 10, "width": args.width}
normalize = nn.utils.parametrizations.spectral_norm if args.loss == "hinge" else lambda layer: layer
G = ConditionalGenerator(**shape, latent_size=64)
D = ProjectionCritic(**shape, normalize=normalize)
average = copy.deepcopy(G)
opt_g = torch.optim.Adam(G.parameters(), 4e-4, betas=(0.0, 0.99))
opt_d = torch.optim.Adam(D.parameters(), 8e-4, betas=(0.0, 0.99))


def critic_loss(real, fake, label):
    if args.loss == "hinge":
        return functional.relu(1 - D(real, label)).mean() + functional.relu(1 + D(fake, label)).mean()
    if args.loss == "wgan-gp":
        mix = torch.rand(len(real), 1, 1, 1)
        between = (mix * real + (1 - mix) * fake).requires_grad_()
        (grad,) = torch.autograd.grad(D(between, label).sum(), between, create_graph=True)
        penalty = (grad.flatten(1).norm(dim=1) - 1).square().mean()
        return D(fake, label).mean() - D(real, label).mean() + 10 * penalty
    real.requires_grad_()
    fake.requires_grad_()
    real_score, fake_score = D(real, label), D(fake, label)
    (r1,) = torch.autograd.grad(real_score.sum(), real, create_graph=True)
    (r2,) = torch.autograd.grad(fake_score.sum(), fake, create_graph=True)
    penalty = r1.square().sum((1, 2, 3)).mean() + r2.square().sum((1, 2, 3)).mean()
    return functional.softplus(fake_score - real_score).mean() + 0.5 * penalty


def generator_loss(real, fake, label):
    if args.loss == "relativistic":
        return functional.softplus(D(real, label) - D(fake, label)).mean()
    return -D(fake, label).mean()


for _epoch in range(args.epochs):
    began = time.perf_counter()
    for step, (real, label) in enumerate(loader):
        fake = G(torch.randn(len(real), 64), label).detach()
        loss_d = critic_loss(real, fake, label)
        opt_d.zero_grad()
        loss_d.backward()
        opt_d.step()

        if args.loss != "wgan-gp" or step % 2 == 1:
            fake = G(torch.randn(len(real), 64), label)
            loss_g = generator_loss(real, fake, label)
            opt_g.zero_grad()
            loss_g.backward()
            opt_g.step()

        with torch.no_grad():
            for old, new in zip(average.parameters(), G.parameters(), strict=True):
                old.mul_(0.998).add_(new, alpha=0.002)
    print(f"{len(dataset) / (time.perf_counter() - began):.1f} images/s", flush=True)
