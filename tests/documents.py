"""The pages that a reader meets, and the commands in them."""

import re
import textwrap
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", *DOCS, ROOT / "examples" / "README.md", ROOT / "CONTRIBUTING.md"]
ABSENT = re.compile(r"/your/|models/|/NAME/|launcher=slurm")  # data, released weights, a run or a cluster not at hand


class Line(NamedTuple):
    """A line of a shell block, or a command of a table."""

    page: str  # its name, from the root
    text: str

    @property
    def words(self) -> str:
        """The line without the folder of the program, the variables that are set for it, and what launches it."""
        return re.sub(r"^(PYTHONPATH=\. )?(\.venv/bin/)?(srun torchrun .* -m (?=storydalle ))?", "", self.text)

    @property
    def is_storydalle(self) -> bool:
        return self.words.startswith("storydalle ")

    @property
    def needs_what_is_absent(self) -> bool:
        return ABSENT.search(self.text) is not None


def page_name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    """Fenced blocks of a language, those in lists too, without their indentation."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(block) for _, block in found]


def shell_lines(page: Path) -> list[Line]:
    lines = [line for block in blocks(page, "bash") for line in block.splitlines()]
    return [Line(page_name(page), line) for line in lines if line.strip() and not line.startswith("#")]


def table_commands(page: Path) -> list[Line]:
    """Commands in the cells of tables."""
    rows = [row for row in page.read_text(encoding="utf-8").splitlines() if row.startswith("| ")]
    return [Line(page_name(page), text) for row in rows for text in re.findall(r"`(storydalle \w+ \w+=[^`]*)`", row)]


LINES = [line for page in PAGES for line in [*shell_lines(page), *table_commands(page)]]
STORYDALLE = [line for line in LINES if line.is_storydalle]


def files_of(page: Path) -> dict[str, str]:
    """The files that a page shows, each under its name in the first line: ``# own/data/comics.yaml``."""
    found = [re.match(r"# (\S+\.(?:py|yaml))\n(.*)", block, re.DOTALL) for block in blocks(page, "(?:python|yaml)")]
    return {match[1]: match[2] for match in found if match}
