"""bench: measure speed on this machine, as ratios of medians to a simple reference.

  storydalle bench bench=data                  reading, encoding and caching stories, and the wait for data in training
  storydalle bench bench=data rounds=9 workers=2
  storydalle bench bench=story_gan             a training step of StoryGANc, and a plain implementation of it

The measurements take turns in every round, so that a busy machine slows all of them equally. Writes table.md and
bench.json.
"""

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from storydalle.commands.application import Request
from storydalle.commands.bench_story_gan import bench_story_gan
from storydalle.commands.default_folders import named
from storydalle.evaluation.entries import open_story_dalle
from storydalle.evaluation.toon_table import markdown
from storydalle.files import locks, outputs
from storydalle.files.records import git_state, versions, write_record
from storydalle.files.whole import write_text
from storydalle.mistakes import UserError
from storydalle.models import kinds
from storydalle.models.story_dalle.model import StoryDALLE
from storydalle.reporting.result_pages import fill_pages
from storydalle.settings import Between, Count, OneOf, Seed, filled
from storydalle.stories.data import StepData
from storydalle.stories.pictures import open_picture
from storydalle.stories.set_stories import SetStories
from storydalle.stories.sets.folder import FolderStories
from storydalle.stories.toon import ToonSV
from storydalle.tokens.cache import CachedStories, StoryCodes
from storydalle.tokens.encoding import build_cache, read_clips, tables_folder
from storydalle.training.story_dalle_training import StoryDALLETraining

DECODE, READ, PREPARE, CACHE = "decode alone", "decode and resize", "decode, resize and encode", "read from the cache"
TRAINING_STEPS = 4
UNNAMED = ("bench", "out", "readme", "rounds", "num_stories")  # how long is measured is no other measurement


class Speeds(NamedTuple):
    """Medians over the rounds: frames a second, and the share of a training step that waits for data."""

    frames: dict[str, float]
    waiting: float


@dataclass(frozen=True)
class BenchSettings:
    bench: Annotated[str, OneOf(lambda: BENCHES)]
    model: str | None  # by default a shipped one
    num_stories: Count  # of ToonSV
    picture_size: Annotated[int, Between(64, 256)]  # pixels of a side
    rounds: Count
    batch_size: Count
    workers: Annotated[int, Between(0, 64)]  # processes that read pictures
    seed: Seed
    out: Path | None  # by default benched/<bench>
    readme: tuple[Path, ...] | None  # markdown files whose results are replaced

    def __post_init__(self) -> None:
        if self.num_stories < self.batch_size:
            raise UserError(f"num_stories={self.num_stories} do not fill a batch: give at least {self.batch_size}")


def run(request: Request) -> None:
    settings = filled(BenchSettings, request.settings)
    out = settings.out or named(Path("benched", settings.bench), "bench", request, UNNAMED)
    outputs.check_space(out, megabytes=10)
    with locks.held(out, "bench"):
        write(out, settings, request.settings)


def write(out: Path, settings: BenchSettings, asked: Mapping[str, object]) -> None:
    """Measure, and write the table and the record, with what was asked."""
    text, values = BENCHES[settings.bench](settings)
    commit, dirty = git_state(Path(__file__).parent)
    measured = {name: value for name, value in asked.items() if name not in ("out", "readme")}
    record = {"values": values, "settings": measured, "commit": commit, "dirty": dirty, "versions": versions()}
    write_record(out / "bench.json", record | {"device": f"cpu, {torch.get_num_threads()} threads"})
    write_text(out / "table.md", text + "\n")
    fill_pages(settings.readme, text)
    print(f"{text}\nwrote {out / 'table.md'} and {out / 'bench.json'}")


