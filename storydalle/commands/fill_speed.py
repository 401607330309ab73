"""Fill ``experiments/speed/`` from records of benches.

  python -m storydalle.commands.fill_speed benched/all/metrics.json

Keeps each record under the name of its processor, and writes figure and tables of the page from all that are kept.
Without a record the page is written again.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from storydalle.bench import page
from storydalle.files.paths import user_path

FOLDER = Path("experiments/speed")


def main(records: Sequence[str], folder: Path = FOLDER) -> None:
    for record in records:
        print(f"kept {page.keep(user_path(record), folder)}")
    page.fill(folder)
    print(f"wrote {folder / page.PAGE} and {folder / page.FIGURE}")


if __name__ == "__main__":
    main(sys.argv[1:])
