"""``python -m mpipc``."""

import sys

from mpipc.cli import main

if __name__ == "__main__":
    sys.exit(main())
