"""Real checkpoints of tiny conditional GANs, without training them: written by the store, as gan.py lays them out."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from stores import part, summary

from ganguard.networks.cgan import build_critic, build_generator
from ganguard.networks.cgan_spec import CganSpec
from ganguard.store import aliases, commit, names

CLASSES = ("bag", "boot", "coat")


def spec(**fields) -> CganSpec:
    defaults = {"image_size": 8, "channels": 1, "width": 4, "latent_size": 8, "label_names": CLASSES}
    return CganSpec(**{**defaults, "multi_label": False, **fields})


def networks(seed: int, of: CganSpec):
    """A generator and a critic with weights of their own."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build_generator(of), build_critic(of, spectral=True)


def save_cgan(folder: Path, epoch: int, *, of: CganSpec | None = None, alias: bool = False, body=None, **fields):
    """A checkpoint whose average is ``networks(epoch, of)[0]`` and whose generator is another; returns its path."""
    of = of or spec()
    ema, critic = networks(epoch, of)
    config = {**of.to_config(), "seed": 0}
    columns = torch.eye(len(of.label_names))
    content = {
        "generator": networks(1000 + epoch, of)[0].state_dict(),
        "critic": critic.state_dict(),
        "ema": ema.state_dict(),
        "fixed": {
            "latents": torch.randn(8 * len(columns), of.latent_size, generator=torch.Generator().manual_seed(5)),
            "labels": columns.repeat(8, 1),
        },
        "config": config,
        "progress": {"epoch": epoch, "batch": 0, "step": epoch * 10},
        **(body or {}),
    }
    file = io.BytesIO()
    torch.save({key: value for key, value in content.items() if value is not None}, file)
    entry = commit.commit(folder, [part(summary(epoch, config=config, **fields), file.getvalue())]).head
    if alias:
        assert aliases.point(folder / names.LATEST, entry.path) is None
    return entry.path
