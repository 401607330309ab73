"""``python -m storydalle``: the same commands, where no console script is on the path."""

import sys

from storydalle.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
