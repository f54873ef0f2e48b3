"""`python -m embodied` is the `embodied` command."""

import sys

from embodied.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
