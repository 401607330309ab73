"""Fill ``docs/machines.md``: ``python -m storydalle.commands.fill_machines`` writes its figures, in a few minutes.

They are simulated and computed, so they are the same on every machine.
"""

from pathlib import Path

from storydalle.bench.data_split import ManyDevices
from storydalle.bench.machines import memory_table, split_table
from storydalle.reporting.result_pages import fill_results

PAGE = Path("docs/machines.md")


def main(page: Path = PAGE) -> None:
    fill_results(page, f"{split_table(ManyDevices())}\n\n{memory_table()}")
    print(f"wrote {page}")


if __name__ == "__main__":
    main()
