"""bench: measure speed on this machine, as ratios of medians to a simple reference.

  storydalle bench bench=data                  reading, encoding and caching stories, and the wait for data in training
  storydalle bench bench=data rounds=9 workers=2
  storydalle bench bench=decode                drawing codes, and the loop of the released program
  storydalle bench bench=story_gan             a training step of StoryGANc, and a plain implementation of it

The measurements take turns in every round, so that a busy machine slows all of them equally. Writes table.md and
bench.json.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch

from storydalle.bench.data_speed import bench_data
from storydalle.bench.decode_speed import bench_decode
from storydalle.bench.rows import Measured
from storydalle.bench.shapes import Shape
from storydalle.bench.story_gan import bench_story_gan
from storydalle.commands.application import Request
from storydalle.commands.default_folders import named
from storydalle.files import locks, outputs
from storydalle.files.records import git_state, versions, write_record
from storydalle.files.whole import write_text
from storydalle.reporting.result_pages import fill_pages
from storydalle.settings import OneOf, filled

BENCHES: dict[str, Callable[[Shape], Measured]] = {
    "data": bench_data,
    "decode": bench_decode,
    "story_gan": bench_story_gan,
}
UNNAMED = ("bench", "out", "readme", "rounds", "num_stories")  # how long is measured is no other measurement


@dataclass(frozen=True)
class BenchSettings(Shape):
    bench: Annotated[str, OneOf(BENCHES)]
    out: Path | None  # by default benched/<bench>
    readme: tuple[Path, ...] | None  # markdown files whose results are replaced


SETTINGS = BenchSettings


def run(request: Request) -> None:
    settings = filled(BenchSettings, request.settings)
    out = settings.out or named(Path("benched", settings.bench), "bench", request, UNNAMED)
    outputs.check_space(out, megabytes=10)
    with locks.held(out, "bench"):
        write(out, settings, request.settings)


def write(out: Path, settings: BenchSettings, asked: Mapping[str, object]) -> None:
    """Measure, and write the table and a record with the settings."""
    text, values = BENCHES[settings.bench](settings)
    commit, dirty = git_state(Path(__file__).parent)
    measured = {name: value for name, value in asked.items() if name not in ("out", "readme")}
    record = {"values": values, "settings": measured, "commit": commit, "dirty": dirty, "versions": versions()}
    write_record(out / "bench.json", record | {"device": f"cpu, {torch.get_num_threads()} threads"})
    write_text(out / "table.md", text + "\n")
    fill_pages(settings.readme, text)
    print(f"{text}\nwrote {out / 'table.md'} and {out / 'bench.json'}")
