"""`python -m nas.scaling`: see `nas.scaling.command`, which its processes import by name."""

import sys

from nas.cli import explained
from nas.scaling.command import main

if __name__ == "__main__":
    sys.exit(explained(lambda: main(sys.argv[1:])))
