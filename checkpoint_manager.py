"""List, verify, back up, clean up and delete checkpoints. All of it is in ganguard.cli.checkpoints."""

import sys

try:
    from ganguard.cli.checkpoints import main
except ModuleNotFoundError as error:
    print(f'{error.name} is not installed. Install it with:  python -m pip install -e ".[trainers]"', file=sys.stderr)
    sys.exit(2)
except KeyboardInterrupt:
    print("Stopped before anything began; nothing was changed.", file=sys.stderr)
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main())
