"""Which loss is best after equal time: FID, and how often a classifier recognises the class asked for.

Every run is a process of one thread on the built-in images; its clock is the processor time that it has used, which
on an idle core is wall-clock time, and on a busy one is fair. Looking takes no time of the run.

    python benchmarks/cgan_losses.py --seconds 300 --seeds 0 1 2
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

SAMPLES = 2000


def main():
    asked = arguments()
    if asked.one:
        run_one(asked, json.loads(asked.one))
        return
    runs = [{"loss": loss, "seed": seed, **setting} for seed in asked.seeds for loss, setting in cases(asked)]
    with ThreadPoolExecutor(asked.jobs) as pool:
        rows = [row for found in pool.map(lambda run: in_process(asked, run), runs) for row in found]
    print_table(rows)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="fashion-mnist-mini")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--seconds", type=float, nargs="+", default=[300.0], help="of processor time, ascending")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--losses", nargs="+", default=["hinge", "wgan-gp", "relativistic"])
    parser.add_argument(
        "--vary",
        nargs="*",
        default=[],
        metavar="LOSS:NAME=VALUE",
        help="one more case with another setting of the preset, such as wgan-gp:critic_steps=1",
    )
    parser.add_argument("--width", type=int, default=None)
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side; at most the number of cores")
    parser.add_argument("--folder", type=Path, default=Path("benchmark_losses"), help="caches, grids, results")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser.parse_args()


def cases(asked):
    """Pairs of a loss and the settings that differ from its preset."""
    yield from ((loss, {}) for loss in asked.losses)
    for text in asked.vary:
        loss, _, setting = text.partition(":")
        yield loss, {name: json.loads(value) for name, value in (part.split("=") for part in setting.split(","))}


def in_process(asked, run):
    done = subprocess.run(
        [sys.executable, __file__, *sys.argv[1:], "--one", json.dumps(run)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    with (asked.folder / "results.jsonl").open("a") as file:
        file.writelines(f"{json.dumps(row)}\n" for row in rows)
    return rows


def run_one(asked, run):
    """Train one case and print a JSON line at each mark."""
    import torch

    from ganguard.data import open_images
    from ganguard.metrics import ClassAccuracy, Fid, find_extractor
    from ganguard.networks.presets import CGAN_DEFAULTS, LOSS_PRESETS
    from ganguard.training.cgan_samples import make_images

    torch.set_num_threads(1)
    settings = dict(run)
    loss, seed = settings.pop("loss"), settings.pop("seed")
    preset = replace(LOSS_PRESETS[loss], **settings)
    cache = asked.folder / "cache"
    channels = 1 if asked.data.startswith("fashion") else 3
    images = open_images(
        asked.data, image_size=asked.image_size, channels=channels, cache_dir=cache, say=lambda _text: None
    )
    fid = Fid(
        images, find_extractor(say=lambda _text: None), samples=SAMPLES, cache_dir=cache, seed=0, say=lambda _text: None
    )
    accuracy = ClassAccuracy(
        images.__getitems__(range(len(images)))[0], images.labels, cache_dir=cache, say=lambda _text: None
    )
    step = make_step(images, preset, loss, asked.width or CGAN_DEFAULTS.width, seed)

    def sample(labels, generator):
        latents = torch.randn(len(labels), CGAN_DEFAULTS.latent_size, generator=generator)
        return make_images(step.average.module, latents, labels, device=torch.device("cpu"))

    for seconds, seen in train(step, images, asked.seconds):
        recognised = accuracy.measure(sample, samples=SAMPLES, seed=0)
        row = {
            **run,
            "seconds": seconds,
            "images_per_second": seen / seconds,
            "fid": fid.score(sample).value,
            "accuracy": recognised.overall,
            "worst": min(recognised.per_class),
            "held_out": recognised.held_out,
        }
        print(json.dumps(row), flush=True)
    save_samples(step, images, asked.folder / f"{loss}_{'_'.join(map(str, settings.values()))}_seed{seed}.png")


def make_step(images, preset, loss, width, seed):
    import torch

    from ganguard.networks.cgan import build_critic, build_generator
    from ganguard.networks.cgan_spec import CganSpec
    from ganguard.networks.ema import GeneratorAverage
    from ganguard.networks.presets import CGAN_DEFAULTS
    from ganguard.training.cgan_step import CganStep, make_optimizers
    from ganguard.training.objectives import make_objective

    torch.manual_seed(seed)
    channels, size = images[0][0].shape[:2]
    spec = CganSpec(
        image_size=size,
        channels=channels,
        width=width,
        latent_size=CGAN_DEFAULTS.latent_size,
        label_names=images.label_names,
        multi_label=False,
    )
    generator, critic = build_generator(spec), build_critic(spec, spectral=preset.spectral)
    optimizers = make_optimizers(generator, critic, preset)
    return CganStep(
        generator=generator,
        critic=critic,
        average=GeneratorAverage(generator),
        generator_optimizer=optimizers[0],
        critic_optimizer=optimizers[1],
        objective=make_objective(loss, penalty=preset.penalty),
        critic_steps=preset.critic_steps,
    )


def train(step, images, marks):
    """Yield (seconds, images seen) at each mark; the clock stands still meanwhile."""
    import torch

    from ganguard.networks.presets import CGAN_DEFAULTS

    used, seen, number, ahead = 0.0, 0, 0, list(marks)
    while True:
        for rows in torch.randperm(len(images)).split(CGAN_DEFAULTS.batch_size):
            began = time.process_time()
            step(*images.__getitems__(rows.tolist()), step=number, images_seen=seen)
            used += time.process_time() - began
            seen, number = seen + len(rows), number + 1
            if used >= ahead[0]:
                yield ahead.pop(0), seen
                if not ahead:
                    return


def save_samples(step, images, path):
    from ganguard.reports.grids import save_grid
    from ganguard.training.cgan_samples import FixedLatents, grid_columns, make_images

    fixed = FixedLatents(grid_columns(images), latent_size=step.generator.latent_size, seed=0)
    made = make_images(step.average.module, fixed.latents, fixed.labels, device=step.device)
    save_grid(made, path, columns=fixed.columns, class_names=images.label_names)


def print_table(rows):
    groups = {}
    for row in rows:
        changed = {k: v for k, v in row.items() if k not in MEASURED}
        groups.setdefault((json.dumps(changed), row["seconds"]), []).append(row)
    print("| loss | s | images/s | FID (all seeds) | accuracy (all seeds) | worst class |")
    print("|---|---|---|---|---|---|")
    for (name, seconds), group in groups.items():
        case = json.loads(name)
        other = ", ".join(f"{k} {v}" for k, v in case.items() if k != "loss")
        print(
            f"| {case['loss']}{f' ({other})' if other else ''} | {seconds:.0f} "
            f"| {statistics.median(r['images_per_second'] for r in group):.0f} "
            f"| {spread(group, 'fid', 1)} | {spread(group, 'accuracy', 3)} | {spread(group, 'worst', 2)} |"
        )
    print(f"\nThe classifier recognises {rows[0]['held_out']:.3f} of held-out real images.")


MEASURED = {"seed", "seconds", "images_per_second", "fid", "accuracy", "worst", "held_out"}


def spread(group, name, digits):
    """Median, and the single values."""
    values = sorted(row[name] for row in group)
    return f"{statistics.median(values):.{digits}f} ({', '.join(f'{value:.{digits}f}' for value in values)})"


if __name__ == "__main__":
    main()
