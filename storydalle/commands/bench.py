"""bench: measure speed on this machine, as ratios of medians to a simple reference.

  storydalle bench                             everything, in a quarter of an hour
  storydalle bench bench=quick                 drawing, a strip and a training step, in three minutes
  storydalle bench bench=data                  reading, encoding and caching stories, and the wait for data in training
  storydalle bench bench=data rounds=9 workers=2
  storydalle bench bench=decode                drawing codes, and the loop of the released program
  storydalle bench bench=generate              a strip: a call of the shipped model, and from the command's start
  storydalle bench bench=train                 a training step of the shipped model, and that of the released program
  storydalle bench bench=evaluate              scoring the shipped model, and drawing the same frames alone
  storydalle bench bench=story_gan             a training step of StoryGANc, and a plain implementation of it
  storydalle bench bench=growth                time and memory against lengths, batches and sizes, with fitted exponents

The measurements take turns in every round, so that a busy machine slows all of them equally. Writes table.md, and
metrics.json with the processor, its load and the versions.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch

from storydalle.bench.data_speed import bench_data
from storydalle.bench.decode_speed import bench_decode
from storydalle.bench.evaluate_speed import bench_evaluate
from storydalle.bench.generate_speed import bench_generate
from storydalle.bench.growth import bench_growth
from storydalle.bench.machine import described, watched, with_threads
from storydalle.bench.rows import BenchRow, Measured
from storydalle.bench.shapes import Shape
from storydalle.bench.story_gan import bench_story_gan
from storydalle.bench.train_speed import bench_train
from storydalle.commands.application import Request
from storydalle.commands.default_folders import named
from storydalle.files import locks, outputs
from storydalle.files.records import metrics_record, write_record
from storydalle.files.whole import write_text
from storydalle.models import kinds
from storydalle.reporting.result_pages import fill_pages
from storydalle.settings import OneOf, filled

BENCHES: dict[str, Callable[[Shape], Measured]] = {
    "decode": bench_decode,
    "generate": bench_generate,
    "train": bench_train,
    "evaluate": bench_evaluate,
    "data": bench_data,
    "story_gan": bench_story_gan,
    "growth": bench_growth,
}
# What is no other measurement: where it is written, and how long is measured.
UNNAMED = ("bench", "out", "readme", "rounds", "seconds", "num_stories")


@dataclass(frozen=True)
class BenchSettings(Shape):
    benches: tuple[Annotated[str, OneOf(tuple(BENCHES))], ...]
    out: Path | None  # by default benched/<bench>
    readme: tuple[Path, ...] | None  # markdown files whose results are replaced


def run(request: Request) -> None:
    settings = filled(BenchSettings, request.settings)
    if settings.model is not None:
        kinds.locate(settings.model)  # before a quarter of an hour of other things is measured
    name = request.choices["bench"]
    out = settings.out or named(Path("benched", name), "bench", request, UNNAMED)
    outputs.check_space(out, megabytes=10)
    with locks.held(out, "bench"), with_threads(settings.threads):
        write(out, settings, request.settings)


def write(out: Path, settings: BenchSettings, asked: Mapping[str, object]) -> None:
    """Measure, and write the table and a record with settings and machine."""
    started, found, lasted = time.monotonic(), dict[str, Measured](), dict[str, float]()
    with watched() as watch:
        for name in settings.benches:
            begun = time.monotonic()
            found[name] = BENCHES[name](shape_of(settings, name))
            lasted[name] = time.monotonic() - begun
            print(f"{found[name].text}\n", flush=True)
    machine = described() | {"load": watch.load._asdict() | {"is_quiet": watch.load.is_quiet}}
    record = metrics_record(
        {name: measured.values | {"seconds": seconds_of(measured.rows)} for name, measured in found.items()},
        protocol={"kind": "speed"} | {key: value for key, value in asked.items() if key not in ("out", "readme")},
        n={"rounds": settings.rounds},
        seeds=[settings.seed],
        device=f"cpu, {torch.get_num_threads()} threads",
        wall_seconds=time.monotonic() - started,
        wall_seconds_of_benches=lasted,
        machine=machine,
        dtype="float32, but where a row names another",
        rows={name: [as_record(row) for row in measured.rows] for name, measured in found.items()},
    )
    about = f"{machine['processor']}, {machine['threads']} threads; {watch.load}"
    text = "\n\n".join([about, *(measured.text for measured in found.values())])
    write_record(out / "metrics.json", record)
    write_text(out / "table.md", text + "\n")
    fill_pages(settings.readme, text)
    print(f"{about}\nwrote {out / 'table.md'} and {out / 'metrics.json'}")


def shape_of(settings: BenchSettings, bench: str) -> Shape:
    """The settings of one bench: among others, ``model`` is no StoryGANc."""
    is_other = bench == "story_gan" and len(settings.benches) > 1
    return replace(settings, model=None) if is_other else settings


def seconds_of(rows: Sequence[BenchRow]) -> dict[str, dict[str, float]]:
    """The medians of each case, in seconds, or in what its unit counts."""
    cases: dict[str, dict[str, float]] = {}
    for row in rows:
        cases.setdefault(row.case, {})[row.variant] = row.timing.median
    return cases


def as_record(row: BenchRow) -> dict[str, object]:
    return row._asdict() | {"timing": row.timing._asdict(), "is_steady": row.timing.is_steady}