def bench_data(settings: BenchSettings) -> tuple[str, dict[str, object]]:
    """The way of a picture from its file into a batch."""
    model = open_story_dalle(kinds.locate(settings.model or "story_dalle"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = write_pictures(folder / "pictures", settings.num_stories, settings.picture_size)
        stories = SetStories(FolderStories(folder / "pictures"), "train", model.resolution)
        speeds = measure(model, stories, files, folder, settings)
    floor = speeds.frames[DECODE]
    lines = [[name, f"{rate:,.0f}", f"{rate / floor:.2f}"] for name, rate in speeds.frames.items()]
    size, rounds = settings.picture_size, settings.rounds
    text = (
        f"{len(files)} pictures of {size} x {size} pixels to {model.resolution}; medians of {rounds} rounds\n\n"
        f"{markdown(['', 'frames a second', 'of decoding alone'], lines)}\n\n"
        f"Reading the cache is {speeds.frames[CACHE] / floor:.0f} times as fast as decoding. "
        f"Training waits for data {100 * speeds.waiting:.2f} % of a step of {settings.batch_size} stories."
    )
    return text, {"frames_per_second": speeds.frames, "share_of_a_step_waiting": speeds.waiting}


def write_pictures(folder: Path, num_stories: int, size: int) -> list[Path]:
    """ToonSV's stories as a folder of one's own stories."""
    files = []
    for story in ToonSV("train", num_stories, resolution=size):
        own = folder / story.id.rpartition("/")[2]
        own.mkdir(parents=True)
        for i, frame in enumerate([story.source, *story.frames]):
            files.append(own / f"{i}.png")
            Image.fromarray(frame).save(files[-1])
        (own / "captions.txt").write_text("\n".join(["", *story.captions]) + "\n")
    return files


def measure(model: StoryDALLE, stories: SetStories, files: list[Path], folder: Path, settings: BenchSettings) -> Speeds:
    """All measurements, once a round."""
    clips, workers = stories.clips(), settings.workers
    build_cache(stories, model.image_tokenizer, model.caption_tokenizer, folder / "cache", workers)
    cached = CachedStories(folder / "cache", tables_folder(folder / "cache", model.caption_tokenizer))
    chosen = np.random.default_rng(settings.seed).permutation(len(cached))[: settings.batch_size].tolist()
    frames_read = int((cached.lengths[chosen] + 1).sum())

    def decode() -> int:
        for file in files:
            open_picture(file)
        return len(files)

    def read() -> int:
        return sum(len(pictures) for pictures in read_clips(stories, clips, workers))

    def prepare() -> int:
        shutil.rmtree(folder / "again", ignore_errors=True)
        build_cache(stories, model.image_tokenizer, model.caption_tokenizer, folder / "again", workers)
        return len(clips)

    def read_cache() -> int:
        for _ in range(20):
            cached.batch(chosen)
        return 20 * frames_read

    rates: dict[str, list[float]] = {DECODE: [], READ: [], PREPARE: [], CACHE: []}
    shares = []
    data = StoryCodes(
        *(stories, stories, model.image_tokenizer, model.caption_tokenizer, folder / "training"),
        batch_size=settings.batch_size,
    )
    data.prepare_data()
    for _ in range(settings.rounds):
        for name, work in ((DECODE, decode), (READ, read), (PREPARE, prepare), (CACHE, read_cache)):
            rates[name].append(rate(work))
        shares.append(share_waiting(model, data))
    return Speeds({name: statistics.median(found) for name, found in rates.items()}, statistics.median(shares))


def rate(work: Callable[[], int]) -> float:
    """Items a second."""
    started = time.perf_counter()
    return work() / (time.perf_counter() - started)


def share_waiting(model: StoryDALLE, data: StepData) -> float:
    """The part of training steps in which the next batch is not there yet."""
    system = StoryDALLETraining(model, text_weight=0)
    batches: Iterator[Any] = iter(data.train_dataloader())
    waited, started = 0.0, time.perf_counter()
    for _ in range(TRAINING_STEPS):
        asked = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - asked
        logits = system.model(batch.tokens, batch.codes, batch.source[:, None], batch.mask)
        logits.image.square().mean().backward()
        system.zero_grad()
    return waited / (time.perf_counter() - started)


BENCHES: dict[str, Callable[[BenchSettings], tuple[str, dict[str, object]]]] = {
    "data": bench_data,
    "story_gan": lambda settings: bench_story_gan(settings.model or "storyganc", settings.batch_size, settings.rounds),
}
