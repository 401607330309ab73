"""minDALL-E at its full size, 1.3 billion random numbers: converted, opened, drawn with, in how much memory and time.

  python -m tests.full_size FOLDER                          writes FOLDER/full_size.json, and prints the table
  python -m tests.full_size FOLDER --readme README.md       puts it there, between the markers of results

Needs 23 GB of disk in FOLDER. Each stage is a process of its own; files leave the cache before they are read again,
and the floor is a program that only reads them.
"""

import argparse
import json
import os
import string
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from itertools import islice, product
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image

from storydalle.evaluation.toon_table import markdown
from storydalle.files.records import git_state, versions, write_record
from storydalle.files.weights import files_of
from storydalle.reporting.result_pages import fill_results
from tests.released_models import FULL, Sizes, random_weights, stage2_shapes
from tests.released_tokenizers import taming_weights

CAPTIONS = ["a red house by the sea", "the sea is calm", "a boat leaves", "it is night"]
READ = "import sys\nfor name in sys.argv[1:]:\n    file = open(name, 'rb')\n    while file.read(1 << 24): pass"
OPEN = "import sys, time; from storydalle import StoryDALLE; began = time.perf_counter()\n"
OPEN += "StoryDALLE.from_pretrained(sys.argv[1]); print('opened in', time.perf_counter() - began)"


class Stage(NamedTuple):
    """The cost of a process: seconds, and the most memory, in GB, of its own and with the files mapped into it."""

    seconds: float
    own: float
    mapped: float
    said: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--readme", type=Path)
    parser.add_argument("--depth", type=int, default=FULL.depth, help="blocks, to try the program")
    given = parser.parse_args()
    given.folder.mkdir(parents=True)
    archive = write_archive(given.folder, FULL._replace(depth=given.depth))
    Image.new("RGB", (256, 256), "steelblue").save(given.folder / "source.png")
    ours = given.folder / "mindalle"
    storydalle = [sys.executable, "-m", "storydalle"]
    stages = {"read the archive": measured([sys.executable, "-c", READ, str(archive)], archive)}
    settings = ["format=mindalle", f"source={archive}", f"target={ours}"]
    stages["convert the archive"] = measured([*storydalle, "convert", *settings], archive)
    files = files_of(ours / "model.safetensors")
    stages["read the converted files"] = measured([sys.executable, "-c", READ, *map(str, files)], *files)
    stages["open the model"] = measured([sys.executable, "-c", OPEN, str(ours)], *files)
    drawn = [f"captions={json.dumps(CAPTIONS)}", f"source={given.folder / 'source.png'}"]
    settings = [f"model={ours}", f"out={given.folder / 'strip'}", *drawn]
    stages["draw a story of 4 frames"] = measured([*storydalle, "generate", *settings], *files)
    write_results(given.folder, archive, files, stages, given.readme)


def write_archive(folder: Path, sizes: Sizes) -> Path:
    """The archive as its authors share it."""
    inside = folder / "1.3B"
    (inside / "tokenizer").mkdir(parents=True)
    write_vocabulary(inside / "tokenizer", sizes.words)
    widths = (128, 128, 256, 256, 512)
    images = taming_weights(widths, 2, (4,), z=256, codes=sizes.codes, embed=256)
    torch.save({"state_dict": images}, inside / "stage1_last.ckpt")
    torch.save({"state_dict": random_weights(stage2_shapes(sizes))}, inside / "stage2_last.ckpt")
    with tarfile.open(folder / "1.3B.tar.gz", "w:gz", compresslevel=1) as archive:
        archive.add(inside, "1.3B")
    for path in sorted(inside.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    return folder / "1.3B.tar.gz"


def write_vocabulary(folder: Path, num_words: int) -> None:
    """Letters, and words of two and three of them until there are enough, each made by one merge."""
    letters = string.ascii_lowercase
    words = ["[PAD]", "[UNK]", *letters, *(f"{letter}</w>" for letter in letters)]
    merges = islice(merged(letters), num_words - len(words))
    pairs = list(merges)
    words += [left + right for left, right in pairs]
    (folder / "bpe-16k-vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in pairs)]
    (folder / "bpe-16k-merges.txt").write_text("\n".join(lines) + "\n")


def merged(letters: str) -> Iterator[tuple[str, str]]:
    for first, second in product(letters, letters):
        yield first, second
        yield first, f"{second}</w>"
    for first, second, third in product(letters, letters, letters):
        yield first + second, third


def measured(command: list[str], *files: Path) -> Stage:
    """Run a command on files that are not in the cache."""
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with tempfile.TemporaryFile("w+") as said:
        began, own, mapped = time.perf_counter(), 0.0, 0.0
        process = subprocess.Popen(command, stdout=said)
        while process.poll() is None:
            held = gigabytes(process.pid)
            own, mapped = max(own, held["RssAnon"]), max(mapped, held["VmHWM"])
            time.sleep(0.02)
        seconds = time.perf_counter() - began
        assert process.returncode == 0, command
        said.seek(0)
        return Stage(seconds, own, mapped, said.read())


def gigabytes(process: int) -> dict[str, float]:
    """The memory of a process that no file stands behind, and the most that it has held with files mapped."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return {name: int(fields.get(name, "0 kB").split()[0]) * 1024 / 1e9 for name in ("RssAnon", "VmHWM")}


def write_results(
    folder: Path, archive: Path, files: list[Path], stages: dict[str, Stage], readme: Path | None
) -> None:
    rows = [[name, f"{stage.seconds:.1f}", f"{stage.own:.2f}", f"{stage.mapped:.2f}"] for name, stage in stages.items()]
    sizes = {"archive": archive.stat().st_size, "converted": sum(file.stat().st_size for file in files)}
    opened = float(stages["open the model"].said.split()[-1])
    ratio = opened / stages["read the converted files"].seconds
    text = (
        f"An archive of {sizes['archive'] / 1e9:.2f} GB, {sizes['converted'] / 1e9:.2f} GB of converted weights in "
        f"{len(files)} files; {torch.get_num_threads()} threads\n\n"
        f"{markdown(['', 'seconds', 'memory, GB', 'with mapped files, GB'], rows)}\n\n"
        f"Opening takes {opened:.1f} s beside the imports, {ratio:.2f} times as long as reading the files alone."
    )
    commit, dirty = git_state(Path(__file__).parent)
    values = {
        name: {"seconds": stage.seconds, "own": stage.own, "mapped": stage.mapped} for name, stage in stages.items()
    }
    values |= {"bytes": sizes, "opened": {"seconds": opened}}
    record = {"values": values, "commit": commit, "dirty": dirty, "versions": versions()}
    write_record(folder / "full_size.json", record)
    if readme is not None:
        fill_results(readme, text)
    print(text)


if __name__ == "__main__":
    main()
