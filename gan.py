"""Train a conditional GAN. All of it is in ganguard.cli.cgan."""

import sys

try:
    from ganguard.cli.cgan import main
except ModuleNotFoundError as error:
    print(f'{error.name} is not installed. Install it with:  python -m pip install -e ".[trainers]"', file=sys.stderr)
    sys.exit(2)
except KeyboardInterrupt:
    print("Stopped before anything began; nothing was changed.", file=sys.stderr)
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main())
