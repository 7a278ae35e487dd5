"""Train a progressive GAN. Edit the settings below, or give them on the command line: --data-dir, --batch-sizes …

The same command always goes on where the training stopped; see --help. All of it is in ganguard.cli.progan.
"""

import sys
from pathlib import Path

try:
    from ganguard.cli.progan import main
except ModuleNotFoundError as error:
    print(f'{error.name} is not installed. Install it with:  python -m pip install -e ".[trainers]"', file=sys.stderr)
    sys.exit(2)
except KeyboardInterrupt:
    print("Stopped before anything began; nothing was changed.", file=sys.stderr)
    sys.exit(130)

DATA_DIR = Path("emoji")  # a folder of images, or the built-in emoji
RUN_NAME = ""  # what the run's files are called; empty: after DATA_DIR, cats/train is cats
WEIGHTS_DIR = Path("weights")
OUTPUT_DIR = Path("samples")
LOGS_DIR = Path("logs")

START_TRAIN_AT_IMG_SIZE = 4
BATCH_SIZES = [16, 16, 12, 8, 6, 4, 3, 2, 1]  # of 4, 8, 16, … 1024 px
PROGRESSIVE_EPOCHS = [20] * 9  # fewer numbers end at a smaller size
GRADIENT_ACCUMULATION_STEPS = 2
LEARNING_RATE = 1e-3
Z_DIM = 256
IN_CHANNELS = 256
CHANNELS_IMG = 3
PIXEL_RANGE = "auto"  # of images with more than 8 bits: "0:4095", "full", or what they hold
CRITIC_ITERATIONS = 1
LAMBDA_GP = 10

AUTO_SAVE_EVERY_N_BATCHES = 100
SAVE_MODEL = True
LOAD_MODEL = None  # None: go on if possible; True: demand it; False: start afresh, the old run is set aside
CHECKPOINT_GEN = ""  # go on from this file, such as WEIGHTS_DIR / "history" / "…pth"; empty: the newest
CHECKPOINT_CRITIC = ""
CHECKPOINT_GEN_SAVE = ""  # empty: generator_<NAME>_local.pth
CHECKPOINT_CRITIC_SAVE = ""  # empty: critic_<NAME>_local.pth

if __name__ == "__main__":
    settings = {name: value for name, value in globals().items() if name.isupper()}
    sys.exit(main(constants=settings))
