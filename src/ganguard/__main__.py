import sys

from ganguard.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
